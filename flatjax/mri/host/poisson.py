"""Variable-density Poisson disc sampling on a grid."""

import math

import numpy as np

from flatjax.mri.sampling import distance_from_center

# The Poisson disc's radius grows with the distance from the center: 1 + 2 = threefold at an edge.
POISSON_GROWTH = 2.0


def poisson_disc(
    allowed: np.ndarray, count: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """Variable-density Poisson disc on the grid, by dart throwing.

    Any two chosen points p and q are at least min(radius[p], radius[q]) apart, in grid steps. The
    radius is a scale times 1 + POISSON_GROWTH * d, with d the distance from the center, 1 at
    the edges. The scale is searched until the darts leave at most 1 % too many points, and
    the surplus is dropped at random, which keeps every distance.

    Args:
        allowed: `[ky, kx]` bool, where points may lie.
        count: how many points, 0 <= count <= allowed.sum().
        rng: a numpy.random.RandomState.

    Returns:
        (mask, radius): `[ky, kx]` bool with exactly `count` points, and `[ky, kx]` float64.
    """
    relative = 1 + POISSON_GROWTH * distance_from_center(allowed.shape)
    order = rng.permutation(np.flatnonzero(allowed))
    mask = np.zeros(allowed.shape, bool)
    enough, too_few = 1 / relative.max(), math.inf
    chosen, radius = order, enough * relative
    # 0.7 / r^2 is the density at which darts of spacing r jam in the plane.
    scale = math.sqrt(0.7 * np.sum(relative[allowed] ** -2) / max(count, 1))
    for _ in range(24):
        if len(chosen) <= 1.01 * count or count == 0:
            break
        if not enough < scale < too_few:
            scale = math.sqrt(enough * too_few) if too_few < math.inf else 2 * enough
        darts = _throw(order, scale * relative)
        if len(darts) >= count:
            enough, chosen, radius = scale, darts, scale * relative
        else:
            too_few = scale
        scale *= math.sqrt(max(len(darts), 1) / (1.005 * count))
    mask.flat[rng.permutation(chosen)[:count]] = True
    return mask, radius


def _throw(order: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Takes the points of `order`, flat indices, one by one unless a taken one blocks them."""
    rows, columns = radius.shape
    squared = np.ceil(np.minimum(radius, max(rows, columns) * 2.0) ** 2).astype(int)
    reach = math.isqrt(int(squared.max())) + 1
    stride = columns + 2 * reach
    blocked = np.zeros((rows + 2 * reach) * stride, bool)
    steps = np.arange(-reach, reach + 1)
    distances = (steps[:, None] ** 2 + steps**2).ravel()
    nearest = np.argsort(distances, kind="stable")
    offsets = (steps[:, None] * stride + steps).ravel()[nearest]
    # Disc number s holds the offsets whose squared length, an integer, is below s.
    ends = np.searchsorted(distances[nearest], np.arange(squared.max() + 1))
    places = (order // columns + reach) * stride + order % columns + reach
    darts = np.stack([order, places, ends[squared.flat[order]]], axis=1).tolist()
    is_blocked, taken = blocked.data, []
    for point, place, end in darts:
        if not is_blocked[place]:
            taken.append(point)
            blocked[offsets[:end] + place] = True
    return np.array(taken, int)
