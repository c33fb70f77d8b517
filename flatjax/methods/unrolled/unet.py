"""U-Net: one network that takes the aliasing out of the zero-filled image.

Ronneberger et al., MICCAI 2015 (arXiv 1505.04597), as Zbontar et al. use it for their baseline,
"fastMRI: An Open Dataset and Benchmarks for Accelerated MRI" (arXiv 1811.08839), but on the
complex image, and predicting the correction to it.
"""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn

from flatjax import losses
from flatjax.methods import common
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.mri import Measurement, expand, zero_filled
from flatjax.nets import plain_unet

_LOSS = losses.image()


def make(network: nn.Module, *, projection: bool = False, combine: str = "sense",
         loss: losses.Loss = _LOSS) -> Method:
    """A U-Net as a `Method`: `x = A^H y + net(A^H y)`, with `E x` as the k-space.

    Args:
        network: from an image to an image, as `nets.plain_unet`.
        projection: put the measured samples back into the result.
        combine: see `flat.make`.
        loss: from `losses.image`.
    """
    def rollout(params: Params, measured: Measurement, trajectory: bool | int) -> common.Rolled:
        image = zero_filled(measured)
        final = expand(image + common.apply_network(network, params["net"], image), measured.maps)
        if projection:
            final = common.project(final, measured)
        return final, jnp.stack([measured.kspace, final]) if trajectory else None, 1

    return common.end_supervised(partial(common.init_network, network), rollout, loss,
                                 combine=combine, steps=1)


SPEC = MethodSpec(make, parts={"network": partial(plain_unet, channels=32), "loss": losses.image},
                  test_time=("projection", "network.dtype", "loss"))
