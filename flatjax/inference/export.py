"""A trained reconstruction as one file that needs JAX alone."""

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


def exported(method: Method, params: Params, like: Measurement,
             platforms: tuple[str, ...] = PLATFORMS) -> export.Exported:
    """The reconstruction with its weights as one program, for any number of slices.

    Args:
        method: whose `reconstruct` it is.
        params: its weights.
        like: a measurement of the coils and matrix that it is for; the batch does not matter.
        platforms: that it can run on.

    Returns:
        a program whose `call(kspace, mask, maps, seed)` takes these arrays of a `Measurement`
        and an int32 scalar, the seed of methods that draw samples, and gives a dict:
        "image" `[batch, y, x]` float32, "kspace" `[batch, coil, ky, kx]` complex64 and, of
        several posterior samples, "std" `[batch, y, x]` float32.
    """
    @jax.jit
    def reconstruct(kspace: Array, mask: Array, maps: Array, seed: Array) -> dict[str, Array]:
        result = method.reconstruct(params, jax.random.key(seed), Measurement(kspace, mask, maps))
        out = {"image": result.image, "kspace": result.kspace, "std": result.std}
        return {name: array for name, array in out.items() if array is not None}

    batch, = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in like[:3]]
    return export.export(reconstruct, platforms=platforms)(
        *shapes, jax.ShapeDtypeStruct((), jnp.int32))


def export_run(config: ConfigDict, workdir: str | Path, path: str | Path) -> None:
    """Write a trained run's reconstruction, for slices as those of its test data.

    Args:
        config: of the run, from `runs.workdir.load_config`, perhaps with other data.
        workdir: of the run.
        path: of the file.

    Raises:
        InputError: for a run without that checkpoint, steps that its weights cannot take, or a
            file that cannot be written.
    """
    config = at_test_time(config, load_config(workdir))
    method = configuration.make_method(config)
    params, step = load_params(workdir, config, method)
    volumes = next(iter(configuration.make_dataset(config).test.values()))
    like = measure_volume(volumes[0], configuration.make_acquisition(config))[0].measurement
    like = jax.tree.map(lambda array: array[None], like)
    program = exported(method, params, like)
    try:
        content = program.serialize()
    except ImportError as error:
        raise InputError("flatjax export needs the package flatbuffers; install flatjax[export]"
                         ) from error
    try:
        write_atomically(Path(path), lambda temporary: temporary.write_bytes(content))
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}; name a file in a folder "
                         "that you may write to") from error
    coils, rows, columns = like.kspace.shape[1:]
    print(f"{path}: the reconstruction of step {step}, for slices of {coils} coils and "
          f"{rows} x {columns} samples; {len(content) / 2**20:.1f} MiB")
