"""The contract between methods and everything that trains, evaluates or compares them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jax import Array

from flatjax.mri.forward import Batch

Params = Any
Options = Mapping[str, Any]  # a section of a config, parts being sections of it
Part = Callable[..., Any] | Mapping[str, Callable[..., Any]]


class Reconstruction(NamedTuple):
    """What a method returns, in the unit of the measurement.

    Attributes:
        image: magnitude `[batch, y, x]` float32, coils combined as the target's are.
        kspace: `[batch, coil, ky, kx]` complex64; `mri.reduce` gives the complex image.
        trajectory: the states asked for, `[saved, batch, coil, ky, kx]` complex64, from the start
            to the result; None unless asked for.
        times: flow times of the trajectory's states, `[saved]` float32; None for a method without.
        nfe: network evaluations spent on each slice: one number, or `[batch]` int32 where the data
            decide them, as with adaptive steps.
        std: standard deviation (n - 1) of the magnitude over posterior samples `[batch, y, x]`
            float32, an uncertainty map; None for fewer than two samples.
        steps: how many steps were taken to each state of the trajectory, `[saved]` integers of
            NumPy, known before anything runs; None without.
        maps: coil sensitivities that a method estimated itself, `[batch, coil, y, x]` complex64;
            None where it used those of the measurement.
    """

    image: Array
    kspace: Array
    trajectory: Array | None
    times: Array | np.ndarray | None
    nfe: int | Array
    std: Array | None = None
    steps: np.ndarray | None = None
    maps: Array | None = None


class Method(NamedTuple):
    """A reconstruction method as three pure functions.

    Attributes:
        init: `(rng, batch) -> params`.
        loss: `(params, rng, batch) -> (scalar, {name: scalar})`, the loss and its terms.
        reconstruct: `(params, rng, measurement, *, trajectory=False) -> Reconstruction`;
            `trajectory` is static under `jax.jit`: True to get every state, or a number to get
            at most so many, evenly spread from the first to the last.
        log_density: `(params, rng, measurement, kspace, *, probes=1) -> [batch]` float32, an
            estimate of `log p(kspace | measurement)` in nats, for a method whose results have a
            density that it can tell; None for others.
    """

    init: Callable[[Array, Batch], Params]
    loss: Callable[[Params, Array, Batch], tuple[Array, dict[str, Array]]]
    reconstruct: Callable[..., Reconstruction]
    log_density: Callable[..., Array] | None = None


class MethodSpec(NamedTuple):
    """A method as configs see it.

    Attributes:
        make: from parts and options to a `Method`, or an `InputError` for a value out of range.
            Its keyword arguments with defaults, other than parts, are options of the config.
        parts: by argument of `make`, the function that makes it, whose keyword arguments are a
            section of the config; or several functions by name, the first being the default,
            where the section says which by its `name`.
        test_time: options, dotted as "space.cg_iterations", or whole sections that may be others
            than those that the weights were trained with. All else belongs to the weights.
        shared_time: as `test_time`, unless the option `weights` is "per_cascade".
        left_open: `options -> {dotted name: value}`, what an option that is None stands for, and
            goes on to stand for at test time.
    """

    make: Callable[..., Method]
    parts: Mapping[str, Part] = {}
    test_time: tuple[str, ...] = ()
    shared_time: tuple[str, ...] = ()
    left_open: Callable[[Options], dict[str, Any]] = lambda options: {}

    def changeable(self, options: Options) -> tuple[str, ...]:
        """The options and sections that may change for weights that were trained with these."""
        fixed = options.get("weights") == "per_cascade"
        return self.test_time if fixed else self.test_time + self.shared_time
