"""Coil sensitivities estimated from the fully sampled center of k-space, for data sets."""

import operator

import numpy as np
import scipy.fft

from flatjax.errors import InputError
from flatjax.mri.espirit import espirit
from flatjax.mri.host.masks import plane_side

ESTIMATES = ("low_resolution", "espirit")
_ESPIRIT_BOX = 32  # samples along a side, at most: more of them cost time alone


def from_columns(kspace: np.ndarray, num_low: int, kind: str) -> np.ndarray:
    """Coil maps of k-space whose central columns were sampled, by an estimate of `ESTIMATES`.

    Args:
        kspace: `[..., coil, ky, kx]` complex.
        num_low: number of central columns that were sampled.
        kind: "low_resolution", see `from_calibration`, or "espirit", see `mri.espirit`, left
            uncropped. The first is quicker, the second tells the coils from the object.

    Returns:
        `[..., coil, y, x]` complex64 with `sum_c |S_c|^2 == 1`, or 0 in slices without signal.

    Raises:
        InputError: another kind, or too few columns for it.
    """
    if kind not in ESTIMATES:
        raise InputError(f"coil maps by {kind!r}, expected one of {', '.join(ESTIMATES)}")
    if kind == "low_resolution":
        return from_calibration(kspace, num_low)
    ky, kx = kspace.shape[-2:]
    rows, columns = (min(n, _ESPIRIT_BOX) for n in (plane_side(ky, num_low / kx), num_low))
    return np.asarray(espirit(kspace, (rows, columns), crop=0).maps)


def from_calibration(kspace: np.ndarray, num_low: int) -> np.ndarray:
    """Low-resolution coil images over their root sum of squares.

    The central `num_low` columns, and as large a part of the rows, are weighted by a Hann window
    and transformed: coil images so blurred that little but the sensitivities is left in them
    (Roemer et al., MRM 1990; McKenzie et al., MRM 2002). It is quick and needs no parameters.

    Its limits against `mri.espirit` (Uecker et al., MRM 2014): maps are biased where sensitivity
    or image changes within the blur, mostly at edges, and no eigenvalue tells object from
    background. In both the object's own smooth phase goes into the maps, so that `E^H k` is close
    to real, and signal that folds into a small field of view needs more than one set of maps.

    Args:
        kspace: `[..., coil, ky, kx]` complex; only the box of central samples is read, so it may
            be undersampled outside of it.
        num_low: number of central columns that were sampled, as placed by
            `mri.host.masks.center_mask`.

    Returns:
        `[..., coil, y, x]` complex64 with `sum_c |S_c|^2 == 1`, or 0 in slices without any
        signal. The maps cover the background too, where their phase and ratio are arbitrary: a
        reference combined by root sum of squares shows noise there, which zeros could not
        explain, and dark anatomy is not lost.

    Raises:
        InputError: fewer than one calibration column or more than there are, or an array of fewer
            than three axes.
    """
    kspace = np.asarray(kspace)
    if kspace.ndim < 3 or 0 in kspace.shape:
        raise InputError(f"k-space has shape {kspace.shape}, expected [..., coil, ky, kx] without "
                         "a zero; a single coil needs no maps, use ones")
    ky, kx = kspace.shape[-2:]
    try:
        columns = operator.index(num_low)
    except TypeError:
        columns = 0
    if not 1 <= columns <= kx:
        raise InputError(f"{num_low!r} calibration columns, expected a whole number from 1 to {kx}:"
                         " coil maps need the fully sampled center of k-space; use a mask that "
                         "has one")
    images = _low_resolution(kspace, max(1, round(columns * ky / kx)), columns)
    power = np.sum(np.real(images) ** 2 + np.imag(images) ** 2, axis=-3, keepdims=True)
    inside = power > 0
    images *= np.where(inside, 1 / np.sqrt(np.where(inside, power, 1)), np.float32(0))
    return images


def _low_resolution(kspace: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Images `[..., y, x]` complex64 of the windowed central samples, scaled to about 1."""
    ky, kx = kspace.shape[-2:]
    y, row_window = _center(ky, rows)
    x, column_window = _center(kx, columns)
    box = kspace[..., y[0]:y[-1] + 1, x[0]:x[-1] + 1].astype(np.complex64)
    peak = np.abs(box).max(axis=(-3, -2, -1), keepdims=True)
    # of microvolts, squares would leave the range of float32
    box *= row_window[:, None] * column_window / np.where(peak > 0, peak, 1)
    tall = np.zeros((*kspace.shape[:-2], ky, columns), np.complex64)
    tall[..., (y - ky // 2) % ky, :] = box
    wide = np.zeros(kspace.shape, np.complex64)
    wide[..., (x - kx // 2) % kx] = scipy.fft.ifft(tall, axis=-2, norm="forward")
    return scipy.fft.ifft(wide, axis=-1, norm="forward", overwrite_x=True)


def _center(size: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the central samples and their weights, complex64.

    The weights' phase moves the image's origin to `size // 2`: no shift of the images is needed.
    """
    start = (size - length + 1) // 2
    index = np.arange(start, start + length)
    frequency = index - size // 2
    hann = np.cos(np.pi * frequency / (length + 1)) ** 2
    return index, (hann * np.exp(-2j * np.pi * frequency * (size // 2) / size)).astype(np.complex64)
