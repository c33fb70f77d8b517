"""CG-SENSE: the smallest image that fits the measurement of all coils.

    min_x ||A x - y||^2 + lam ||x||^2

Pruessmann et al., "Advances in sensitivity encoding with arbitrary k-space trajectories", MRM
46(4), 2001, on Cartesian samples, by conjugate gradients from 0. It has no network. A single coil
leaves nothing to solve for: the result is the zero-filled image, a little weaker.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax import losses
from flatjax.errors import check_above
from flatjax.flow import image_space
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.methods.common import Rolled, end_supervised
from flatjax.mri import Batch, Measurement, expand

_LOSS = losses.image()


def make(*, cg_iterations: int = 20, lam: float = 0.01, combine: str = "sense",
         loss: losses.Loss = _LOSS) -> Method:
    """CG-SENSE as a `Method`; its k-space is `E x`.

    Its one parameter is `log_lam`: training looks for the regularization that gives the best
    images, which takes few steps and may be left out.

    Args:
        cg_iterations: of conjugate gradients, at least 1.
        lam: regularization to start from, above 0; the eigenvalues of `A^H A` are at most 1.
        combine, loss: see `unet.make`.
    """
    check_above(0, lam=lam)
    space = image_space(cg_iterations=cg_iterations)

    def init(rng: Array, batch: Batch) -> Params:
        return {"log_lam": jnp.asarray(np.log(lam), jnp.float32)}

    def rollout(params: Params, measured: Measurement, trajectory: bool | int) -> Rolled:
        start = space.state(measured.kspace, measured.maps)
        solve = space.data_consistency(measured).proximal
        kspace = expand(solve(0 * start, jnp.exp(-params["log_lam"])), measured.maps)
        return kspace, jnp.stack([measured.kspace, kspace]) if trajectory else None, 0

    return end_supervised(init, rollout, loss, combine=combine, steps=1)


SPEC = MethodSpec(make, parts={"loss": losses.image}, test_time=("cg_iterations", "lam", "loss"))
