"""Training without full k-space: a part of the measured samples is predicted from the rest.

SSDU: Yaman et al., "Self-supervised learning of physics-guided reconstruction neural networks
without fully sampled reference data", MRM 84(6), 2020. Several splits of a slice: Yaman et al.,
"Multi-mask self-supervised learning for physics-guided neural networks in highly accelerated MRI",
NMR in Biomedicine 35(12), 2022. There the splits of a slice are fixed; here each update draws new
ones.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax import losses
from flatjax.errors import InputError, check_at_least, check_choice
from flatjax.methods.base import Method, Params
from flatjax.methods.common import normalize_measurement
from flatjax.mri import Batch, Measurement
from flatjax.mri.sampling import LARGEST_BOX, calibration_mask, distance_from_center, pattern

DENSITIES = ("gaussian", "uniform")


def split(rng: Array, measurement: Measurement, share: float = 0.4,
          density: str = "gaussian") -> tuple[Measurement, Array]:
    """Split what was measured in two: Theta, for a method, and Lambda, to judge its result by.

    Theta keeps the fully sampled center, at most `LARGEST_BOX` lines along each axis, which coil
    maps are made of. Lambda has `share` of the samples outside of it, rounded; they are points,
    also where whole lines were measured.

    Args:
        rng: key of the draw, one for all slices.
        measurement: of `[batch, coil, ky, kx]`.
        share: of Lambda.
        density: of Lambda: "uniform", or "gaussian" of standard deviation n/4 along an axis of n,
            as in SSDU: near the center, where signal is, more points are drawn.

    Returns:
        the measurement of Theta alone, and the mask of Lambda, `[batch, 1, ky, kx]` float32. The
        two masks are disjoint, and together those of the measurement.
    """
    shape = measurement.kspace.shape
    mask = jnp.broadcast_to(measurement.mask, (shape[0], 1, *shape[2:]))
    free = _outside(mask)
    weight = -2 * distance_from_center(shape[2:]) ** 2 if density == "gaussian" else 0.0
    # Gumbel noise on logarithmic weights: their order is that of a weighted draw one by one
    score = jnp.where(free, weight + jax.random.gumbel(rng, mask.shape), -jnp.inf)
    rank = jnp.argsort(jnp.argsort(-score.reshape(len(score), -1))).reshape(mask.shape)
    held = rank < jnp.round(share * jnp.sum(free, axis=(1, 2, 3), keepdims=True))
    theta = jnp.where(held, 0, mask)
    return measurement._replace(kspace=theta * measurement.kspace, mask=theta), mask - theta


def _outside(mask: Array) -> Array:
    return (mask > 0) & ~calibration_mask(mask, LARGEST_BOX)


def self_supervised(method: Method, *, share: float = 0.4, splits: int = 1,
                    density: str = "gaussian") -> Method:
    """The method with a loss for which full k-space is not needed, and never looked at.

    Of every slice it reconstructs from Theta, and compares the result's k-space with the measured
    one on Lambda, by `losses.relative_error`. The method's own loss is not used.

    Args:
        method: any one whose `reconstruct` has a gradient.
        share, density: see `split`.
        splits: of each slice in an update, which takes as many reconstructions.

    Raises:
        InputError: for a value out of range.
    """
    if not 0 < share < 1:
        raise InputError(f"split_share is {share}, expected above 0 and below 1")
    check_at_least(1, splits=splits)
    check_choice("split_density", density, DENSITIES)

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        key_split, key_method = jax.random.split(rng)
        measured = jax.tree.map(lambda x: jnp.repeat(x, splits, axis=0), batch.measurement)
        theta, held = split(key_split, measured, share, density)
        theta, scale = normalize_measurement(theta)
        kspace = method.reconstruct(params, key_method, theta).kspace
        error = jnp.mean(losses.relative_error(prediction=held * kspace,
                                               target=held * measured.kspace / scale))
        return error, {"heldout": error}

    return method._replace(loss=loss)


def check_split(measurement: Measurement, share: float) -> None:
    """Refuse what `split` cannot split: measurements of which Theta or Lambda would have nothing.

    Raises:
        InputError: for k-space that is not undersampled, or has too few samples.
    """
    shape = measurement.kspace.shape
    for mask in np.broadcast_to(measurement.mask, (shape[0], 1, *shape[2:])):
        if pattern(mask) == "full":
            raise InputError("k-space is fully sampled, or without gaps, expected undersampled "
                             "k-space: what was left out is what is learned; give its mask")
        free = int(np.sum(_outside(mask)))
        if not 0 < round(share * free) < free:
            raise InputError(f"{free} samples lie outside of the fully sampled center, expected "
                             f"enough to hold a share of {share:g} of them out and keep some; "
                             "take another share or scans with more samples")
