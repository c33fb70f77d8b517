"""Noise level of a measurement, estimated from its outermost samples."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax.mri.sampling import distance_from_center

_OUTERMOST = 0.05  # of the measured samples: where the object's signal is weakest
_MEDIAN = float(np.sqrt(np.log(2)))  # of |n| for circular complex noise with E |n|^2 = 1


def noise_level(kspace: Array, mask: Array) -> Array:
    """Standard deviation of the noise, from the outermost twentieth of the measured samples.

    It is their median magnitude, which a few strong samples do not move. It is too large where the
    object reaches the edge of k-space, and too small where the scanner filtered or padded k-space
    there. Coils without any signal are left out.

    Args:
        kspace: measured k-space `[batch, coil, ky, kx]` complex64.
        mask: sampling mask `[batch, 1, ky or 1, kx]` float32.

    Returns:
        `[batch]` float32 with `E |n|^2 = noise^2`; 0 for an empty measurement.
    """
    distance = jnp.where(mask > 0, distance_from_center(kspace.shape[-2:]), jnp.nan)
    edge = jnp.nanquantile(distance, 1 - _OUTERMOST, axis=(-3, -2, -1), keepdims=True)
    present = jnp.any(kspace != 0, axis=(-2, -1), keepdims=True)
    far = jnp.where((distance >= edge) & present, jnp.abs(kspace), jnp.nan)
    return jnp.nan_to_num(jnp.nanmedian(far, axis=(-3, -2, -1))) / _MEDIAN
