"""Random arrays, images and weights."""

import jax
import numpy as np


def complex_normal(rng, shape, dtype=np.complex64):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


def smooth_image(rng, shape):
    """A few Gaussian blobs with a phase: something that a network can learn."""
    y, x = (np.linspace(-1, 1, n) for n in shape)
    image = np.zeros(shape, np.complex64)
    for _ in range(5):
        cy, cx, width = rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), rng.uniform(0.05, 0.4)
        blob = np.exp(-((y[:, None] - cy) ** 2 + (x - cx) ** 2) / width**2)
        image += blob * np.exp(1j * rng.uniform(-1, 1))
    return (image / np.abs(image).max()).astype(np.complex64)


def noisy(params, scale=0.3):
    """Params away from their zero-initialized last layer."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    return jax.tree.unflatten(tree, [a + scale * jax.random.normal(k, a.shape, a.dtype)
                                     for a, k in zip(leaves, keys, strict=True)])
