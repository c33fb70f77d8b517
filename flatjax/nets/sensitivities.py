"""Coil sensitivities by a network that is trained with the reconstruction, as in E2E-VarNet.

Sriram et al., MICCAI 2020 (arXiv 2004.06688), sec. 2.3.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flatjax.errors import check_at_least, check_choice
from flatjax.mri import rss
from flatjax.nets.image_unet import ImageUNet


class SensitivityNet(nn.Module):
    """Maps from low-resolution coil images: fastMRI's `NormUnet` on every coil by itself."""

    channels: int = 8
    pools: int = 4

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Map images of the sampled center, `[batch, coil, y, x]` complex64, to maps like them.

        `sum_c |S_c|^2 == 1`; an empty coil gets the map 0, and an empty slice no other.
        """
        net = ImageUNet(channels=self.channels, pools=self.pools, norm="fastmri", name="norm_unet")
        maps = net(images.reshape(-1, *images.shape[-2:])).reshape(images.shape)
        norm = rss(maps)[:, None]
        return maps / jnp.where(norm > 0, norm, 1)


def learned_maps(*, channels: int = 8, pools: int = 4) -> SensitivityNet:
    """Maps by a network of their own, from the center of k-space; at most 4 poolings."""
    check_at_least(1, channels=channels)
    check_choice("pools", pools, range(5))
    return SensitivityNet(channels=channels, pools=pools)


def given_maps() -> None:
    """The maps that come with the measurement: no network is needed."""


SENSITIVITIES = {"given": given_maps, "learned": learned_maps}
