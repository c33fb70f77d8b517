"""MoDL: a shared network in turn with the exact solution of the data-consistency problem.

Aggarwal, Mani, Jacob, "MoDL: Model-Based Deep Learning Architecture for Inverse Problems", IEEE
TMI 38(2), 2019 (arXiv 1712.02862). One step is

    D(x) = x + net(x),    x <- (A^H A + lam)^-1 (A^H y + lam D(x))

from `x = A^H y`, by conjugate gradients. The network is the U-Net of the other methods in place
of the paper's five convolutions.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax.flow.scan import scan_steps
from flatjax.flow.space import image_space
from flatjax.methods.base import Method, Params
from flatjax.methods.common import (
    DTYPES,
    apply_network,
    check_at_least,
    check_choice,
    end_supervised,
    init_network,
    with_sensitivities,
)
from flatjax.mri import COMBINES, Batch, Measurement, expand
from flatjax.nets.norm_unet import NormUNet

_FIRST_LAM = 0.05  # as in the authors' code; the eigenvalues of A^H A lie between 0 and 1


def make(*, steps: int = 10, cg_iterations: int = 10, combine: str = "sense",
         sensitivities: str = "given", sens_channels: int = 8, sens_pools: int = 4,
         channels: int = 18, pools: int = 4, dtype: str = "float32", remat: bool = False,
         w_ssim: float = 1.0, w_l1: float = 1.0, w_kspace: float = 1.0) -> Method:
    """MoDL as a `Method`; its k-space is `E x`.

    Its parameters are those of the network, which all steps share, and `log_lam`, so that lam
    stays positive. Gradients are those of exact solutions, and their memory does not depend on
    `cg_iterations`.

    Args:
        steps: of network and data consistency.
        cg_iterations: of each data-consistency problem, at most; started at `D(x)`.
        combine: how coils are combined for the image, "sense" or "rss".
        sensitivities: the coil maps "given" with the measurement, or "learned" by a network of
            their own from the centre of k-space, as in E2E-VarNet.
        sens_channels, sens_pools: of that network.
        channels, pools: of the U-Net.
        dtype: of the network's computation, "float32" or "bfloat16"; the physics is complex64.
        remat: recompute each step in the backward pass: memory hardly grows with `steps`.
        w_ssim, w_l1, w_kspace: weights of `1 - SSIM` and L1 on the magnitude image and L1 on the
            k-space, in place of the paper's mean squared error; 0 leaves a term out.

    Raises:
        InputError: for a value out of range.
    """
    check_choice("combine", combine, COMBINES)
    check_choice("dtype", dtype, DTYPES)
    check_at_least(1, steps=steps, cg_iterations=cg_iterations, channels=channels)
    check_at_least(0, pools=pools, w_ssim=w_ssim, w_l1=w_l1, w_kspace=w_kspace)
    net = NormUNet(channels=channels, pools=pools, time_channels=0, dtype=DTYPES[dtype])
    space = image_space(cg_iterations)

    def init(rng: Array, batch: Batch) -> Params:
        return {"net": init_network(net, rng, batch),
                "log_lam": jnp.asarray(np.log(_FIRST_LAM), jnp.float32)}

    def rollout(params: Params, measured: Measurement,
                trajectory: bool | int) -> tuple[Array, Array | None]:
        maps = measured.maps
        data = space.data_consistency(measured)
        weight = jnp.exp(-params["log_lam"])

        def step(image: Array, _: Array) -> Array:
            return data.proximal(image + apply_network(net, params["net"], image), weight)

        image, states = scan_steps(step, space.start(measured), jnp.arange(steps),
                                   trajectory=trajectory, record=lambda x: expand(x, maps),
                                   remat=remat)
        if states is None:
            return expand(image, maps), None
        return states[-1], states.at[0].set(measured.kspace)

    method = end_supervised(init, rollout, {"ssim": w_ssim, "l1": w_l1, "kspace": w_kspace},
                            combine=combine, steps=steps)
    return with_sensitivities(method, sensitivities, sens_channels, sens_pools)
