"""From a scan of any unit and phase to slices as methods take them: mask, coil maps and scale."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flatjax.data.acquisition import Acquisition, draw_mask, draw_noise
from flatjax.data.io.kspace import (
    Reader,
    Scan,
    find_mask,
    open_maps,
    open_mask,
    slice_with_signal,
)
from flatjax.errors import InputError
from flatjax.mri import Measurement
from flatjax.mri.espirit import KERNEL, espirit
from flatjax.mri.host.masks import seed_from_name
from flatjax.mri.host.sensitivities import from_calibration
from flatjax.mri.host.simulate import acquire, complex_noise, host_ifft2c
from flatjax.mri.sampling import calibration_size

LARGEST_BOX = 32  # of calibration: more costs ESPIRiT time and gains little


class Prepared(NamedTuple):
    """A slice as methods take it.

    Attributes:
        measurement: without its batch axis; its mask is `[1, ky, kx]`.
        scale: what the result has to be multiplied with, 0 for an empty slice.
    """

    measurement: Measurement
    scale: float


def measure(scan: Scan, acquisition: Acquisition, mask: str | Path = "",
            maps: str | Path = "") -> Iterator[Prepared]:
    """The slices of a scan as methods take them, one after the other.

    Args:
        scan: as opened.
        acquisition: of one that is simulated from a volume; others are what was measured.
        mask, maps: files, see `reconstruct_files`.

    Raises:
        InputError: a mask or maps of another size, k-space that is all zero, no calibration
            region where coil maps are to be made from it.
    """
    shape = scan.shape
    given = open_mask(mask, shape[2:]) if mask else scan.mask
    reader = open_maps(maps, shape) if maps else scan.maps
    if scan.simulated and given is None:
        given = draw_mask(acquisition, shape[2:], seed_from_name(scan.name))
    slice_with_signal(scan)
    noise = draw_noise(acquisition, seed_from_name(scan.name)) if scan.simulated else 0.0
    return _prepared(scan, given, reader, noise)


def _prepared(scan: Scan, mask: np.ndarray | None, maps: Reader | None,
              noise: float) -> Iterator[Prepared]:
    every = range(scan.shape[0])
    rng = np.random.default_rng(seed_from_name(scan.name))
    for kspace, own in zip(scan.read(every), maps(every) if maps else [None] * len(every),
                           strict=True):
        if noise:
            kspace = acquire(kspace, 1, complex_noise(rng, kspace.shape, noise))
        try:
            yield prepare(kspace, mask, own)
        except InputError as error:
            raise InputError(f"{scan.file}: {error}") from error


def prepare(kspace: np.ndarray, mask: np.ndarray | None = None,
            maps: np.ndarray | None = None) -> Prepared:
    """One slice as methods take it, whatever its unit and the phase of its receiver.

    It is divided by its largest sample. Maps that are made here take up the smooth phase of the
    image, and what is left is turned by one phase, such that the zero-filled image `x` has a real
    and positive `sum x |x|`: models are trained on images whose phase is near 0, and a scan has
    any (`benchmarks/receiver_phase.py` tells what that is worth).

    Args:
        kspace: `[coil, ky, kx]` complex64.
        mask: `[ky or 1, kx]`, 1 where sampled; by default where any coil is not zero.
        maps: `[coil, y, x]`; by default made of the fully sampled center: of several coils by
            ESPIRiT, of one coil its low-resolution phase, or ones where there is no such center.

    Raises:
        InputError: no sample, or no calibration region where maps are made of it. The message
            does not name the file.
    """
    shape = kspace.shape[1:]
    found = find_mask(kspace)
    mask = np.broadcast_to(found if mask is None else mask * found, shape)
    kspace = mask * kspace
    peak = float(np.abs(kspace).max())
    if peak == 0:
        if found.any():
            raise InputError("the mask takes none of the samples of a slice, expected one of this "
                             "scan; leave it out to have the mask found in the data")
        ones = np.ones_like(kspace) / np.float32(np.sqrt(len(kspace)))
        return Prepared(_measurement(kspace, mask, ones), 0.0)
    kspace = kspace / np.float32(peak)
    if maps is not None:
        maps = _normalized(maps)
    elif len(kspace) == 1:
        maps = _phase(kspace, mask)
    else:
        maps = _calibrated(kspace, mask)
    image = np.sum(np.conj(maps) * host_ifft2c(kspace), axis=0)
    mean = np.sum(image * np.abs(image))
    if mean:
        kspace = kspace * np.complex64(np.conj(mean) / np.abs(mean))
    return Prepared(_measurement(kspace, mask, maps), peak)


def _measurement(kspace: np.ndarray, mask: np.ndarray, maps: np.ndarray) -> Measurement:
    arrays: Any = (kspace, np.ascontiguousarray(mask[None], np.float32), maps)
    return Measurement(*arrays)


def _normalized(maps: np.ndarray) -> np.ndarray:
    power = np.sum(np.real(maps) ** 2 + np.imag(maps) ** 2, axis=0)
    if not power.any():
        raise InputError("the coil maps are zero everywhere, expected those of this scan")
    # below, maps are noise: dividing by it would make signal of it
    inside = power > 1e-6 * power.max()
    return (maps * np.where(inside, 1 / np.sqrt(np.where(inside, power, 1)), 0)).astype(
        np.complex64)


def _phase(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Unit phasors `[1, y, x]` of the low-resolution image of one coil."""
    rows, columns = (min(int(n), LARGEST_BOX) for n in calibration_size(mask))
    columns = min(columns, rows * kspace.shape[2] // kspace.shape[1])
    if columns < KERNEL:
        return np.ones_like(kspace)
    phase = from_calibration(kspace, columns)
    return np.where(phase == 0, 1, phase)


def _calibrated(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows, columns = (min(int(n), LARGEST_BOX) for n in calibration_size(mask))
    if min(rows, columns) < KERNEL:
        raise InputError(f"the fully sampled center of k-space is {rows} x {columns}, expected at "
                         f"least {KERNEL} x {KERNEL} calibration lines to make coil maps of; give "
                         "the maps as a file (--maps=FILE)")
    return np.asarray(espirit(kspace, (rows, columns), crop=0).maps)
