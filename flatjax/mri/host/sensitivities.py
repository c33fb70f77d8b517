"""Coil sensitivities estimated from the fully sampled center of k-space, for data sets."""

import numpy as np
import scipy.fft

from flatjax.mri.espirit import espirit
from flatjax.mri.host.masks import plane_side
from flatjax.mri.sampling import LARGEST_BOX, central

ESTIMATES = ("low_resolution", "espirit")


def from_columns(kspace: np.ndarray, num_low: int, kind: str) -> np.ndarray:
    """Coil maps of k-space whose central `num_low` columns were sampled, by one of `ESTIMATES`.

    Of k-space `[..., coil, ky, kx]`: `[..., coil, y, x]` complex64 with `sum_c |S_c|^2 == 1`, or 0
    in slices without signal. "low_resolution", see `from_calibration`, is quicker, "espirit" tells
    the coils from the object. InputError for too few columns for ESPIRiT.
    """
    if kind == "low_resolution":
        return from_calibration(kspace, num_low)
    ky, kx = kspace.shape[-2:]
    return from_box(kspace, plane_side(ky, num_low / kx), num_low)


def from_box(kspace: np.ndarray, rows: int, columns: int, crop: float = 0.0) -> np.ndarray:
    """Coil maps by ESPIRiT from a fully sampled central box or a part of it.

    By default they are not cropped: with few center lines, cropping can take parts of the object.
    """
    box = min(rows, LARGEST_BOX), min(columns, LARGEST_BOX)
    return np.asarray(espirit(kspace, box, crop=crop).maps)


def from_calibration(kspace: np.ndarray, num_low: int) -> np.ndarray:
    """Low-resolution coil images over their root sum of squares.

    The central `num_low` columns, and as large a part of the rows, are weighted by a Hann window
    and transformed: coil images so blurred that little but the sensitivities is left in them
    (Roemer et al., MRM 1990; McKenzie et al., MRM 2002). It is quick and needs no parameters.

    Of k-space `[..., coil, ky, kx]` complex, which may be undersampled outside of that box:
    `[..., coil, y, x]` complex64 with `sum_c |S_c|^2 == 1`, or 0 in slices without any signal.
    The maps cover the background too, where they are arbitrary: a reference combined by root sum
    of squares shows noise there, which zeros could not explain, and dark anatomy is not lost.
    Against `mri.espirit` they are biased where sensitivity or image changes within the blur, mostly
    at edges. In both the object's own smooth phase goes into the maps: `E^H k` is close to real.
    """
    ky, kx = kspace.shape[-2:]
    y, row_window = _window(ky, max(1, round(num_low * ky / kx)))
    x, column_window = _window(kx, num_low)
    box = kspace[..., y, x].astype(np.complex64)
    peak = np.abs(box).max(axis=(-3, -2, -1), keepdims=True)
    # of microvolts, squares would leave the range of float32
    box *= row_window[:, None] * column_window / np.where(peak > 0, peak, 1)
    tall = np.zeros((*kspace.shape[:-2], ky, num_low), np.complex64)
    tall[..., np.arange(y.start, y.stop) - ky // 2, :] = box
    wide = np.zeros(kspace.shape, np.complex64)
    wide[..., np.arange(x.start, x.stop) - kx // 2] = scipy.fft.ifft(tall, axis=-2, norm="forward")
    return normalized(scipy.fft.ifft(wide, axis=-1, norm="forward", overwrite_x=True))


def normalized(images: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Coil images `[..., coil, y, x]` complex64 over their root sum of squares, written over.

    They become 0 where the sum of squares, at most `floor` times its maximum, is but noise.
    """
    power = np.sum(np.real(images) ** 2 + np.imag(images) ** 2, axis=-3, keepdims=True)
    inside = power > floor * power.max()
    images *= np.where(inside, 1 / np.sqrt(np.where(inside, power, 1)), np.float32(0))
    return images


def _window(size: int, length: int) -> tuple[slice, np.ndarray]:
    """Where the central samples of an axis are, and their Hann weights, complex64.

    The weights' phase moves the image's origin to `size // 2`: no shift of the images is needed.
    """
    inside = central(size, length)
    frequency = np.arange(size)[inside] - size // 2
    hann = np.cos(np.pi * frequency / (length + 1)) ** 2
    phase = np.exp(-2j * np.pi * frequency * (size // 2) / size)
    return inside, (hann * phase).astype(np.complex64)
