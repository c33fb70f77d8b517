"""The U-Net of every learned method, in the manner of E2E-VarNet.

Sriram et al., MICCAI 2020 (arXiv 2004.06688); Ronneberger et al., MICCAI 2015 (arXiv 1505.04597).
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array
from jax.typing import DTypeLike

from flatjax.nets.conv import SAVED, Conv, UpConv, average_pool

_NORM_EPS = 1e-5  # torch's InstanceNorm2d default, which E2E-VarNet uses


def time_features(t: Array, features: int) -> Array:
    """Sines and cosines of times `[batch]` in [0, 1], of periods 4 to 1/16, `[batch, features]`."""
    frequencies = 2 * np.pi * np.geomspace(0.25, 16.0, features // 2, dtype=np.float32)
    angles = t[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def instance_norm(x: Array) -> Array:
    """Zero mean and unit variance of each channel of each sample over `[batch, y, x, c]`."""
    wide = x.astype(jnp.float32)
    mean = wide.mean(axis=(1, 2), keepdims=True)
    variance = jnp.square(wide - mean).mean(axis=(1, 2), keepdims=True)
    return ((wide - mean) * (variance + _NORM_EPS) ** -0.5).astype(x.dtype)


class Activate(nn.Module):
    """Instance norm, scale and shift by the time embedding if there is one, leaky ReLU."""

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None) -> Array:
        """Map `[batch, y, x, c]`, with the embedding `[batch, time_channels]` or None."""
        x = instance_norm(x)
        if embedding is not None:
            film = nn.Dense(2 * x.shape[-1], kernel_init=nn.initializers.zeros)(embedding)
            scale, shift = jnp.split(film[:, None, None, :].astype(x.dtype), 2, axis=-1)
            x = x * (1 + scale) + shift
        return nn.leaky_relu(x, 0.2)


class Block(nn.Module):
    """Two 3x3 convolutions, each followed by norm and activation."""

    features: int

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None) -> Array:
        """Map `[batch, y, x, in]` and the embedding to `[batch, y, x, features]`."""
        for _ in range(2):
            x = Activate()(Conv(self.features)(x), embedding)
        return x


class UNet(nn.Module):
    """Encoder and decoder with skip connections, to two channels; it may be told time and noise.

    For its gradient only the convolutions' results are kept: all else is cheaper to compute again.

    Attributes:
        channels: of the first level; each pooling doubles them.
        pools: number of poolings; the input's sides must be multiples of `2 ** pools`.
        time_channels: width of the embedding of time and noise, or 0 for a network without.
        zero_init: start with a last layer of zeros, so that the untrained result is zero.
        dtype: of the computation. Weights and normalization stay float32.
    """

    channels: int = 18
    pools: int = 4
    time_channels: int = 32
    zero_init: bool = True
    dtype: DTypeLike = jnp.float32

    @partial(nn.remat, prevent_cse=False,
             policy=jax.checkpoint_policies.save_only_these_names(SAVED))
    @nn.compact
    def __call__(self, x: Array, t: Array | None = None, noise: Array | None = None) -> Array:
        """Map `[batch, y, x, in]`, times and noise levels `[batch]` to `[batch, y, x, 2]`."""
        embedding = None
        if self.time_channels:
            if t is None:
                raise TypeError("t is None, expected times with time_channels above 0")
            told = [t]
            if noise is not None:  # from 1e-4 to 1 of the image's maximum, by decades in [0, 1]
                told.append(1 + jnp.log10(jnp.clip(noise, 1e-4, 1.0)) / 4)
            features = jnp.concatenate([time_features(one, self.time_channels) for one in told], -1)
            embedding = nn.silu(nn.Dense(self.time_channels, name="time")(features))
        x = x.astype(self.dtype)
        skips = []
        for level in range(self.pools):
            x = Block(self.channels << level, name=f"down_{level}")(x, embedding)
            skips.append(x)
            x = average_pool(x)
        x = Block(self.channels << self.pools, name="bottom")(x, embedding)
        for level in reversed(range(self.pools)):
            x = UpConv(self.channels << level, name=f"up_{level}")(x)
            x = Activate(name=f"up_{level}_activate")(x, embedding)
            x = jnp.concatenate([x, skips[level]], axis=-1)
            x = Block(self.channels << level, name=f"merge_{level}")(x, embedding)
        init = nn.initializers.zeros if self.zero_init else nn.initializers.lecun_normal()
        return nn.Dense(2, kernel_init=init, name="last")(x.astype(jnp.float32))
