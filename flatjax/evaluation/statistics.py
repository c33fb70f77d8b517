"""Uncertainty of differences between two methods on the same slices. Host side, numpy."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flatjax.errors import InputError


class Difference(NamedTuple):
    """A mean difference and its bootstrap interval.

    Attributes:
        mean: of `a - b` over the slices.
        low, high: ends of the interval.
    """

    mean: float
    low: float
    high: float


def paired_difference(a: np.ndarray, b: np.ndarray, *, level: float = 0.95,
                      resamples: int = 10_000, seed: int = 0) -> Difference:
    """How much better `a` is than `b`, slice by slice, by the percentile bootstrap.

    Slices are drawn with replacement, each with both its scores, so that what makes a slice hard
    for both does not widen the interval (Efron and Tibshirani, "An Introduction to the Bootstrap",
    1993, ch. 13). Neighboring slices of one head are alike: the interval speaks of slices like
    these, not of other heads.

    Args:
        a, b: `[slices]` scores, the same slices in the same order. Infinite ones, of slices that
            both have without error, differ by 0; a slice that one alone has so is left out.
        level: of confidence.
        resamples: drawn.
        seed: of the draws.

    Raises:
        InputError: if the scores are not of the same slices.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 1 or a.shape != b.shape or not a.size:
        raise InputError(f"scores have shapes {a.shape} and {b.shape}, expected the same number of "
                         "slices, at least one")
    with np.errstate(invalid="ignore"):
        difference = np.where(a == b, 0.0, a - b)
    difference = difference[np.isfinite(difference)]
    if not difference.size:
        return Difference(math.nan, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    # A draw of n among n with replacement is n counts: a matrix product, not a gather.
    counts = rng.multinomial(len(difference), np.full(len(difference), 1 / len(difference)),
                             resamples)
    means = counts @ difference / len(difference)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(difference.mean()), float(low), float(high))


def seed_differences(own: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]],
                     keys: Iterable[str]) -> dict[str, Difference] | None:
    """`paired_difference` of two runs in several scores, each averaged over its seeds.

    Args:
        own, base: per seed, scores `[slices]` by name.
        keys: of the scores.

    Returns:
        by score; None where `base` is empty or of other slices.
    """
    def mean(seeds: Sequence[Mapping[str, Any]], key: str) -> np.ndarray:
        return np.mean([one[key] for one in seeds], axis=0)

    if not base or any(mean(own, key).shape != mean(base, key).shape for key in keys):
        return None
    return {key: paired_difference(mean(own, key), mean(base, key)) for key in keys}
