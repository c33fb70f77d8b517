"""What trained methods share: checks of their options, scale, the loss on the result."""

from collections.abc import Callable
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flatjax import losses
from flatjax.errors import InputError, check_choice
from flatjax.flow.scan import saved_indices
from flatjax.methods.base import Method, Params, Reconstruction
from flatjax.mri import (
    COMBINES,
    Batch,
    Measurement,
    center_crop,
    combine as combine_coils,
    ifft2c,
    intensity_scale,
)
from flatjax.mri.sampling import calibration_mask
from flatjax.nets.sensitivities import SensitivityNet

WEIGHTS = ("per_cascade", "shared")

# Final k-space, the states asked for or None, and the network evaluations: one number, or one for
# each element of the batch.
Rolled = tuple[Array, Array | None, int | Array]
# `(params, measurement, trajectory)` to that, all on the scale of an image with maximum 1;
# `trajectory` says which states, see `flow.scan.saved_indices`.
Rollout = Callable[[Params, Measurement, bool | int], Rolled]


def check_loss(loss: losses.Loss, *terms: str) -> None:
    """Refuse a loss with a term that a method does not have.

    Raises:
        InputError: naming it.
    """
    for name, weight in loss.weights.items():
        if weight and name not in terms:
            raise InputError(f"the loss has the term {name!r}, expected some of "
                             f"{', '.join(terms)}: this method has no such term")


def init_network(net: nn.Module, rng: Array, batch: Batch, copies: int | None = None, *,
                 images: int = 1, **told: Any) -> Params:
    """Weights of a network on complex images of the batch's size.

    Args:
        net: from images (and a time, if it takes one) to one image.
        rng: key.
        batch: for its shape.
        images: number of images that it takes.
        copies: number of independent sets of weights, stacked on a leading axis; None for one
            set without that axis.
        **told: what it is told beside the time, `[1]`.
    """
    image = jnp.zeros((1, *batch.kspace.shape[-2:]), jnp.complex64)

    def init(key: Array) -> Params:
        return net.init(key, *[image] * images, t=jnp.ones(1), **told)["params"]

    return init(rng) if copies is None else jax.vmap(init)(jax.random.split(rng, copies))


def apply_network(net: nn.Module, params: Params, *images: Array, **times: Any) -> Array:
    """What a network makes of images, as `net(*images, t=t)`, with these weights."""
    result: Any = net.apply({"params": params}, *images, **times)  # flax: or a pair
    return result


def with_sensitivities(method: Method, net: SensitivityNet | None) -> Method:
    """The method as it is, or with maps of a network that is trained along with it.

    The network sees the fully sampled center of the measurement alone, and the maps that come
    with the measurement are not used; see `nets.SensitivityNet`.

    Args:
        method: uses the maps of the measurement.
        net: the network; None for the maps that are given with the measurement.
    """
    if net is None:
        return method

    def estimated(params: Params, measurement: Measurement) -> Measurement:
        center = ifft2c(measurement.kspace * calibration_mask(measurement.mask))
        return measurement._replace(maps=apply_network(net, params["sensitivities"], center))

    def init(rng: Array, batch: Batch) -> Params:
        key_maps, key_method = jax.random.split(rng)
        images = jnp.zeros((1, 1, *batch.kspace.shape[-2:]), jnp.complex64)
        return {"sensitivities": net.init(key_maps, images)["params"],
                **method.init(key_method, batch)}

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        measurement = estimated(params, batch.measurement)
        return method.loss(params, rng, batch._replace(measurement=measurement))

    def reconstruct(params: Params, rng: Array, measurement: Measurement, *,
                    trajectory: bool | int = False) -> Reconstruction:
        measurement = estimated(params, measurement)
        result = method.reconstruct(params, rng, measurement, trajectory=trajectory)
        return result._replace(maps=measurement.maps)

    return Method(init, loss, reconstruct)


def project(kspace: Array, measured: Measurement) -> Array:
    """`kspace` with the measured samples put back, `[batch, coil, ky, kx]` complex64."""
    return jnp.where(measured.mask > 0, measured.kspace, kspace)


def normalize_measurement(measurement: Measurement) -> tuple[Measurement, Array]:
    """The measurement divided by each slice's `mri.intensity_scale`, and that scale."""
    scale = intensity_scale(measurement)
    noise = None if measurement.noise is None else measurement.noise / scale[:, 0, 0, 0]
    return measurement._replace(kspace=measurement.kspace / scale, noise=noise), scale


def result_unit(measurement: Measurement, scale: Array) -> Array:
    """What a result on the scale of a normalized measurement is to be multiplied with.

    `scale`, or 0 for an empty slice, whose result so is empty: the limit of an ever weaker one.
    """
    present = jnp.any(measurement.kspace != 0, axis=(1, 2, 3), keepdims=True)
    return jnp.where(present, scale, 0)


def normalize(batch: Batch) -> Batch:
    """The batch divided by each slice's `mri.intensity_scale`."""
    measured, scale = normalize_measurement(batch.measurement)
    return Batch(measured, batch.kspace / scale, batch.target / scale[:, 0])


def end_terms(kspace: Array, batch: Batch, combine: str) -> dict[str, Callable[[], Array]]:
    """Terms of a loss on the final k-space, for `losses.total_loss`.

    Args:
        kspace: the result `[batch, coil, ky, kx]` complex64, on the scale of `batch`.
        batch: from `normalize`.
        combine: how coils are combined, "sense" or "rss".

    Returns:
        "ssim": `1 - SSIM` and "l1": L1 of the magnitude image; "kspace": L1 of the k-space.
    """
    image = center_crop(combine_coils(kspace, batch.measurement.maps, combine),
                        batch.target.shape[-2:])
    return {"ssim": lambda: 1 - losses.ssim(image, batch.target),
            "l1": lambda: losses.l1(image, batch.target),
            "kspace": lambda: losses.l1(kspace, batch.kspace)}


class SavedSteps(TypedDict):
    """Fields of a `Reconstruction`."""

    steps: np.ndarray | None
    times: Array | None


def saved_steps(steps: int, times: Array | None, trajectory: bool | int) -> SavedSteps:
    """The fields `steps` and `times` of a `Reconstruction`.

    Args:
        steps: of the method.
        times: flow times of all its states `[steps + 1]`, or None.
        trajectory: which of them are saved_indices, see `flow.scan.saved_indices`.
    """
    if not trajectory:
        return {"steps": None, "times": None}
    indices = saved_indices(steps, trajectory)
    return {"steps": indices, "times": None if times is None else times[indices]}


def reconstructor(rollout: Rollout, *, combine: str, steps: int,
                  times: Array | None = None) -> Callable[..., Reconstruction]:
    """The `reconstruct` of a `Method` from a rollout on normalized k-space.

    Args:
        rollout: see `Rollout`.
        combine: how coils are combined, "sense" or "rss".
        steps: of one rollout.
        times: flow times of its states `[steps + 1]`, if it has such a time.
    """
    def reconstruct(params: Params, rng: Array, measurement: Measurement, *,
                    trajectory: bool | int = False) -> Reconstruction:
        measured, scale = normalize_measurement(measurement)
        final, states, nfe = rollout(params, measured, trajectory)
        unit = result_unit(measurement, scale)
        final = unit * final
        return Reconstruction(image=combine_coils(final, measurement.maps, combine), kspace=final,
                              trajectory=None if states is None else unit * states, nfe=nfe,
                              **saved_steps(steps, times, trajectory))

    return reconstruct


def end_supervised(init: Callable[[Array, Batch], Params],
                   rollout: Callable[[Params, Measurement, bool | int],
                                     tuple[Array, Array | None]],
                   loss: losses.Loss, *, combine: str, steps: int) -> Method:
    """A method that is trained on its result alone.

    Args:
        init: of the `Method`.
        rollout: see `Rollout`, without the evaluations.
        loss: of the terms of `end_terms`.
        combine: how coils are combined, "sense" or "rss".
        steps: of one rollout, each with one network evaluation.

    Raises:
        InputError: if the loss has another term.
    """
    check_loss(loss, "ssim", "l1", "kspace")
    check_choice("combine", combine, COMBINES)

    def total(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        batch = normalize(batch)
        final, _ = rollout(params, batch.measurement, False)
        return losses.total_loss(loss.weights, end_terms(final, batch, combine))

    return Method(init, total, reconstructor(lambda *args: (*rollout(*args), steps),
                                            combine=combine, steps=steps))
