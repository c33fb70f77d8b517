"""The weights of a model: what a method expects, and one small file of them, without pickle."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flatjax.errors import InputError
from flatjax.files import write_atomically
from flatjax.methods import Method, Params
from flatjax.mri import Batch, Measurement

FILE = "weights.npz"  # of a packed model, beside its config.json


def named(params: Params) -> dict[str, Any]:
    """The leaves of a pytree by their path, as "net/unet/down_0/kernel"."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def expected_params(method: Method) -> Params:
    """The shapes and types of a method's weights, `jax.ShapeDtypeStruct`s; nothing is computed."""
    kspace = jnp.zeros((1, 1, 32, 32), jnp.complex64)  # weights fit images of every size
    magnitude = jnp.zeros((1, 32, 32))
    batch = Batch(Measurement(kspace, magnitude[None], kspace), kspace, magnitude)
    return jax.eval_shape(method.init, jax.random.key(0), batch)


def check_params(params: Params, expected: Params, source: str | Path) -> None:
    """Refuse weights of other names or shapes than `expected`, by an `InputError` of the first.

    `source` is where they come from.
    """
    found, wanted = ({name: jnp.shape(leaf) for name, leaf in named(tree).items()}
                     for tree in (params, expected))
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            here, there = (shapes.get(name, "absent") for shapes in (found, wanted))
            raise InputError(f"the weights in {source} are of another model than this config's: "
                             f"{name} is {here}, expected {there}; take the same method and "
                             "network as the run's")


def save(path: Path, params: Params) -> None:
    """Write real weights, rounded to float16, to an `.npz` file, whole or not at all.

    An `InputError` if one of them is not finite, or too large.
    """
    with np.errstate(over="ignore"):  # told below
        arrays: dict[str, Any] = {name: np.asarray(leaf).astype(np.float16)
                                  for name, leaf in named(params).items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"the weight {name} is not finite as float16, expected numbers up to "
                             "65504; take a run that did not diverge")
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def load(path: Path, expected: Params) -> Params:
    """Read weights that `save` wrote. A file of more than the expected weights is not read.

    They come as `expected`, a pytree of what has the shapes, as NumPy arrays float32. An
    `InputError` if it is no such file, damaged, or holds the weights of another model.
    """
    wanted = named(expected)
    largest = sum(4 * leaf.size + 1000 for leaf in wanted.values())
    try:
        with np.load(path, allow_pickle=False) as archive:
            if sum(member.file_size for member in archive.zip.infolist()) > largest:
                raise ValueError("it holds more than the weights of its config")
            arrays = {name: np.asarray(archive[name]) for name in archive}
    except Exception as error:  # what zipfile and numpy raise is of many types
        raise InputError(f"{path} cannot be read as weights ({error}); expected a file that "
                         "flatjax packed") from error
    check_params(arrays, expected, path)
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise InputError(f"{path} holds no weights: {name} is not of finite real numbers; "
                             "expected a file that flatjax packed")
    return jax.tree.unflatten(jax.tree.structure(expected),
                              [arrays[name].astype(np.float32) for name in wanted])
