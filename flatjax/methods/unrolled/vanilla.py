"""The vanilla unrolled network: cascades whose step sizes are learned without constraint.

    x <- x - eta_j A^H (A x - y) - lam_j net_j(x)

It is FLAT without its three changes (Qi et al., arXiv 2512.03020, Theorem 1): step sizes that
follow from timesteps, timesteps of a schedule, and states aligned with the path of a flow. The
first two can be undone one at a time, and the last is a term of the loss. With the solver "imex"
the data term is taken implicitly, `x <- (I + eta_j A^H A)^-1 (...)`, as in MoDL, here with step
sizes and networks of each cascade.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import ArrayLike

from flatjax import losses
from flatjax.errors import check_choice
from flatjax.flow import SPACES, Likelihood, StateSpace, schedule
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.methods.flat import IMEX, default_sigma, make as flat
from flatjax.nets import SENSITIVITIES, SensitivityNet, unet

_loss = partial(losses.flat, velocity=0.0)
_LOSS = _loss()


def make(network: nn.Module, space: StateSpace, *, steps: int = 12, learned: str = "both",
         solver: str = "euler", weights: str = "per_cascade", projection: bool = False,
         combine: str = "sense", sensitivities: SensitivityNet | None = None, remat: bool = False,
         loss: losses.Loss = _LOSS) -> Method:
    """The vanilla unrolled network as a `Method`.

    Args:
        network: from an image and the time to an image, as `nets.unet`.
        space: what the state is, see `flat.make`.
        steps: K, number of cascades.
        learned: step sizes eta, from `1 / (K sigma^2)`, and lam, from 1, "both"; "eta" alone, with
            the uniform timesteps `lam = 1/K`; or "timesteps" `lam_j`, from 1/K, with
            `eta_j = lam_j / sigma^2`. sigma is the default of FLAT with this solver: eta starts
            from 1 with "euler".
        solver: "euler", or "imex", whose step sizes are learned by their logarithms: they have to
            be positive.
        weights, projection, combine, sensitivities, remat, loss: see `flat.make`.
    """
    check_choice("learned", learned, ("both", "eta", "timesteps"))
    check_choice("solver", solver, ("euler", IMEX))
    times = schedule(steps=steps)
    delta, sigma = np.diff(times), default_sigma(solver, steps)

    def start(sigma: float, steps: int) -> Params:
        eta = jnp.full(steps, 1 / (steps * sigma**2), jnp.float32)
        first = {"both": {"eta": eta, "lam": jnp.ones(steps, jnp.float32)}, "eta": {"eta": eta},
                 "timesteps": {"lam": jnp.asarray(-delta)}}[learned]
        if solver == IMEX:
            return {f"log_{name}": jnp.log(value) for name, value in first.items()}
        return {"delta": -first["lam"]} if learned == "timesteps" else first

    def factors(params: Params, noise: Array | None) -> tuple[ArrayLike, ArrayLike]:
        if solver == IMEX:
            params = {name: jnp.exp(params[f"log_{name}"]) for name in ("eta", "lam")
                      if f"log_{name}" in params}
        lam = -params["delta"] if "delta" in params else params.get("lam", -delta)
        eta = params.get("eta", lam / sigma**2)
        return eta / -delta, lam / -delta

    return flat(
        network, times, space, solver=solver, likelihood=Likelihood(init=start, factors=factors),
        weights=weights, projection=projection, combine=combine, sensitivities=sensitivities,
        remat=remat, loss=loss)


SPEC = MethodSpec(
    make,
    parts={"network": unet, "space": SPACES, "sensitivities": SENSITIVITIES, "loss": _loss},
    test_time=("projection", "remat", "network.dtype", "space.cg_iterations", "loss"))
