"""From a scan of any unit and phase to slices as methods take them: mask, coil maps and scale."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flatjax.data.acquisition import Acquisition, draw_mask, draw_noise
from flatjax.data.io.checks import check_mask, reading
from flatjax.data.io.kspace import Scan, find_mask, open_maps, open_mask, slice_with_signal
from flatjax.errors import InputError
from flatjax.inference.checks import check_kspace
from flatjax.mri import Measurement
from flatjax.mri.espirit import KERNEL
from flatjax.mri.host.coil_compression import apply_coils, whitening
from flatjax.mri.host.masks import seed_from_name
from flatjax.mri.host.sensitivities import LARGEST_BOX, from_box, from_calibration, normalized
from flatjax.mri.host.simulate import acquire, complex_noise, host_ifft2c
from flatjax.mri.sampling import calibration_size, pattern


class Prepared(NamedTuple):
    """A slice as methods take it."""

    measurement: Measurement  # without its batch axis; its mask is [1, ky, kx]
    scale: float  # what the result has to be multiplied with, 0 for an empty slice


def measure(scan: Scan, acquisition: Acquisition, mask: str | Path = "",
            maps: str | Path = "", undersample: bool = False) -> Iterator[Prepared]:
    """The slices of a scan as methods take them; one made of a volume is measured first.

    Where the scan tells the noise of its coils, they are prewhitened, maps too, and measurements
    tell its level, which is the same in all coils then.

    The options are those of `reconstruct_files`. Warnings say what is doubtful about the k-space,
    and that it is not undersampled although asked for. InputError for k-space of another form or
    all zero, a mask or maps of another size, a mask that contradicts the data, and no calibration
    region where coil maps are to be made from it.
    """
    sampled = open_mask(mask, scan.shape[2:]) if mask else scan.mask
    reader = open_maps(maps, scan.shape) if maps else scan.maps
    calibration = None if reader else scan.calibration
    seed = seed_from_name(scan.name)
    noise, rng, doubts = 0.0, np.random.default_rng(seed), [*scan.doubts]
    _, middle = slice_with_signal(scan)
    if scan.simulated:
        noise = draw_noise(acquisition, seed)
    else:
        with reading(scan.file):
            doubts += check_kspace(middle)
        if undersample and (sampled is not None or pattern(find_mask(middle)) != "full"):
            undersample = False
            doubts.append("the options acquisition.* are not applied, as the data are "
                          "undersampled already or have a mask")
    for doubt in doubts:
        warnings.warn(f"{scan.file}: {doubt}", stacklevel=2)
    if sampled is None and (scan.simulated or undersample):
        sampled = draw_mask(acquisition, scan.shape[2:], seed)
    white, level = (None, None) if scan.noise is None else whitening(scan.noise)
    every = range(scan.shape[0])
    for kspace, own, lines in zip(scan.read(every), *(
            one(every) if one else [None] * len(every) for one in (reader, calibration)),
            strict=True):
        if noise:
            kspace = acquire(kspace, 1, complex_noise(rng, kspace.shape, noise))
        if white is not None:
            kspace = apply_coils(white, kspace)
            own, lines = (one if one is None else apply_coils(white, one) for one in (own, lines))
        try:
            yield prepare(kspace, sampled, own, lines, level)
        except InputError as error:
            raise InputError(f"{scan.file}: {error}") from error


def prepare(kspace: np.ndarray, mask: np.ndarray | None = None, maps: np.ndarray | None = None,
            calibration: np.ndarray | None = None, noise: float | None = None) -> Prepared:
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
        noise: standard deviation of a sample's complex noise in every coil, if it is known.
    """
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
                   None if noise is None else np.float32(noise / (peak or 1)))
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
