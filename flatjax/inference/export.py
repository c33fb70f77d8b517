"""A trained reconstruction as one file that needs only JAX and flatbuffers."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import Array, export
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.data.batches import measure_volume
from flatjax.errors import InputError
from flatjax.files import write_atomically
from flatjax.methods import Method, Params
from flatjax.mri import Measurement
from flatjax.runs.workdir import at_test_time, load_config, load_params

PLATFORMS = ("cpu", "cuda", "tpu")


def exported(method: Method, params: Params, like: Measurement) -> export.Exported:
    """The reconstruction with its weights as one program for `PLATFORMS`.

    Its `call(kspace, mask, maps, seed)` takes these arrays of a `Measurement` of any number of
    slices, with coils and matrix of the one that is given, and an int32 scalar, the seed of methods
    that draw samples. It gives a dict: "image" `[batch, y, x]` float32, "kspace"
    `[batch, coil, ky, kx]` complex64 and, of several posterior samples, "std" `[batch, y, x]`.
    """
    @jax.jit
    def reconstruct(kspace: Array, mask: Array, maps: Array, seed: Array) -> dict[str, Array]:
        result = method.reconstruct(params, jax.random.key(seed), Measurement(kspace, mask, maps))
        out = {"image": result.image, "kspace": result.kspace, "std": result.std}
        return {name: array for name, array in out.items() if array is not None}

    batch, = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in like[:3]]
    return export.export(reconstruct, platforms=PLATFORMS)(
        *shapes, jax.ShapeDtypeStruct((), jnp.int32))


def export_run(config: ConfigDict, workdir: str | Path, path: str | Path) -> None:
    """Write a trained run's reconstruction, for slices as those of its test data.

    The config may be the run's with other data. InputError for a run without that checkpoint, or
    steps that its weights cannot take; StorageError if the file cannot be written.
    """
    config = at_test_time(config, load_config(workdir))
    method = configuration.make_method(config)
    params, step = load_params(workdir, config, method)
    volumes = next(iter(configuration.make_dataset(config).test.values()))
    like = measure_volume(volumes[0], configuration.make_acquisition(config))[0].measurement
    like = jax.tree.map(lambda array: array[None], like)
    try:
        content = exported(method, params, like).serialize()
    except ImportError as error:
        raise InputError("flatjax export needs the package flatbuffers; install flatjax[export]"
                         ) from error
    write_atomically(Path(path), lambda temporary: temporary.write_bytes(content))
    coils, rows, columns = like.kspace.shape[1:]
    print(f"{path}: the reconstruction of step {step}, for slices of {coils} coils and "
          f"{rows} x {columns} samples; {len(content) / 2**20:.1f} MiB")
