"""Convolutions in channels-last layout whose gradients are fast inside `lax.scan`."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _correlate(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_LAYOUT)


@jax.custom_vjp
def conv2d(x: Array, kernel: Array) -> Array:
    """Cross-correlation of stride 1 with zero padding that keeps the size.

    XLA's own gradient of a convolution falls back to a slow loop on CPU inside `lax.scan`
    (github.com/jax-ml/jax/issues/12868). Here both gradients are written as plain forward
    convolutions on operands laid out for them, which every backend runs fast.

    Args:
        x: `[batch, y, x, in]`.
        kernel: `[height, width, in, out]`, odd height and width.

    Returns:
        `[batch, y, x, out]`.
    """
    return _correlate(x, kernel)


def _conv2d_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _correlate(x, kernel), (x, kernel)


def _conv2d_backward(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    x, kernel = saved
    flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    # The kernel's gradient correlates input and output gradient over batch and space: the input's
    # channels play the batch, the batch plays the channels, the gradient plays the kernel.
    images = lax.optimization_barrier(x.transpose(3, 1, 2, 0))
    kernels = lax.optimization_barrier(grad.transpose(1, 2, 0, 3))
    pads = [(size // 2, size // 2) for size in kernel.shape[:2]]
    dkernel = lax.conv_general_dilated(images, kernels, (1, 1), pads, dimension_numbers=_LAYOUT)
    return _correlate(grad, flipped), dkernel.transpose(1, 2, 0, 3)


conv2d.defvjp(_conv2d_forward, _conv2d_backward)


class Conv(nn.Module):
    """`conv2d` with a learned kernel and no bias: `[batch, y, x, in]` to `[batch, y, x, out]`."""

    features: int
    size: int = 3

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply it."""
        kernel = self.param("kernel", nn.initializers.he_normal(),
                            (self.size, self.size, x.shape[-1], self.features))
        return conv2d(x, kernel.astype(x.dtype))


class UpConv(nn.Module):
    """2x2 transposed convolution of stride 2: `[batch, y, x, in]` to `[batch, 2y, 2x, out]`.

    Its windows do not overlap, so it is a matrix product and a reshape.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Apply it."""
        kernel = self.param("kernel", nn.initializers.he_normal(in_axis=2),
                            (2, 2, x.shape[-1], self.features))
        batch, height, width, _ = x.shape
        blocks = jnp.einsum("nyxi,abio->nyaxbo", x, kernel.astype(x.dtype))
        return blocks.reshape(batch, 2 * height, 2 * width, self.features)


def average_pool(x: Array) -> Array:
    """Mean over 2x2 blocks: `[batch, 2y, 2x, c]` to `[batch, y, x, c]`."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
