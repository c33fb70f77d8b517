"""From k-space of any unit and phase to a slice as methods take it: mask, coil maps and scale."""

from typing import Any, NamedTuple

import numpy as np

from flatjax.data.io.checks import check_mask
from flatjax.data.io.kspace import find_mask
from flatjax.errors import InputError
from flatjax.mri import Measurement
from flatjax.mri.espirit import KERNEL
from flatjax.mri.host.coil_compression import apply_coils, whitening
from flatjax.mri.host.sensitivities import from_box, from_calibration, normalized
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import LARGEST_BOX, calibration_size


class Prepared(NamedTuple):
    """A slice as methods take it."""

    measurement: Measurement  # without its batch axis; its mask is [1, ky, kx]
    scale: float  # what the result has to be multiplied with, 0 for an empty slice


def prepare(kspace: np.ndarray, mask: np.ndarray | None = None, maps: np.ndarray | None = None,
            calibration: np.ndarray | None = None, noise: np.ndarray | None = None) -> Prepared:
    """One slice as methods take it, whatever its unit and the phase of its receiver.

    It is divided by its largest sample. Maps that are made here take up the smooth phase of the
    image, and what is left is turned by one phase, such that the zero-filled image `x` has a real
    and positive `sum x |x|`: models are trained on images whose phase is near 0, and a scan has
    any (`benchmarks/receiver_phase.py` tells what that is worth).

    Args:
        kspace: `[coil, ky, kx]` complex64.
        mask: `[ky or 1, kx]`, 1 where sampled; by default where any coil is not zero. InputError
            for one that contradicts the data, see `check_mask`.
        maps: `[coil, y, x]`; by default made of the fully sampled center: of several coils by
            ESPIRiT, of one coil its low-resolution phase, or ones where there is no such center.
            InputError for several coils without.
        calibration: `[coil, ky, kx]`, of which maps are made instead where it is not all zero.
        noise: covariance of a sample's noise, `[coil, coil]` complex, if it is known. The coils are
            prewhitened by it, maps too, and the measurement tells the level, equal in all then.
    """
    level = None
    if noise is not None:
        white, level = whitening(noise)
        kspace = apply_coils(white, kspace)
        maps, calibration = (one if one is None else apply_coils(white, one)
                             for one in (maps, calibration))
    found = find_mask(kspace)
    if mask is not None:
        check_mask(kspace, found, mask)
    mask = np.broadcast_to(found if mask is None else mask * found, kspace.shape[1:])
    kspace = mask * kspace
    peak = float(np.abs(kspace).max())
    if peak == 0:
        if found.any():
            raise InputError("the mask takes none of the samples of a slice, expected one of this "
                             "scan; leave it out to have the mask found in the data")
        maps = np.ones_like(kspace) / np.float32(np.sqrt(len(kspace)))
    else:
        kspace = kspace / np.float32(peak)
        if maps is not None:
            maps = normalized(maps.copy(), floor=1e-6)
        elif calibration is not None and calibration.any():
            peaked = calibration / np.abs(calibration).max()
            maps = _calibrated(peaked, np.broadcast_to(find_mask(peaked), kspace.shape[1:]))
        else:
            maps = _calibrated(kspace, mask)
        if not maps.any():
            raise InputError("the coil maps are zero everywhere, expected those of this scan")
        image = np.sum(np.conj(maps) * host_ifft2c(kspace), axis=0)
        mean = np.sum(image * np.abs(image))
        if mean:
            kspace = kspace * np.complex64(np.conj(mean) / np.abs(mean))
    arrays: Any = (kspace, np.ascontiguousarray(mask[None], np.float32), maps,
                   None if level is None else np.float32(level / (peak or 1)))
    return Prepared(Measurement(*arrays), peak)


def _calibrated(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Maps from the fully sampled center; of one coil, unit phasors of its smooth phase."""
    rows, columns = (int(n) for n in calibration_size(mask))
    if len(kspace) == 1:
        rows, columns = (min(n, LARGEST_BOX) for n in (rows, columns))
        columns = min(columns, rows * kspace.shape[2] // kspace.shape[1])
        phase = from_calibration(kspace, columns) if columns >= KERNEL else np.ones_like(kspace)
        return np.where(phase == 0, 1, phase)
    if min(rows, columns) < KERNEL:
        raise InputError(f"the fully sampled center of k-space is {rows} x {columns}, expected at "
                         f"least {KERNEL} x {KERNEL} calibration lines to make coil maps of; give "
                         "the maps as a file (--maps=FILE)")
    return from_box(kspace, rows, columns)
