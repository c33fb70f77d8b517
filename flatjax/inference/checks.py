"""Whether k-space has the form that methods take, told from its numbers.

The energy of k-space lies at the zero frequency, an image fills its axis. An image is darker at its
edge than in its middle. Coils show one object, slices do not. The bounds lie between what scans
have that are undersampled in many ways, and what the same scans have in a wrong form.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft

from flatjax.data.io.kspace import find_mask
from flatjax.errors import InputError
from flatjax.mri.host.sensitivities import normalized
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import calibration_size, central

_KSPACE, _IMAGE = 0.5, 2.0  # spread along an axis: below, and above
_SIGNAL = 10  # times the energy of a line, which no line of noise has
_NEAR, _OPPOSITE = 0.125, 0.4  # of an axis, from n // 2 to the center of energy
_SWAPPED = 0.75  # of the brightness at the edge, below which the middle of no image is
_DIFFERENT = 0.3  # of the detail, which no coils leave unexplained
_LOW, _DETAIL = 32, 64  # lines of the center: for coil maps, and to test them with
_NAMES = ("coil", "ky", "kx")


def check_kspace(kspace: np.ndarray) -> list[str]:
    """What is doubtful about a slice of k-space `[coil, ky, kx]`, in a line each.

    InputError for what is certain: coils on the last axis, or a zero frequency at the edge.
    """
    if not kspace.any():
        return []
    kspace = kspace / np.abs(kspace).max()
    spread = [_spread(kspace, axis) for axis in range(3)]
    offset = [energy_offset(kspace, axis) for axis in range(3)]
    if len(kspace) > kspace.shape[2] and spread[0] < _KSPACE and abs(offset[0]) < _NEAR \
            and spread[2] > 2 * spread[0]:
        raise InputError(f"k-space is read as [coil, ky, kx] = {kspace.shape}, but the energy lies "
                         "as if coils were the last axis; move it with numpy.moveaxis(kspace, -1, "
                         "-3)")
    frequencies = [axis for axis in (1, 2)
                   if spread[axis] < _KSPACE and not math.isnan(offset[axis])]
    edge = tuple(axis - 3 for axis in frequencies if abs(offset[axis]) > _OPPOSITE)
    if edge:
        raise InputError(f"the energy of k-space lies at the edge of {_axes(edge)}, expected at "
                         f"n // 2; move it with numpy.fft.fftshift(kspace, axes={edge})")
    image = tuple(axis - 3 for axis in (1, 2) if spread[axis] > _IMAGE)
    if image:
        return [f"k-space looks like an image along {_axes(image)}; transform it with numpy.fft."
                f"fftshift(numpy.fft.fftn(numpy.fft.ifftshift(kspace, axes={image}), axes={image}, "
                f"norm='ortho'), axes={image})"]
    return [_off_center(kspace.shape, axis, offset[axis]) for axis in frequencies
            if abs(offset[axis]) > _NEAR] or _image_doubts(kspace, frequencies)


def _spread(kspace: np.ndarray, axis: int) -> float:
    """Over how much of an axis the energy spreads, as a multiple of what its transform does."""
    def share(values: np.ndarray) -> float:
        power = _energy(values, axis)
        return power.sum() ** 2 / (power @ power)

    transformed = scipy.fft.ifft(scipy.fft.ifftshift(kspace, axes=axis), axis=axis, norm="ortho")
    return share(kspace) / share(transformed)


def _energy(values: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(one for one in range(values.ndim) if one != axis)
    return np.sum(np.abs(values).astype(np.float64) ** 2, axis=others)


def energy_offset(kspace: np.ndarray, axis: int) -> float:
    """How far from n // 2 the center of energy of k-space lies, as a part of the axis.

    From -1/2 to 1/2, or NaN if the energy has no center, as that of noise. It is that of a mean
    sample, without zeros, above the median, where noise is.
    """
    power = _energy(kspace, axis) / np.maximum(np.count_nonzero(kspace, axis=tuple(
        one for one in range(kspace.ndim) if one != axis)), 1)
    median = np.median(power[power > 0])
    power = np.where(power.max() > _SIGNAL * median, np.maximum(power - median, 0), 0)
    angle = 2 * np.pi * (np.arange(power.size) - power.size // 2) / power.size
    center = power @ np.exp(1j * angle)
    sure = np.abs(center) > 0.5 * power.sum()
    return float(np.angle(center) / (2 * np.pi)) if sure else math.nan


def _off_center(shape: Sequence[int], axis: int, offset: float) -> str:
    size = shape[axis]
    at = size // 2 + round(offset * size)
    widths = [(0, 0)] * 3
    widths[axis] = max(0, size - 2 * at), max(0, 2 * at - size)
    return (f"the energy of k-space has its center about {_NAMES[axis]} = {at} of {size}, expected "
            "at n // 2; if an end was not acquired, fill it with zeros, as numpy.pad(kspace, "
            f"{widths}) does of [coil, ky, kx]")


def _image_doubts(kspace: np.ndarray, frequencies: Sequence[int]) -> list[str]:
    """What an image of the fully sampled center tells: of the phase, and of the first axis."""
    rows, columns = calibration_size(np.broadcast_to(find_mask(kspace), kspace.shape[1:]))
    box = int(rows), int(columns)
    low = host_ifft2c(_center(kspace, box, _LOW, np.hanning))
    power = np.sum(np.abs(low) ** 2, axis=0)
    factors = {}
    for axis in frequencies:
        size, profile = kspace.shape[axis], np.sqrt(power).mean(axis=2 - axis)
        distance = np.abs(np.arange(size) - size // 2) / size
        if min(box[axis - 1], size // 2) >= 5 and profile[distance < 1 / 16].mean() \
                < _SWAPPED * profile[distance > 7 / 16].mean():
            factors[axis] = (f"numpy.exp(2j * numpy.pi * {size // 2} / {size} * "
                             f"numpy.arange({size})){'[:, None]' * (axis == 1)}")
    if factors:
        return [f"the image is brighter at its edge than in its middle along {_axes([*factors])}, "
                "as that of numpy.fft.fftshift(numpy.fft.fft2(image)); shift it by kspace * "
                + " * ".join(factors.values())]
    if len(kspace) > 2 and _unexplained(kspace, low, box) > _DIFFERENT:
        return [f"the {len(kspace)} coils show different objects; slices of one coil are handed "
                "over as kspace[:, None]"]
    return []


def _center(kspace: np.ndarray, box: tuple[int, int], most: int,
            window: Callable[[int], np.ndarray] = np.ones) -> np.ndarray:
    """At most so many lines along each axis of the sampled center, 0 elsewhere."""
    rows, columns = (min(n, most) for n in box)
    out = np.zeros_like(kspace)
    inside = ..., central(kspace.shape[1], rows), central(kspace.shape[2], columns)
    out[inside] = kspace[inside] * window(rows + 2)[1:-1, None] * window(columns + 2)[1:-1]
    return out


def _unexplained(kspace: np.ndarray, low: np.ndarray, box: tuple[int, int]) -> float:
    """The share of an image's detail that is not that of one object which smooth coils see.

    Near 1 for images that have nothing in common, 0 where too little was sampled to tell.

    Args:
        kspace: `[coil, ky, kx]`.
        low: coil images of the innermost of its center, whose ratios are taken for coil maps.
        box: rows and columns of the fully sampled center.
    """
    if min(box) < 8 or max(box) < (_LOW + _DETAIL) // 2:
        return 0.0
    detail = host_ifft2c(_center(kspace, box, _DETAIL) - _center(kspace, box, _LOW))
    maps = normalized(low.copy())
    rest = detail - maps * np.sum(np.conj(maps) * detail, axis=0)
    power, whole, left = (np.sum(np.abs(one) ** 2, axis=0) for one in (low, detail, rest))
    dark = power <= np.quantile(power, 0.25)  # where noise is, or at least little else
    signal = whole.mean() - whole[dark].mean()
    if signal < 0.4 * whole.mean():
        return 0.0
    return float((left.mean() - left[dark].mean()) / signal) * len(kspace) / (len(kspace) - 1)


def _axes(axes: Sequence[int]) -> str:
    return " and ".join(_NAMES[axis] for axis in axes)
