"""Coil sensitivities by a network that is trained with the reconstruction.

The sensitivity model of E2E-VarNet: Sriram et al., "End-to-End Variational Networks for
Accelerated MRI Reconstruction", MICCAI 2020 (arXiv 2004.06688), sec. 2.3.
"""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flatjax.errors import check_at_least, check_choice
from flatjax.mri.coils import rss
from flatjax.nets.norm_unet import NormUNet


class SensitivityNet(nn.Module):
    """Maps from low-resolution coil images: one small U-Net, coil by coil.

    Every coil's image goes through the same network, fastMRI's `NormUnet`, as one element of a
    larger batch; the results are divided by their root sum of squares.

    Attributes:
        channels, pools: of the U-Net; at most 4 poolings.
    """

    channels: int = 8
    pools: int = 4

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Map images of the sampled center, `[batch, coil, y, x]` complex64, to maps like them.

        `sum_c |S_c|^2 == 1`; an empty coil gets the map 0, and an empty slice no other.
        """
        single = images.reshape(-1, *images.shape[-2:])
        # fastMRI's network divides by the deviation, so an empty coil would come out as NaN.
        empty = ~jnp.any(single, axis=(-2, -1), keepdims=True)
        harmless = (1 + 1j) * jnp.arange(single[0].size).reshape(single.shape[1:])
        refined = NormUNet(channels=self.channels, pools=self.pools, parity=True,
                           name="norm_unet")(jnp.where(empty, harmless, single))
        maps = jnp.where(empty, 0, refined).reshape(images.shape)
        norm = rss(maps)[:, None]
        return maps / jnp.where(norm > 0, norm, 1)


def learned_maps(*, channels: int = 8, pools: int = 4) -> SensitivityNet:
    """Maps by a network of their own, from the center of k-space, as in E2E-VarNet.

    Args:
        channels, pools: of the network.

    Raises:
        InputError: for a value out of range.
    """
    check_at_least(1, channels=channels)
    check_choice("pools", pools, range(5))
    return SensitivityNet(channels=channels, pools=pools)


def given_maps() -> None:
    """The maps that come with the measurement: no network is needed."""
    return None


SENSITIVITIES = {"given": given_maps, "learned": learned_maps}
