"""MoDL: a shared network in turn with the exact solution of the data-consistency problem.

Aggarwal, Mani, Jacob, "MoDL: Model-Based Deep Learning Architecture for Inverse Problems", IEEE
TMI 38(2), 2019 (arXiv 1712.02862). One step is

    D(x) = x + net(x),    x <- (A^H A + lam)^-1 (A^H y + lam D(x))

from `x = A^H y`, by conjugate gradients. The network is the U-Net of the other methods in place
of the paper's five convolutions.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flatjax import losses
from flatjax.errors import InputError
from flatjax.flow import StateSpace, image_space
from flatjax.flow.scan import scan_steps
from flatjax.methods import common
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.mri import Batch, Measurement, expand
from flatjax.nets import SENSITIVITIES, SensitivityNet, plain_unet

_LOSS = losses.result()
_FIRST_LAM = 0.05  # as in the authors' code; the eigenvalues of A^H A lie between 0 and 1


def make(network: nn.Module, space: StateSpace, *, steps: int = 10, combine: str = "sense",
         sensitivities: SensitivityNet | None = None, remat: bool = False,
         loss: losses.Loss = _LOSS) -> Method:
    """MoDL as a `Method`; its k-space is `E x`.

    Its parameters are those of the network, which all steps share, and `log_lam`, so that lam
    stays positive. Gradients are those of exact solutions, and their memory does not depend on
    the iterations.

    Args:
        network: from an image to an image, as `nets.plain_unet`.
        space: of images, `flow.image_space`, which says by how many iterations at most each
            data-consistency problem is solved; these start at `D(x)`.
        steps: of network and data consistency.
        combine, sensitivities, remat: see `flat.make`.
        loss: from `losses.result`, in place of the paper's mean squared error.
    """
    if space.multicoil:
        raise InputError("space is that of k-space, expected flow.image_space: the network of MoDL "
                         "sees the state itself")

    def init(rng: Array, batch: Batch) -> Params:
        lam = {"log_lam": jnp.asarray(np.log(_FIRST_LAM), jnp.float32)}
        return common.init_network(network, rng, batch) | lam

    def rollout(params: Params, measured: Measurement, trajectory: bool | int) -> common.Rolled:
        maps = measured.maps
        data = space.data_consistency(measured)
        weight = jnp.exp(-params["log_lam"])

        def step(image: Array, _: Array) -> Array:
            denoised = image + common.apply_network(network, params["net"], image)
            return data.proximal(denoised, weight)

        image, states = scan_steps(step, space.state(measured.kspace, maps), jnp.arange(steps),
                                   trajectory=trajectory, record=lambda x: expand(x, maps),
                                   remat=remat)
        states = None if states is None else states.at[0].set(measured.kspace)
        return expand(image, maps), states, steps

    return common.with_sensitivities(
        common.end_supervised(init, rollout, loss, combine=combine, steps=steps), sensitivities)


SPEC = MethodSpec(
    make,
    parts={"network": plain_unet, "space": partial(image_space, cg_iterations=10),
           "sensitivities": SENSITIVITIES, "loss": losses.result},
    test_time=("steps", "remat", "network.dtype", "space.cg_iterations", "loss"))
