"""U-Net: one network that takes the aliasing out of the zero-filled image.

Ronneberger et al., MICCAI 2015 (arXiv 1505.04597), as Zbontar et al. use it for their baseline,
"fastMRI: An Open Dataset and Benchmarks for Accelerated MRI" (arXiv 1811.08839), but on the
complex image, and predicting the correction to it.
"""

import jax.numpy as jnp
from jax import Array

from flatjax.methods.base import Method, Params
from flatjax.methods.common import (
    DTYPES,
    apply_network,
    check_at_least,
    check_choice,
    end_supervised,
    init_network,
    project,
)
from flatjax.mri import COMBINES, Batch, Measurement, expand, zero_filled
from flatjax.nets.norm_unet import NormUNet


def make(*, projection: bool = False, combine: str = "sense", channels: int = 32, pools: int = 4,
         dtype: str = "float32", w_ssim: float = 1.0, w_l1: float = 1.0) -> Method:
    """A U-Net as a `Method`: `x = A^H y + net(A^H y)`, with `E x` as the k-space.

    Args:
        projection: put the measured samples back into the result.
        combine: how coils are combined for the image, "sense" or "rss".
        channels, pools: of the U-Net.
        dtype: of the network's computation, "float32" or "bfloat16"; the physics is complex64.
        w_ssim, w_l1: weights of `1 - SSIM` and L1 on the magnitude image; 0 leaves a term out.

    Raises:
        InputError: for a value out of range.
    """
    check_choice("combine", combine, COMBINES)
    check_choice("dtype", dtype, DTYPES)
    check_at_least(1, channels=channels)
    check_at_least(0, pools=pools, w_ssim=w_ssim, w_l1=w_l1)
    net = NormUNet(channels=channels, pools=pools, time_channels=0, dtype=DTYPES[dtype])

    def init(rng: Array, batch: Batch) -> Params:
        return {"net": init_network(net, rng, batch)}

    def rollout(params: Params, measured: Measurement,
                trajectory: bool | int) -> tuple[Array, Array | None]:
        image = zero_filled(measured)
        final = expand(image + apply_network(net, params["net"], image), measured.maps)
        if projection:
            final = project(final, measured)
        return final, jnp.stack([measured.kspace, final]) if trajectory else None

    return end_supervised(init, rollout, {"ssim": w_ssim, "l1": w_l1, "kspace": 0.0},
                          combine=combine, steps=1)
