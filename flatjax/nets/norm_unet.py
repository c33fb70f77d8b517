"""A U-Net on complex images of any size and intensity."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from flatjax.nets.unet import UNet, check_time_channels, checked_dtype

_EPS = 1e-6  # keeps a deviation of 0, and its gradient, harmless; images have a maximum near 1


def to_channels(image: Array) -> Array:
    """Complex `[batch, y, x]` to real and imaginary channels `[batch, y, x, 2]`."""
    return jnp.stack([jnp.real(image), jnp.imag(image)], axis=-1)


def to_complex(channels: Array) -> Array:
    """Channels `[batch, y, x, 2]` to complex `[batch, y, x]`."""
    return channels[..., 0] + 1j * channels[..., 1]


def _pads(size: int, multiple: int) -> tuple[int, int]:
    missing = -size % multiple
    return missing // 2, missing - missing // 2


class NormUNet(nn.Module):
    """U-Net between per-sample normalization and padding, from complex images to a complex image.

    Each channel of each sample is brought to zero mean and unit standard deviation, padded with
    zeros to a multiple of `2 ** pools`, and the result scaled back by the deviation of the first
    image's channels. The mean is not added back: what is predicted is a velocity or correction.

    Attributes:
        channels, pools, time_channels, zero_init, dtype: as in `UNet`.
        parity: be fastMRI's NormUnet (E2E-VarNet) to the letter: no time, last layer not zero,
            unbiased deviation without eps, multiples of 16, and the mean added back. A channel
            that is constant, as in an empty slice or a real image, gives NaN in the original; here
            its deviation counts as 0, so that it comes out as it is.
    """

    channels: int = 18
    pools: int = 4
    time_channels: int = 32
    zero_init: bool = True
    dtype: DTypeLike = jnp.float32
    parity: bool = False

    @nn.compact
    def __call__(self, *images: Array, t: Array | None = None,
                 noise: Array | None = None) -> Array:
        """Map complex images `[batch, y, x]`, times and noise `[batch]` to `[batch, y, x]`."""
        x = jnp.concatenate([to_channels(image) for image in images], axis=-1)
        height, width = x.shape[1:3]
        mean = x.mean(axis=(1, 2), keepdims=True)
        variance = x.var(axis=(1, 2), keepdims=True, ddof=int(self.parity))
        constant = ~(variance > 0) & self.parity  # also where there is one pixel
        std = jnp.sqrt(jnp.where(constant, 1.0, variance if self.parity else variance + _EPS**2))
        multiple = 16 if self.parity else 2**self.pools
        rows, columns = _pads(height, multiple), _pads(width, multiple)
        x = jnp.pad((x - mean) / std, ((0, 0), rows, columns, (0, 0)))
        x = UNet(channels=self.channels, pools=self.pools, dtype=self.dtype,
                 time_channels=0 if self.parity else self.time_channels,
                 zero_init=self.zero_init and not self.parity, name="unet")(x, t, noise)
        x = x[:, rows[0]:rows[0] + height, columns[0]:columns[0] + width]
        x = x * jnp.where(constant, 0.0, std)[..., :2]
        return to_complex(x + mean[..., :2] if self.parity else x)


def unet(*, channels: int = 18, pools: int = 4, time_channels: int = 32, zero_init: bool = True,
         dtype: str = "float32") -> NormUNet:
    """The U-Net of a flow, which is told the time.

    Args:
        channels: of the first level; each pooling doubles them.
        pools: number of poolings.
        time_channels: width of the embedding of the time, or 0 for a network without.
        zero_init: start with a network that gives zero, or with a random last layer.
        dtype: of the computation, "float32" or "bfloat16".

    Raises:
        InputError: for a value out of range.
    """
    check_time_channels(time_channels)
    return NormUNet(channels=channels, pools=pools, time_channels=time_channels,
                    zero_init=zero_init, dtype=checked_dtype(channels, pools, dtype))


def plain_unet(*, channels: int = 18, pools: int = 4, dtype: str = "float32") -> NormUNet:
    """The same U-Net without time, which starts by giving zero.

    Args:
        channels, pools, dtype: as in `unet`.

    Raises:
        InputError: for a value out of range.
    """
    return NormUNet(channels=channels, pools=pools, time_channels=0,
                    dtype=checked_dtype(channels, pools, dtype))


def fastmri_unet(*, channels: int = 18, pools: int = 4, dtype: str = "float32") -> NormUNet:
    """The NormUnet of fastMRI to the letter, which starts at random.

    Args:
        channels, pools, dtype: as in `unet`.

    Raises:
        InputError: for a value out of range.
    """
    return NormUNet(channels=channels, pools=pools, time_channels=0, parity=True,
                    dtype=checked_dtype(channels, pools, dtype))
