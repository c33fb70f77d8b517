"""Convolutions in channels-last layout whose gradients are fast inside `lax.scan`."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

_LAYOUT = ("NHWC", "HWIO", "NHWC")

SAVED = "convolved"  # name of the convolutions' results, for policies of `jax.checkpoint`
# Limits of the rules below, from one core of an AMD EPYC (Zen 3) with AVX2.
_WIDE_OUT, _WIDE_KERNEL = 36, 288
_CACHED_BYTES, _CHUNK_BYTES = 20 << 20, 1 << 20


def _correlate(x: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=_LAYOUT)


@jax.custom_vjp
def conv2d(x: Array, kernel: Array) -> Array:
    """Cross-correlation of `[batch, y, x, in]`, of stride 1, zero-padded to keep the size.

    The kernel is `[height, width, in, out]`, height and width odd. On a CPU XLA's own gradient
    falls back to a slow loop inside `lax.scan` (github.com/jax-ml/jax/issues/12868), so both
    gradients are written out. Other backends keep XLA's own operators.
    """
    return lax.platform_dependent(x, kernel, cpu=_correlate_on_cpu, default=_correlate)


def _gradients(saved: tuple[Array, Array], grad: Array) -> tuple[Array, Array]:
    return lax.platform_dependent(
        *saved, grad, cpu=_gradients_on_cpu,
        default=lambda x, kernel, grad: jax.vjp(_correlate, x, kernel)[1](grad))


def _gradients_on_cpu(x: Array, kernel: Array, grad: Array) -> tuple[Array, Array]:
    """Both gradients as what a CPU runs fast: a forward convolution and matrix products."""
    flipped = lax.optimization_barrier(jnp.flip(kernel, (0, 1)).swapaxes(2, 3))
    return _correlate_on_cpu(grad, flipped), _kernel_gradient(x, kernel, grad)


def _correlate_on_cpu(x: Array, kernel: Array) -> Array:
    """The correlation, with 4 or 2 neighbors along x as further output channels if that is faster.

    It is a matrix product with as many columns as output channels; with few a CPU mostly waits for
    the pixels. A block of pixels has a stride of its length and a kernel wider by as much, partly
    zero: 18 -> 30 GFLOP/s for 8 to 8 channels. The zeros cost more where the product is large.
    """
    rows, columns, features, out = kernel.shape
    batch, height, width, _ = x.shape
    block = next((n for n in (4, 2) if width % n == 0 and n * out <= _WIDE_OUT
                  and n * out * features <= _WIDE_KERNEL), 1)
    if block == 1:
        return _correlate(x, kernel)
    wide = jnp.stack([jnp.pad(kernel, ((0, 0), (i, block - 1 - i), (0, 0), (0, 0)))
                      for i in range(block)], axis=3)
    blocks = lax.conv_general_dilated(
        x, lax.optimization_barrier(wide.reshape(*wide.shape[:3], block * out)), (1, block),
        ((rows // 2, rows // 2), (columns // 2, columns // 2)), dimension_numbers=_LAYOUT)
    return blocks.reshape(batch, height, width, out)


def _kernel_gradient(x: Array, kernel: Array, grad: Array) -> Array:
    """Products over all pixels of the input, shifted along x, with the gradient, along y.

    It is one product of all shifted copies, or, where those leave the cache, one for each two
    copies of a few rows, with pairs of pixels as channels: at 320 x 320 and 18 channels 21 ms in
    place of 56. A convolution with kernels as large as the image takes several times longer.
    """
    rows, columns, features, out = kernel.shape
    _, height, width, _ = x.shape
    copies = grad.size // out * (columns * features + rows * out) * x.dtype.itemsize
    whole = copies <= _CACHED_BYTES
    chunk = height if whole else max(
        n for n in range(1, height + 1)
        if height % n == 0 and (n == 1 or n * copies <= height * _CHUNK_BYTES))
    block = 2 if not whole and columns > 1 and width % 2 == 0 else 1
    x = jnp.pad(x, ((0, 0), (0, 0), (columns // 2,) * 2, (0, 0)))
    grad = jnp.pad(grad, ((0, 0), (rows // 2,) * 2, (0, 0), (0, 0)))
    x, grad = (a.reshape(*a.shape[:2], -1, block * a.shape[-1]) for a in (x, grad))

    def products(start: Array | int) -> Array:
        pixels = lax.dynamic_slice_in_dim(x, start, chunk, 1)
        slopes = lax.dynamic_slice_in_dim(grad, start, chunk + rows - 1, 1)
        inputs = [pixels[:, :, i:i + grad.shape[2]]
                  for i in range((block + columns - 1) // block)]
        outputs = [slopes[:, i:i + chunk] for i in reversed(range(rows))]
        if whole:
            inputs, outputs = ([jnp.concatenate(a, axis=-1)] for a in (inputs, outputs))
        inputs, outputs = lax.optimization_barrier((inputs, outputs))
        # Reshaped first: a contraction over three axes would be laid out anew.
        return jnp.block([[jnp.dot(a.reshape(-1, a.shape[-1]).T, b.reshape(-1, b.shape[-1]),
                                   preferred_element_type=jnp.float32) for b in outputs]
                          for a in inputs])

    total = products(0)
    if chunk < height:
        total, _ = lax.scan(lambda sum_, start: (sum_ + products(start), None), total,
                            jnp.arange(chunk, height, chunk))
    total = total.reshape(-1, features, rows, block, out)
    per_pixel: Any = sum(total[i:i + columns, :, :, i] for i in range(block))
    return per_pixel.transpose(2, 0, 1, 3).astype(kernel.dtype)


conv2d.defvjp(lambda x, kernel: (conv2d(x, kernel), (x, kernel)), _gradients)


class Conv(nn.Module):
    """`conv2d` with a learned kernel of 3 x 3 and no bias."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map `[batch, y, x, in]` to `[batch, y, x, features]`."""
        kernel = self.param("kernel", nn.initializers.he_normal(dtype=jnp.float32),
                            (3, 3, x.shape[-1], self.features))
        return checkpoint_name(conv2d(x, kernel.astype(x.dtype)), SAVED)


class UpConv(nn.Module):
    """2x2 transposed convolution of stride 2: without overlap, a matrix product and a reshape."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map `[batch, y, x, in]` to `[batch, 2y, 2x, features]`."""
        kernel = self.param("kernel", nn.initializers.he_normal(in_axis=2, dtype=jnp.float32),
                            (2, 2, x.shape[-1], self.features))
        batch, height, width, _ = x.shape
        # A product of two matrices: `einsum` would lay out both it and its gradient anew on a CPU.
        matrix = kernel.astype(x.dtype).transpose(2, 0, 1, 3).reshape(x.shape[-1], -1)
        blocks = jnp.dot(x.reshape(-1, x.shape[-1]), matrix)
        blocks = blocks.reshape(batch, height, width, 2, 2, self.features).swapaxes(2, 3)
        return checkpoint_name(blocks.reshape(batch, 2 * height, 2 * width, self.features), SAVED)


def average_pool(x: Array) -> Array:
    """Mean over 2x2 blocks: `[batch, 2y, 2x, c]` to `[batch, y, x, c]`."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))
