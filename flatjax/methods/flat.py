"""FLAT: an unrolled network trained as the Euler discretization of a conditional flow.

Qi et al., "Unrolled Networks are Conditional Probability Flows in MRI Reconstruction"
(arXiv 2512.03020). One cascade is one step of

    dx/dt = A^H (A x - y) / sigma^2 + v(x, t)

from t = 1 (measured, zero-filled) to t = 0 (fully sampled). The paper's state is k-space, with the
mask for A, and its steps are explicit. With several coils the state is better an image, and the
data term is better taken implicitly: `image_space` and the solver "imex", our extension.
"""

import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from flatjax import losses
from flatjax.errors import InputError
from flatjax.flow import LIKELIHOODS, SOLVERS, SPACES, Likelihood, Schedule, StateSpace, schedule
from flatjax.flow.schedule import check_stable
from flatjax.flow.solve import ADAPTIVE, check_solver
from flatjax.methods.base import Method, MethodSpec, Options, Params
from flatjax.methods.flow_network import ENDPOINT, flow_network
from flatjax.nets import SENSITIVITIES, SensitivityNet, unet

IMEX = "imex"
_IMEX_SIGMA = 0.1
_LIKELIHOOD, _LOSS = Likelihood(), losses.flat()


def default_sigma(solver: str, steps: int) -> float:
    """The sigma of a likelihood that leaves it open."""
    return _IMEX_SIGMA if solver == IMEX else steps**-0.5


def make(network: nn.Module, schedule: Schedule, space: StateSpace, *, solver: str = "euler",
         tolerance: float = 1e-3, likelihood: Likelihood = _LIKELIHOOD,
         parameterization: str = "velocity", weights: str = "per_cascade",
         projection: bool = False, combine: str = "sense",
         sensitivities: SensitivityNet | None = None, remat: bool = False,
         loss: losses.Loss = _LOSS) -> Method:
    """FLAT as a `Method`.

    Args:
        network: from an image and the time to an image, as `nets.unet`.
        schedule: the timesteps, one for each cascade, from `flow.schedule`.
        space: what the state is, multi-coil k-space, or one image for any number of coils:
            `flow.kspace_space` or `flow.image_space`.
        solver: name in `flow.SOLVERS`, of which "imex" takes the data term implicitly and is
            stable for any sigma; or "adaptive", for reconstruction alone and with shared
            weights, which takes as many steps as the tolerance asks for and interpolates its
            trajectory at the times.
        tolerance: of adaptive steps, relative and absolute, on the scale of an image with
            maximum 1.
        likelihood: its sigma, from `flow.fixed_sigma`, `learned_sigma` or `noise_sigma`; the last
            two belong to the solver "imex".
        parameterization: what the network predicts: the "velocity" `v = E net`, or the
            "endpoint" `E (E^H k + net)` of the path, with `v = (k - endpoint) / t`.
        weights: "per_cascade" networks, or one "shared" by all and told the time.
        projection: put the measured samples back into the result.
        combine: how coils are combined for the image, "sense" or "rss".
        sensitivities: a network that estimates the coil maps, from `nets.learned_maps`; None for
            those given with the measurement.
        remat: recompute each cascade in the backward pass: memory hardly grows with K.
        loss: from `losses.flat`.

    Raises:
        InputError: for a value out of range, or timesteps beyond the solver's stability.
    """
    check_solver(solver, tolerance=tolerance)
    adaptive = solver == ADAPTIVE
    if likelihood.precision is not None and solver != IMEX:
        raise InputError(f"sigma is learned with the solver {solver!r}, expected the solver "
                         "'imex': explicit steps are unstable where sigma becomes small")
    if adaptive and weights != "shared":
        raise InputError("solver is 'adaptive', expected a fixed one unless weights are shared: it "
                         "takes steps of its own, and what was learned one per step does not "
                         "belong to them")
    if parameterization == ENDPOINT and (adaptive or SOLVERS[solver].nodes[-1] == 1):
        raise InputError(f"solver {solver!r} evaluates the velocity at t = 0, where the endpoint "
                         "parameterization divides by t; use euler, midpoint, ralston, ab2, bs3, "
                         "imex or the velocity form")
    delta = schedule.delta
    sigma = default_sigma(solver, schedule.steps) if likelihood.sigma is None else likelihood.sigma
    check_stable(delta, sigma, np.inf if adaptive else SOLVERS[solver].stability)

    def factors(params: Params, noise: Array | None) -> tuple[ArrayLike, ArrayLike]:
        if adaptive:
            return 1 / sigma**2, 1.0
        if likelihood.precision is not None:
            return likelihood.precision(params, noise), np.ones_like(delta)
        eta = -delta / sigma**2  # as in Theorem 1, for the sake of its rounding
        return eta / -delta, np.ones_like(delta)

    return flow_network(
        network, schedule, space, factors, lambda: likelihood.init(sigma, schedule.steps),
        weights=weights, projection=projection, combine=combine, sensitivities=sensitivities,
        remat=remat, loss=loss, solver=solver, tolerance=tolerance,
        parameterization=parameterization, told=likelihood.noise)


def _open(options: Options) -> dict[str, float]:
    """The default sigma, a part of the flow and not of its discretization."""
    return {"likelihood.sigma": default_sigma(options["solver"], options["schedule"]["steps"])}


SPEC = MethodSpec(
    make,
    parts={"network": unet, "schedule": schedule, "space": SPACES, "likelihood": LIKELIHOODS,
           "sensitivities": SENSITIVITIES, "loss": losses.flat},
    test_time=("tolerance", "projection", "remat", "network.dtype", "space.cg_iterations",
               "likelihood.sigma", "likelihood.jitter", "likelihood.factor", "loss"),
    shared_time=("schedule", "solver"), left_open=_open)
