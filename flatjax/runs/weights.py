"""Weights as one small file: a zip of arrays (`.npz`), without pickle."""

import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from flatjax.errors import InputError
from flatjax.files import write_atomically
from flatjax.methods import Params

FILE = "weights.npz"  # of a packed model, beside its config.json
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0}


def named(params: Params) -> dict[str, jax.Array]:
    """The leaves of a pytree by their path, as "net/unet/down_0/kernel"."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def save(path: Path, params: Params, dtype: str = "float16") -> None:
    """Write weights, whole or not at all.

    Args:
        path: of the `.npz` file.
        params: pytree of real arrays.
        dtype: that they are rounded to.

    Raises:
        InputError: if one of them is not finite, or too large for that type.
    """
    with np.errstate(over="ignore"):  # told below
        arrays: dict[str, Any] = {name: np.asarray(leaf).astype(dtype)
                                  for name, leaf in named(params).items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise InputError(f"the weight {name} is not finite as {dtype}, expected numbers up to "
                             f"{np.finfo(dtype).max:g}; take a run that did not diverge")
    write_atomically(path, lambda temporary: np.savez_compressed(temporary, **arrays))


def load(path: Path, expected: Params) -> Params:
    """Read weights that `save` wrote.

    Nothing larger than the expected weights is allocated, whatever the file says.

    Args:
        path: of the `.npz` file.
        expected: pytree of what has the shapes, as from `checkpoint.expected_params`.

    Returns:
        as `expected`, numpy arrays float32.

    Raises:
        InputError: if it is no such file, damaged, or holds the weights of another model.
    """
    wanted = named(expected)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if members.keys() != wanted.keys():
                odd = sorted(members.keys() ^ wanted.keys())[0]
                where = "more" if odd in members else "missing"
                raise InputError(f"{path} holds the weights of another model than its config's: "
                                 f"{odd} is {where}")
            arrays = {}
            for name, leaf in wanted.items():
                with archive.open(members[name]) as file:
                    arrays[name] = _read(file, name, leaf.shape, path)
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError,
            RuntimeError) as error:
        raise InputError(f"{path} cannot be read as weights ({error}); expected a file that "
                         "flatjax packed") from error
    return jax.tree.unflatten(jax.tree.structure(expected), arrays.values())


def _read(file: IO[bytes], name: str, shape: tuple[int, ...], path: Path) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"{name} is of an unknown version")
    found, fortran, dtype = _HEADERS[version](file)
    if found != shape or fortran or dtype.kind != "f" or dtype.itemsize > 4:
        raise InputError(f"the weights in {path} are of another model than its config's: {name} is "
                         f"{dtype} {found}, expected float16 or float32 {shape}")
    size = int(np.prod(shape)) * dtype.itemsize
    data = file.read(size + 1)  # whose end brings the check of the zip's checksum with it
    if len(data) != size:
        raise ValueError(f"{name} is cut short or too long")
    array = np.frombuffer(data, dtype).reshape(shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} is not finite")
    return array
