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


def _to_channels(images: tuple[Array, ...]) -> Array:
    """Complex images `[batch, y, x]` as real and imaginary channels `[batch, y, x, 2 images]`."""
    parts = [part for image in images for part in (jnp.real(image), jnp.imag(image))]
    return jnp.stack(parts, axis=-1)


def _framed(net: UNet, x: Array, rows: tuple[int, int], columns: tuple[int, int],
            *told: Array | None) -> Array:
    """The network on an image with margins of zeros, which are cut off again."""
    height, width = x.shape[1:3]
    x = net(jnp.pad(x, ((0, 0), rows, columns, (0, 0))), *told)
    return x[:, rows[0]:rows[0] + height, columns[0]:columns[0] + width]


class ImageUNet(nn.Module):
    """U-Net on complex images as they are, for noise of a known scale. Attributes as in `UNet`.

    `NormUNet` divides each by its own deviation, which would lose the difference of two images.
    """

    channels: int = 18
    pools: int = 4
    time_channels: int = 32
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, *images: Array, t: Array) -> Array:
        """Map complex images `[batch, y, x]` and times `[batch]` to `[batch, y, x]` complex64."""
        x = _to_channels(images)
        rows, columns = ((0, -n % 2**self.pools) for n in x.shape[1:3])
        net = UNet(channels=self.channels, pools=self.pools, time_channels=self.time_channels,
                   dtype=self.dtype, name="unet")
        x = _framed(net, x, rows, columns, t)
        return x[..., 0] + 1j * x[..., 1]


class NormUNet(ImageUNet):
    """U-Net between per-sample normalization and padding, from complex images to a complex image.

    Each channel of each sample is brought to zero mean and unit standard deviation, padded with
    zeros to a multiple of `2 ** pools`, and the result scaled back by the deviation of the first
    image's channels. The mean is not added back: what is predicted is a velocity or correction.

    With `parity` it is fastMRI's NormUnet (E2E-VarNet) to the letter: no time, last layer not zero,
    unbiased deviation without eps, multiples of 16, and the mean added back. A channel that is
    constant, as in an empty slice or a real image, gives NaN in the original; here its deviation
    counts as 0, so that it comes out as it is.
    """

    zero_init: bool = True
    parity: bool = False

    @nn.compact
    def __call__(self, *images: Array, t: Array | None = None,
                 noise: Array | None = None) -> Array:
        """Map complex images `[batch, y, x]`, times and noise `[batch]` to `[batch, y, x]`."""
        x = _to_channels(images)
        mean = x.mean(axis=(1, 2), keepdims=True)
        variance = x.var(axis=(1, 2), keepdims=True, ddof=int(self.parity))
        constant = ~(variance > 0) & self.parity  # also where there is one pixel
        std = jnp.sqrt(jnp.where(constant, 1.0, variance if self.parity else variance + _EPS**2))
        missing = [-n % (16 if self.parity else 2**self.pools) for n in x.shape[1:3]]
        rows, columns = ((n // 2, n - n // 2) for n in missing)
        net = UNet(channels=self.channels, pools=self.pools, dtype=self.dtype,
                   time_channels=0 if self.parity else self.time_channels,
                   zero_init=self.zero_init and not self.parity, name="unet")
        x = _framed(net, (x - mean) / std, rows, columns, t, noise)
        x = x * jnp.where(constant, 0.0, std)[..., :2]
        x = x + mean[..., :2] if self.parity else x
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
         dtype: str = "float32") -> NormUNet:
    """The U-Net of a flow, which is told the time. InputError for a value out of range.

    Args:
        channels: of the first level; each pooling doubles them.
        pools: number of poolings.
        time_channels: width of the embedding of the time, or 0 for a network without.
        zero_init: start with a network that gives zero, or with a random last layer.
        dtype: of the computation, "float32" or "bfloat16".
    """
    return NormUNet(**_checked(channels, pools, dtype, time_channels), zero_init=zero_init)


def plain_unet(*, channels: int = 18, pools: int = 4, dtype: str = "float32") -> NormUNet:
    """The same U-Net without time, which starts by giving zero; options as in `unet`."""
    return NormUNet(**_checked(channels, pools, dtype))


def fastmri_unet(*, channels: int = 18, pools: int = 4, dtype: str = "float32") -> NormUNet:
    """The NormUnet of fastMRI to the letter, which starts at random; options as in `unet`."""
    return NormUNet(**_checked(channels, pools, dtype), parity=True)


def image_unet(*, channels: int = 18, pools: int = 4, time_channels: int = 32,
               dtype: str = "float32") -> ImageUNet:
    """The U-Net of the generative methods, which is always told the time; options as in `unet`."""
    check_at_least(2, time_channels=time_channels)
    return ImageUNet(**_checked(channels, pools, dtype, time_channels))
