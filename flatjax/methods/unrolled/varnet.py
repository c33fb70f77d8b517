"""E2E-VarNet: a gradient-descent network with learned step sizes, supervised at its end.

Sriram et al., "End-to-End Variational Networks for Accelerated MRI Reconstruction", MICCAI 2020
(arXiv 2004.06688), with coil sensitivities given or learned. One cascade is

    k <- k - eta_j M (k - y) - E net_j(E^H k)

The paper adds the network's term; its code, and so this, subtracts it.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flatjax import losses
from flatjax.errors import check_choice
from flatjax.flow.scan import scan_steps
from flatjax.methods import common
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.mri import Batch, Measurement, expand, reduce
from flatjax.nets import SENSITIVITIES, SensitivityNet, fastmri_unet, plain_unet

_LOSS = losses.varnet()


def make(network: nn.Module, *, steps: int = 12, weights: str = "per_cascade",
         combine: str = "sense", sensitivities: SensitivityNet | None = None, remat: bool = False,
         loss: losses.Loss = _LOSS) -> Method:
    """E2E-VarNet as a `Method`.

    Its parameters are those of the networks and the step sizes `eta`, one per cascade, learned
    from 1. Slices are normalized as in FLAT, which changes nothing with `nets.fastmri_unet`: all
    that fastMRI's cascades do commutes with scaling.

    Args:
        network: from an image to an image: `nets.fastmri_unet`, or `nets.plain_unet`, which is
            FLAT's without time and whose last layer starts from zero.
        steps: number of cascades.
        weights: "per_cascade" networks, or one "shared" by all.
        combine, sensitivities, remat: see `flat.make`.
        loss: its own, from `losses.varnet`, or one from `losses.result`.
    """
    check_choice("weights", weights, common.WEIGHTS)
    shared = weights == "shared"

    def init(rng: Array, batch: Batch) -> Params:
        return common.init_network(network, rng, batch, None if shared else steps) | {
            "eta": jnp.ones(steps, jnp.float32)}

    def rollout(params: Params, measured: Measurement, trajectory: bool | int) -> common.Rolled:
        y, mask, maps, _ = measured

        def cascade(kspace: Array, x: tuple[Array, Params]) -> Array:
            eta, own = x
            refined = common.apply_network(network, params["net"] if shared else own,
                                           reduce(kspace, maps))
            return kspace - (eta * (mask * (kspace - y)) + expand(refined, maps))

        final, states = scan_steps(cascade, y, (params["eta"], None if shared else params["net"]),
                                   trajectory=trajectory, remat=remat)
        return final, states, steps

    return common.with_sensitivities(
        common.end_supervised(init, rollout, loss, combine=combine, steps=steps), sensitivities)


SPEC = MethodSpec(
    make,
    parts={"network": {"fastmri": fastmri_unet, "plain": plain_unet},
           "sensitivities": SENSITIVITIES,
           "loss": {"own": losses.varnet, "flat": losses.result}},
    test_time=("remat", "network.dtype", "loss"))
