"""U-Nets on complex images of any size: the networks of the methods, and their options."""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from flatjax.errors import check_at_least, check_choice
from flatjax.nets.unet import UNet

DTYPES = ("float32", "bfloat16")
_EPS = 1e-6  # keeps a deviation of 0, and its gradient, harmless; images have a maximum near 1


class ImageUNet(nn.Module):
    """U-Net from complex images of any size to one; attributes as in `UNet`, and norm.

    Images are padded with zeros to a multiple of `2 ** pools`. With the norm

    - "own", each channel of each sample is brought to zero mean and unit standard deviation, and
      the result scaled back by the deviation of the first image's channels. The mean is not added
      back: what is predicted is a velocity or correction.
    - "none", images stay as they are, for noise of a known scale: the deviations of their own would
      lose the difference of two images.
    - "fastmri", it is fastMRI's NormUnet (E2E-VarNet) to the letter: no time, last layer not zero,
      unbiased deviation without eps, multiples of 16, and the mean added back. A channel that is
      constant, as in an empty slice or a real image, gives NaN in the original; here its deviation
      counts as 0, so that it comes out as it is.
    """

    channels: int = 18
    pools: int = 4
    time_channels: int = 32
    zero_init: bool = True
    dtype: DTypeLike = jnp.float32
    norm: str = "own"

    @nn.compact
    def __call__(self, *images: Array, t: Array | None = None,
                 noise: Array | None = None) -> Array:
        """Map images `[batch, y, x]` complex64, times and noise `[batch]` to one like them."""
        x = jnp.stack([part(image) for image in images for part in (jnp.real, jnp.imag)], axis=-1)
        height, width = x.shape[1:3]
        fastmri = self.norm == "fastmri"
        margins = [-n % (16 if fastmri else 2**self.pools) for n in (height, width)]
        top, left = (0, 0) if self.norm == "none" else (n // 2 for n in margins)
        net = UNet(channels=self.channels, pools=self.pools, dtype=self.dtype,
                   time_channels=0 if fastmri else self.time_channels,
                   zero_init=self.zero_init and not fastmri, name="unet")

        def framed(x: Array) -> Array:
            x = net(jnp.pad(x, ((0, 0), (top, margins[0] - top), (left, margins[1] - left),
                                (0, 0))), t, noise)
            return x[:, top:top + height, left:left + width]

        if self.norm == "none":
            x = framed(x)
        else:
            mean = x.mean(axis=(1, 2), keepdims=True)
            variance = x.var(axis=(1, 2), keepdims=True, ddof=int(fastmri))
            constant = ~(variance > 0) & fastmri  # also where there is one pixel
            std = jnp.sqrt(jnp.where(constant, 1.0, variance if fastmri else variance + _EPS**2))
            x = framed((x - mean) / std) * jnp.where(constant, 0.0, std)[..., :2]
            x = x + mean[..., :2] if fastmri else x
        return x[..., 0] + 1j * x[..., 1]


def _checked(channels: int, pools: int, dtype: str, time_channels: int = 0) -> dict[str, Any]:
    """Attributes that all networks have, once they make sense."""
    check_at_least(1, channels=channels)
    check_at_least(0, pools=pools)
    check_choice("dtype", dtype, DTYPES)
    if time_channels:
        check_at_least(2, time_channels=time_channels)  # sines and cosines
    return {"channels": channels, "pools": pools, "dtype": dtype, "time_channels": time_channels}


def unet(*, channels: int = 18, pools: int = 4, time_channels: int = 32, zero_init: bool = True,
         dtype: str = "float32") -> ImageUNet:
    """The U-Net of a flow, which is told the time. InputError for a value out of range.

    Args:
        channels: of the first level; each pooling doubles them.
        pools: number of poolings.
        time_channels: width of the embedding of the time, or 0 for a network without.
        zero_init: start with a network that gives zero, or with a random last layer.
        dtype: of the computation, "float32" or "bfloat16".
    """
    return ImageUNet(**_checked(channels, pools, dtype, time_channels), zero_init=zero_init)


def plain_unet(*, channels: int = 18, pools: int = 4, dtype: str = "float32") -> ImageUNet:
    """The same U-Net without time, which starts by giving zero; options as in `unet`."""
    return ImageUNet(**_checked(channels, pools, dtype))


def fastmri_unet(*, channels: int = 18, pools: int = 4, dtype: str = "float32") -> ImageUNet:
    """The NormUnet of fastMRI to the letter, which starts at random; options as in `unet`."""
    return ImageUNet(**_checked(channels, pools, dtype), norm="fastmri")


def image_unet(*, channels: int = 18, pools: int = 4, time_channels: int = 32,
               dtype: str = "float32") -> ImageUNet:
    """The U-Net of the generative methods, which is always told the time; options as in `unet`."""
    check_at_least(2, time_channels=time_channels)
    return ImageUNet(**_checked(channels, pools, dtype, time_channels), norm="none")
