"""Whether a method keeps to the contract of `base`: told before it trains, in one line."""

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax.errors import InputError
from flatjax.methods.base import Method, Reconstruction
from flatjax.mri import Batch, Measurement

_CONTRACT = {"init": "(rng, batch) -> params",
             "loss": "(params, rng, batch) -> (scalar, {name: scalar})",
             "reconstruct": "(params, rng, measurement, *, trajectory=False) -> Reconstruction"}


def check_method(method: Method, batch: Batch) -> None:
    """Trace the functions of a method on two slices of the batch's shapes; nothing is computed.

    Raises:
        InputError: with what was found and expected, for a function that fails or gives something
            else than `Method` and `Reconstruction` say.
    """
    if not isinstance(method, Method):
        raise InputError(f"make returns an object of type {type(method).__name__}, expected a "
                         "Method")
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape[1:]), x.dtype), batch)

    def trace(name: str, check: Callable[..., Any], *args: Any, **options: Any) -> Any:
        def checked(*args: Any) -> Any:
            found = getattr(method, name)(*args, **options)
            check(found, *args, **options)
            return found

        with tracing(method, name):
            return jax.eval_shape(checked, *args)

    key = jax.random.key(0)
    params = trace("init", _check_params, key, batch)
    trace("loss", _check_loss, params, key, batch)
    for trajectory in (False, 2):
        trace("reconstruct", _check_result, params, key, batch.measurement, trajectory=trajectory)


@contextmanager
def tracing(method: Method, name: str) -> Iterator[None]:
    """Within it a failure of the method's function `name` becomes an `InputError` with its line."""
    try:
        yield
    except (InputError, jax.errors.JaxRuntimeError):  # of a device, as without memory
        raise
    except Exception as error:  # of any type: the method's own code runs
        files = {one.__code__.co_filename for one in method[:3] if hasattr(one, "__code__")}
        at = [f" at {Path(frame.filename).name}, line {frame.lineno}"
              for frame in traceback.extract_tb(error.__traceback__) if frame.filename in files]
        reason = (str(error).strip().splitlines() or [""])[0]
        raise InputError(f"the method's {name} fails{''.join(at[-1:])}: {type(error).__name__}: "
                         f"{reason}; expected a function that JAX can trace, `{_CONTRACT[name]}`"
                         ) from error


def _expect(holds: Any, what: str, found: Any, expected: str) -> None:
    if not holds:
        kind = "a JAX array, " * isinstance(found, Array)
        shown = (f"{kind}{found.dtype}{list(found.shape)}" if hasattr(found, "dtype")
                 else found if found is None else f"of type {type(found).__name__}")
        raise InputError(f"{what} is {shown}, expected {expected}")


def _check_params(params: Any, *_: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        _expect(jnp.issubdtype(jnp.result_type(leaf), jnp.floating),
                f"params{jax.tree_util.keystr(path)} of the method's init", leaf,
                "weights of a real floating-point type; keep constants in make")


def _check_loss(found: Any, *_: Any) -> None:
    pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)
    _expect(pair, "what the method's loss returns", found, f"`{_CONTRACT['loss']}`")
    for name, value in {"loss": found[0], **found[1]}.items():
        _expect(jnp.shape(value) == (), f"{name}, which the method's loss returns,", value,
                "one number, as the batch's mean")


def _check_result(found: Any, params: Any, rng: Array, measured: Measurement, *,
                  trajectory: int) -> None:
    def expect(holds: Any, name: str, expected: str) -> None:
        asked = f"(trajectory={trajectory})" if name in ("trajectory", "times", "steps") else ""
        _expect(holds, f"{name} of the method's reconstruct{asked}", getattr(found, name), expected)

    _expect(isinstance(found, Reconstruction), "what the method's reconstruct returns", found,
            "a Reconstruction")
    whole, image = measured.kspace.shape, measured.mask.shape[:1] + measured.kspace.shape[2:]
    saved = np.shape(found.trajectory)[:1]
    for name, shape, dtype, hint in (
            ("image", image, "float32", "from mri.combine(kspace, maps, combine), where make has "
             "the option combine"),
            ("kspace", whole, "complex64", "of all coils, as mri.expand(image, maps)"),
            ("std", image, "float32", "or None"), ("maps", whole, "complex64", "or None"),
            ("trajectory", saved + whole, "complex64", "the k-space of each state")):
        array = getattr(found, name)
        expect((array is None and name not in ("image", "kspace")) or (
            np.shape(array) == shape and jnp.result_type(array) == dtype), name,
            f"{dtype}{list(shape)}, {hint}")
    expect(np.shape(found.nfe) in ((), image[:1]), "nfe", "one number, or one for each slice")
    if not trajectory:
        expect(found.trajectory is None, "trajectory", "None unless it is asked for")
        return
    expect(found.trajectory is not None, "trajectory", "all states from the start on; without any "
           "between, jnp.stack([measurement.kspace, kspace]) and steps=np.arange(2)")
    expect(saved[0] <= trajectory, "trajectory", f"at most {trajectory} states, those of "
           "flow.scan.saved_indices(steps, trajectory)")
    expect(isinstance(found.steps, np.ndarray) and found.steps.shape == saved, "steps",
           f"{saved[0]} integers of NumPy, as flow.scan.saved_indices(steps, trajectory) gives")
    expect(found.times is None or np.shape(found.times) == saved, "times",
           f"{saved[0]} numbers, or None")
