"""Convolutions in channels-last layout whose gradients are fast inside `lax.scan`."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

_LAYOUT = ("NHWC", "HWIO", "NHWC")

SAVED = "convolved"  # name of the convolutions' results, for policies of `jax.checkpoint`


def _correlate(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_LAYOUT)


@jax.custom_vjp
def conv2d(x: Array, kernel: Array) -> Array:
    """Cross-correlation of stride 1 with zero padding that keeps the size.

    XLA's own gradient of a convolution falls back to a slow loop on CPU inside `lax.scan`
    (github.com/jax-ml/jax/issues/12868), so there both gradients are written out; other
    backends keep theirs.

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
    return lax.platform_dependent(*saved, grad, cpu=_gradients_on_cpu, default=_gradients)


def _gradients(x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
    return jax.vjp(_correlate, x, kernel)[1](grad)


def _gradients_on_cpu(x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
    """Both gradients as what a CPU runs fast: a forward convolution and one matrix product.

    The kernel's gradient is a product over all pixels of the input, shifted along x, with the
    output's gradient, shifted along y: with few channels, one product of many columns runs
    several times faster than a convolution with kernels as large as the image.
    """
    rows, columns, features, out = kernel.shape
    height, width = x.shape[1:3]
    flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    x = jnp.pad(x, ((0, 0), (0, 0), (columns // 2,) * 2, (0, 0)))
    padded = jnp.pad(grad, ((0, 0), (rows // 2,) * 2, (0, 0), (0, 0)))
    inputs = jnp.concatenate([x[:, :, i:i + width] for i in range(columns)], axis=-1)
    outputs = jnp.concatenate([padded[:, i:i + height] for i in reversed(range(rows))], axis=-1)
    inputs, outputs = lax.optimization_barrier((inputs, outputs))
    # Reshaped first: a contraction over three axes would be laid out anew.
    product = jnp.dot(inputs.reshape(-1, columns * features).T, outputs.reshape(-1, rows * out),
                      preferred_element_type=jnp.float32).astype(kernel.dtype)
    dkernel = product.reshape(columns, features, rows, out).transpose(2, 0, 1, 3)
    return _correlate(grad, flipped), dkernel


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
        return checkpoint_name(conv2d(x, kernel.astype(x.dtype)), SAVED)


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
        return checkpoint_name(blocks.reshape(batch, 2 * height, 2 * width, self.features), SAVED)


def average_pool(x: Array) -> Array:
    """Mean over 2x2 blocks: `[batch, 2y, 2x, c]` to `[batch, y, x, c]`."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
