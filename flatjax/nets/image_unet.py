"""A U-Net on complex images of a known scale."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from flatjax.errors import check_at_least
from flatjax.nets.norm_unet import to_channels, to_complex
from flatjax.nets.unet import UNet, checked_dtype


class ImageUNet(nn.Module):
    """U-Net on complex images of any size, without normalization: for noise of a known scale.

    `NormUNet` divides each image by its own deviation and multiplies the result by that of the
    first. But noise is as large whatever the image, and the difference of two images is
    lost once each is divided by its own number; so here they go in and come out as they are.

    Attributes:
        channels, pools, time_channels, dtype: as in `UNet`. The last layer starts from zero.
    """

    channels: int = 18
    pools: int = 4
    time_channels: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, *images: Array, t: Array) -> Array:
        """Map complex images `[batch, y, x]` and times `[batch]` to `[batch, y, x]` complex64."""
        x = jnp.concatenate([to_channels(image) for image in images], axis=-1)
        height, width = x.shape[1:3]
        rows, columns = (-n % 2**self.pools for n in (height, width))
        x = jnp.pad(x, ((0, 0), (0, rows), (0, columns), (0, 0)))
        x = UNet(channels=self.channels, pools=self.pools, time_channels=self.time_channels,
                 dtype=self.dtype, name="unet")(x, t)
        return to_complex(x[:, :height, :width])


def image_unet(*, channels: int = 18, pools: int = 4, time_channels: int = 32,
               dtype: str = "float32") -> ImageUNet:
    """The U-Net of the generative methods, which is told the time.

    Args:
        channels: of the first level; each pooling doubles them.
        pools: number of poolings.
        time_channels: width of the embedding of the time.
        dtype: of the computation, "float32" or "bfloat16".

    Raises:
        InputError: for a value out of range.
    """
    check_at_least(2, time_channels=time_channels)
    return ImageUNet(channels=channels, pools=pools, time_channels=time_channels,
                     dtype=checked_dtype(channels, pools, dtype))
