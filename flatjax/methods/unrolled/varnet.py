"""E2E-VarNet: a gradient-descent network with learned step sizes, supervised at its end.

Sriram et al., "End-to-End Variational Networks for Accelerated MRI Reconstruction", MICCAI 2020
(arXiv 2004.06688), with coil sensitivities given or learned. One cascade is

    k <- k - eta_j M (k - y) - E net_j(E^H k)

The paper adds the network's term; its code, and so this, subtracts it.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax.flow.solvers import SOLVERS, integrate
from flatjax.methods.base import Method, Params
from flatjax.methods.common import (
    DTYPES,
    WEIGHTS,
    apply_network,
    check_at_least,
    check_choice,
    end_supervised,
    init_network,
    with_sensitivities,
)
from flatjax.mri import COMBINES, Batch, Measurement, expand, reduce
from flatjax.nets.norm_unet import NormUNet

LOSSES = ("own", "flat")


def make(*, steps: int = 12, weights: str = "per_cascade", parity: bool = True,
         combine: str = "sense", sensitivities: str = "given", sens_channels: int = 8,
         sens_pools: int = 4, channels: int = 18, pools: int = 4, dtype: str = "float32",
         remat: bool = False, loss: str = "own", w_ssim: float = 1.0, w_l1: float = 1.0,
         w_kspace: float = 1.0) -> Method:
    """E2E-VarNet as a `Method`.

    Its parameters are those of the networks and the step sizes `eta`, one per cascade, learned
    from 1. Slices are normalised as in FLAT, which changes nothing with `parity`: all that
    fastMRI's cascades do commutes with scaling.

    Args:
        steps: number of cascades.
        weights: "per_cascade" networks, or one "shared" by all.
        parity: with fastMRI's network to the letter, or else FLAT's without time, whose last
            layer starts from zero.
        combine: how coils are combined for the image, "sense" or "rss".
        sensitivities: the coil maps "given" with the measurement, or "learned" by a network of
            their own from the centre of k-space, as in E2E-VarNet.
        sens_channels, sens_pools: of that network.
        channels, pools: of the U-Net.
        dtype: of the network's computation, "float32" or "bfloat16"; the physics is complex64.
        remat: recompute each cascade in the backward pass: memory hardly grows with `steps`.
        loss: its "own", `1 - SSIM` of the magnitude image, or the terms of "flat" that concern
            the result.
        w_ssim, w_l1, w_kspace: weights of the terms of loss "flat": `1 - SSIM` and L1 on the
            magnitude image and L1 on the k-space; 0 leaves a term out.

    Raises:
        InputError: for a value out of range.
    """
    check_choice("weights", weights, WEIGHTS)
    check_choice("combine", combine, COMBINES)
    check_choice("dtype", dtype, DTYPES)
    check_choice("loss", loss, LOSSES)
    check_at_least(1, steps=steps, channels=channels)
    check_at_least(0, pools=pools, w_ssim=w_ssim, w_l1=w_l1, w_kspace=w_kspace)
    net = NormUNet(channels=channels, pools=pools, time_channels=0, dtype=DTYPES[dtype],
                   parity=parity)
    shared = weights == "shared"
    composite = {"ssim": w_ssim, "l1": w_l1, "kspace": w_kspace}
    loss_weights = composite if loss == "flat" else {"ssim": 1.0, "l1": 0.0, "kspace": 0.0}

    def init(rng: Array, batch: Batch) -> Params:
        return {"net": init_network(net, rng, batch, None if shared else steps),
                "eta": jnp.ones(steps)}

    def rollout(params: Params, measured: Measurement,
                trajectory: bool | int) -> tuple[Array, Array | None]:
        def field(kspace: Array, t: Array, cascade: tuple[Array, Params]) -> Array:
            eta, own = cascade
            residual = measured.mask * (kspace - measured.kspace)
            refined = apply_network(net, params["net"] if shared else own,
                                    reduce(kspace, measured.maps))
            return eta * residual + expand(refined, measured.maps)

        # Steps of length -1: the cascade subtracts the field as it is.
        return integrate(field, measured.kspace, -np.arange(steps + 1.0, dtype=np.float32),
                         solver=SOLVERS["euler"],
                         args=(params["eta"], None if shared else params["net"]),
                         trajectory=trajectory, remat=remat)

    method = end_supervised(init, rollout, loss_weights, combine=combine, steps=steps)
    return with_sensitivities(method, sensitivities, sens_channels, sens_pools)
