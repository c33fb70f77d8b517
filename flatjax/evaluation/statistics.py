"""Uncertainty of differences between two methods on the same slices. Host side, numpy."""

import math
from typing import NamedTuple

import numpy as np

_RESAMPLES = 10_000
_LEVEL = 0.95


class Difference(NamedTuple):
    """A mean difference and the ends of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def paired_difference(a: np.ndarray, b: np.ndarray) -> Difference:
    """How much better `a` is than `b`, slice by slice, by the percentile bootstrap.

    Slices are drawn with both their scores, so that what makes a slice hard for both does not
    widen the interval (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, ch. 13).
    Neighboring slices are alike: the interval speaks of slices like these, not of other heads.

    Args:
        a, b: `[slices]` scores of the same slices. Infinite ones, of slices that both have without
            error, differ by 0; a slice that one alone has so is left out.
    """
    with np.errstate(invalid="ignore"):
        difference = np.where(np.equal(a, b), 0.0, np.subtract(a, b))
    difference = difference[np.isfinite(difference)]
    if not difference.size:
        return Difference(math.nan, math.nan, math.nan)
    # A draw of n among n with replacement is n counts: a matrix product, not a gather.
    counts = np.random.default_rng(0).multinomial(
        len(difference), np.full(len(difference), 1 / len(difference)), _RESAMPLES)
    low, high = np.quantile(counts @ difference / len(difference),
                            [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Difference(float(difference.mean()), float(low), float(high))
