"""How slices are measured: by one setting for all, or by one drawn from ranges for each."""

from functools import lru_cache
from numbers import Real
from typing import NamedTuple

import numpy as np
from numpy.random import Generator

from flatjax.errors import InputError, check_at_least, check_choice
from flatjax.mri.host.masks import check_mask, make_mask
from flatjax.mri.host.patterns import LINE_KINDS, PLANE_KINDS, WHOLE_KINDS
from flatjax.mri.sampling import valid_columns

LINES = ("columns", "rows", "both")
LINES_SHARE, PLANE_SHARE = 0.75, 0.3  # largest share of R's samples that a drawn center takes
MASKS, NOISE = 1, 2  # streams of random numbers of one seed
Seed = int | tuple[int, ...]


class Acquisition(NamedTuple):
    """How a fully sampled slice is measured.

    Where a range `(low, high)` is given, each training slice draws its own value, and each volume
    that is evaluated one by its name.

    Attributes:
        mask: kind of sampling mask, a key of `mri.host.patterns.KINDS`, or several to draw from.
        acceleration: nominal R, at least 1, or a range; `equispaced` and `magic` take the whole
            numbers in it.
        center_fraction: fully sampled part of k-space around its center, or a range, whose upper
            end is lowered so that the center takes up at most 75 % of the lines that R allows, or
            30 % of the points of a plane; not for `equispaced`, which does not count its center.
        noise: standard deviation of the complex k-space noise that is added, in the unit of the
            data: that of an image of maximum 1 for simulated sets, 0 for data with its own noise.
            Or a range, its logarithm uniform. Coils whose maps are 0 get none.
        lines: whether masks of lines take "columns" or "rows" of k-space, or "both", at random.
        partial_fourier: part of an axis, above 1/2, that is acquired, or a range; what is left out
            lies at one end of one axis, drawn at random. What is drawn above 1 counts as 1.
        bank: number of masks of each plane kind that are drawn once per process and then mirrored
            at random, since some are slow to draw; 0 draws each mask anew.
    """

    mask: str | tuple[str, ...] = "random"
    acceleration: float | tuple[float, ...] = 4.0
    center_fraction: float | tuple[float, ...] = 0.08
    noise: float | tuple[float, ...] = 0.0
    lines: str = "columns"
    partial_fourier: float | tuple[float, ...] = 1.0
    bank: int = 0


def ends(value: float | tuple[float, ...]) -> tuple[float, float]:
    """Lowest and highest value of a range, equal for a number."""
    values = value if isinstance(value, tuple) else (value,)
    return values[0], values[-1]


def kinds(acquisition: Acquisition) -> tuple[str, ...]:
    """The kinds of masks that may be drawn."""
    return (acquisition.mask,) if isinstance(acquisition.mask, str) else acquisition.mask


def check_acquisition(acquisition: Acquisition) -> None:
    """Refuse an acquisition that no slice could be measured with, before any work is done.

    Raises:
        InputError: from `make_mask`; a range that is empty or out of order; no kind of mask; a
            range of R without a whole number for a kind that needs one; a value out of range.
    """
    for name in ("acceleration", "center_fraction", "noise", "partial_fourier"):
        value = getattr(acquisition, name)
        if isinstance(value, tuple) and not (
                1 <= len(value) <= 2 and all(isinstance(end, Real) for end in value)
                and value[0] <= value[-1]):
            raise InputError(f"acquisition.{name} is {value}, expected a number or a range "
                             "(low, high) with low <= high")
    check_choice("acquisition.lines", acquisition.lines, LINES)
    check_at_least(0, **{"acquisition.bank": acquisition.bank})
    low, high = ends(acquisition.noise)
    for name, valid, expected in (
            ("noise", low > 0 or low == high == 0, "0 or more, and a range above 0"),
            ("partial_fourier", ends(acquisition.partial_fourier)[0] > 0.5,
             "above 0.5; 1 for all of k-space"),
            ("mask", acquisition.mask, "at least one kind")):
        if not valid:
            raise InputError(f"acquisition.{name} is {getattr(acquisition, name)!r}, expected "
                             f"{expected}")
    for kind in kinds(acquisition):
        least, most = ends(acquisition.acceleration)
        if kind in WHOLE_KINDS and least < most:
            least, most = np.ceil(least), np.floor(most)
            if least > most:
                raise InputError(f"acquisition.acceleration is {acquisition.acceleration}, but "
                                 f"{kind!r} needs a whole number and none lies between")
        for acceleration in (least, most):
            check_mask(kind, (320, 320), acceleration, ends(acquisition.center_fraction)[0])
        check_mask(kind, (320, 320), 1, ends(acquisition.center_fraction)[1])


def draw_noise(acquisition: Acquisition, seed: Seed) -> float:
    """Standard deviation of the noise of a slice or volume with this seed."""
    low, high = ends(acquisition.noise)
    if low == high:
        return low
    return float(np.exp(_stream(seed, NOISE).uniform(np.log(low), np.log(high))))


def draw_mask(acquisition: Acquisition, shape: tuple[int, int], seed: Seed,
              padding: tuple[int, int] | None = None) -> np.ndarray:
    """The mask of a slice or volume `(ky, kx)` with this seed, float32 of 0 and 1.

    For one kind with one R along columns it is `make_mask`'s, with its padding: `[1, kx]` for lines
    and `[ky, kx]` else. It is `[ky, kx]` if there is more to draw, so that masks of one acquisition
    have one shape.
    """
    if _is_fixed(acquisition):
        return make_mask(kinds(acquisition)[0], shape, ends(acquisition.acceleration)[0],
                         ends(acquisition.center_fraction)[0], seed, padding)
    rng = _stream(seed, MASKS)
    kind = str(rng.choice(kinds(acquisition)))
    rows = acquisition.lines == "rows" or (acquisition.lines == "both" and rng.random() < 0.5)
    if kind in PLANE_KINDS and acquisition.bank:
        mask = _draw_banked(kind, acquisition, shape, int(rng.integers(acquisition.bank)))
        mask = mask[::-1] if rng.random() < 0.5 else mask
        mask = mask[:, ::-1] if rng.random() < 0.5 else mask
    elif rows and kind in LINE_KINDS:
        mask = _draw(kind, acquisition, (shape[1], shape[0]), rng).T
    else:
        mask = _draw(kind, acquisition, shape, rng)
    return mask * valid_columns(shape[1], padding) * _acquired_part(acquisition, shape, rng)


def _is_fixed(acquisition: Acquisition) -> bool:
    """Whether nothing of a mask is drawn but what `make_mask` draws."""
    single = all(low == high for low, high in map(ends, (
        acquisition.acceleration, acquisition.center_fraction)))
    return (single and len(kinds(acquisition)) == 1 and acquisition.lines == "columns"
            and ends(acquisition.partial_fourier)[0] >= 1
            and (not acquisition.bank or kinds(acquisition)[0] in LINE_KINDS))


def _stream(seed: Seed, stream: int) -> Generator:
    return np.random.default_rng([stream, *(seed if isinstance(seed, tuple) else (seed,))])


def _draw(kind: str, acquisition: Acquisition, shape: tuple[int, int],
          rng: Generator) -> np.ndarray:
    """A mask with R and center from their ranges, as `make_mask` returns it."""
    low, high = ends(acquisition.acceleration)
    if kind in WHOLE_KINDS and low < high:
        acceleration = int(rng.integers(int(np.ceil(low)), int(high), endpoint=True))
    else:
        acceleration = rng.uniform(low, high)
    least, most = ends(acquisition.center_fraction)
    if kind != "equispaced" and least < most:
        share = LINES_SHARE if kind in LINE_KINDS else PLANE_SHARE
        most = max(least, min(most, share / acceleration))
    return make_mask(kind, shape, acceleration, rng.uniform(least, most),
                     int(rng.integers(2**32)))


@lru_cache(maxsize=1024)
def _draw_banked(kind: str, acquisition: Acquisition, shape: tuple[int, int],
                 index: int) -> np.ndarray:
    return _draw(kind, acquisition, shape, np.random.default_rng(index))


def _acquired_part(acquisition: Acquisition, shape: tuple[int, int],
                   rng: Generator) -> np.ndarray:
    """What partial Fourier leaves of k-space, `[ky, kx]` float32."""
    part = np.ones(shape, np.float32)
    axis, last = rng.integers(2), rng.random() < 0.5
    fraction = rng.uniform(*ends(acquisition.partial_fourier))
    left_out = max(0, round((1 - fraction) * shape[axis]))
    ends_ = slice(shape[axis] - left_out, None) if last else slice(left_out)
    np.moveaxis(part, axis, 0)[ends_] = 0
    return part
