"""The contract between methods and everything that trains, evaluates or compares them."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array

from flatjax.mri.forward import Batch

Params = Any


class Reconstruction(NamedTuple):
    """What a method returns, in the unit of the measurement.

    Attributes:
        image: magnitude `[batch, y, x]` float32, coils combined as the target's are.
        kspace: `[batch, coil, ky, kx]` complex64; `mri.reduce` gives the complex image.
        trajectory: every state in order, `[steps + 1, batch, coil, ky, kx]` complex64, the
            first being the start; None unless asked for.
        times: the flow times of the trajectory's states, `[steps + 1]` float32, where the
            method has such a time; None otherwise.
        nfe: network evaluations spent on each slice.
        std: standard deviation of the magnitude over posterior samples `[batch, y, x]` float32,
            an uncertainty map; None for a method or config that draws fewer than two.
    """

    image: Array
    kspace: Array
    trajectory: Array | None
    times: Array | None
    nfe: int
    std: Array | None = None


class Method(NamedTuple):
    """A reconstruction method as three pure functions.

    Attributes:
        init: `(rng, batch) -> params`.
        loss: `(params, rng, batch) -> (scalar, {name: scalar})`, the loss and its terms.
        reconstruct: `(params, rng, measurement, *, trajectory=False) -> Reconstruction`;
            `trajectory` is static under `jax.jit`.
    """

    init: Callable[[Array, Batch], Params]
    loss: Callable[[Params, Array, Batch], tuple[Array, dict[str, Array]]]
    reconstruct: Callable[..., Reconstruction]
