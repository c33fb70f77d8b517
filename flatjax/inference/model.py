"""A trained model as a function of k-space: `image = flatjax.load("multicoil")(kspace)`."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from flatjax import config as configuration, mri
from flatjax.data.prepare import Prepared, prepare
from flatjax.errors import InputError
from flatjax.inference.adapt import adapt
from flatjax.inference.checks import check_kspace
from flatjax.inference.pretrained import folder
from flatjax.inference.reconstruct import reconstruct_slices
from flatjax.inference.turning import Reconstruct, turned, turning
from flatjax.methods import Method, Params
from flatjax.mri import Measurement
from flatjax.runs.workdir import load_config, load_params


@dataclass(frozen=True, repr=False)
class Model:
    """A trained model.

    Called with k-space of any unit, it finds mask, coil maps and scale, as `flatjax reconstruct`
    does, and returns images. `method` and `params` are the pure functions and weights below it.

    Attributes:
        name: of the model, or its folder.
        config: that it was trained with.
        method: its functions.
        params: its weights, float32.
    """

    name: str
    config: ConfigDict
    method: Method
    params: Params

    def __call__(self, kspace: np.ndarray, *, mask: np.ndarray | None = None,
                 maps: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """Reconstruct one slice or several.

        Args:
            kspace: `[ky, kx]` of one coil, `[coil, ky, kx]` or `[slice, coil, ky, kx]`, complex,
                centered (zero frequency at n // 2), zero where not sampled.
            mask: what was sampled, `[ky or 1, kx or 1]`; by default where samples are not zero.
            maps: sensitivities `[coil, y, x]` or `[slice, coil, y, x]`; by default ESPIRiT's from
                the fully sampled center.
            seed: of a method that draws samples.

        Returns:
            magnitudes in the data's unit, `[y, x]` or `[slice, y, x]` float32.

        Raises:
            InputError: for arrays of another kind or size, k-space that is certainly of another
                form, a mask that contradicts it, or coils without maps and center.

        Warns of what is doubtful about the k-space, and if its axes are exchanged for the model.
        """
        return self._each(kspace, mask, maps, seed, self._image)

    def along(self, kspace: np.ndarray, *, mask: np.ndarray | None = None,
              maps: np.ndarray | None = None, seed: int = 0) -> np.ndarray:
        """The same for every state on the way, from zero-filled to the result.

        `[state, y, x]` or `[slice, state, y, x]` float32.
        """
        return self._each(kspace, mask, maps, seed, self._states)

    def adapt(self, kspace: np.ndarray, *, mask: np.ndarray | None = None,
              maps: np.ndarray | None = None, minutes: float = 5.0, seed: int = 0) -> "Model":
        """The model fine-tuned on an undersampled scan, for that scan, without a reference.

        Its error on samples that are kept from training is never larger than this model's.
        Arguments and errors are those of a call and of `inference.adapt.adapt`.
        """
        acquisition = configuration.make_acquisition(self.config)
        slices = [turned(one.measurement, acquisition)
                  for one in self._prepared(kspace, mask, maps)]
        return replace(self, params=adapt(self.method, self.params, slices, minutes=minutes,
                                          seed=seed)[0])

    def __repr__(self) -> str:
        weights = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return (f"Model({self.name!r}: {self.config.method.name}, {weights:,} weights, trained on "
                f"{self.config.data.name})")

    @cached_property
    def _image(self) -> Reconstruct:
        return self._turning(lambda *args: {"image": self.method.reconstruct(*args).image})

    @cached_property
    def _states(self) -> Reconstruct:
        def states(params: Params, rng: Array, measured: Measurement) -> dict[str, Array]:
            result = self.method.reconstruct(params, rng, measured, trajectory=True)
            if result.trajectory is None:
                raise InputError(f"{self.config.method.name} has no states on its way")
            maps = measured.maps if result.maps is None else result.maps
            return {"image": jnp.moveaxis(mri.combine(result.trajectory, maps), 0, 1)}

        return self._turning(states)

    def _turning(self, function: Reconstruct) -> Reconstruct:
        return turning(jax.jit(function), configuration.make_acquisition(self.config))

    def _each(self, kspace: np.ndarray, mask: np.ndarray | None, maps: np.ndarray | None,
              seed: int, function: Reconstruct) -> np.ndarray:
        prepared = self._prepared(kspace, mask, maps)
        results = reconstruct_slices(function, self.params, jax.random.key(seed), prepared, 1)
        images = [found["image"] for _, found in results]
        return images[0] if np.ndim(kspace) < 4 else np.stack(images)

    def _prepared(self, kspace: np.ndarray, mask: np.ndarray | None,
                  maps: np.ndarray | None) -> Iterator[Prepared]:
        slices = _slices("kspace", kspace, 2)
        count, *shape = slices.shape
        every_maps = [None] * count
        if maps is not None:
            given = _slices("maps", maps, 3)
            if given.shape not in ((1, *shape), slices.shape):
                raise InputError(f"maps have shape {np.shape(maps)}, expected {tuple(shape)} as "
                                 "every slice of kspace has it")
            every_maps = np.broadcast_to(given, slices.shape)
        ky, kx = shape[1:]
        if mask is not None and np.shape(mask) not in ((1, kx), (ky, 1), (ky, kx)):
            raise InputError(f"mask has shape {np.shape(mask)}, expected {(ky, kx)} or {(1, kx)} "
                             f"or {(ky, 1)}")
        for doubt in check_kspace(max(slices, key=lambda one: np.abs(one).sum())):
            warnings.warn(doubt, stacklevel=4)
        return (prepare(one, mask, own) for one, own in zip(slices, every_maps, strict=True))


def _slices(name: str, array: np.ndarray, least: int) -> np.ndarray:
    """`[slice, coil, y, x]` complex64 of an array that may lack the first axes."""
    array = np.asarray(array)
    if not least <= array.ndim <= 4 or 0 in array.shape or not np.iscomplexobj(array):
        axes = ("slice", "coil", "ky", "kx")
        raise InputError(f"{name} is {array.dtype} of shape {array.shape}, expected complex, "
                         + " or ".join(f"[{', '.join(axes[4 - n:])}]" for n in range(least, 5)))
    if not np.isfinite(array).all():
        raise InputError(f"{name} has values that are not finite, expected numbers")
    return array.reshape((1,) * (4 - array.ndim) + array.shape).astype(np.complex64)


def load(name: str | Path) -> Model:
    """A trained model: "multicoil", which is shipped and takes any number of coils, or a folder.

    The folder is one that `flatjax pack` or `flatjax train` wrote.
    An `InputError` if it is missing or damaged.
    """
    path = Path(name)
    if not (path / "config.json").is_file():
        path = folder(str(name))
    config = load_config(path)
    method = configuration.make_method(config)
    return Model(str(name), config, method, load_params(path, config, method)[0])
