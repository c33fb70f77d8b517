"""fastMRI, knee and brain, single- and multi-coil: raw k-space in `.h5` files of a user's own.

Zbontar et al., "fastMRI: An Open Dataset and Benchmarks for Accelerated MRI" (arXiv 1811.08839);
the files come from fastmri.med.nyu.edu and may not be redistributed. In them readout runs along
the rows' axis and phase encoding along the last one, k-space is centered and orthonormal as
`mri.fft2c` has it, and the reference is the cropped magnitude of its inverse transform:
`reconstruction_esc` for one emulated coil, `reconstruction_rss` for several.
"""

import inspect
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.random import Generator

from flatjax.data.acquisition import ends
from flatjax.data.base import DataSet, Lazy, Sample, Volume, no_draw, pick
from flatjax.data.io.fastmri_files import read_fastmri_slices
from flatjax.data.sets.fastmri_scans import (
    CHALLENGES,
    FastmriScan,
    Options,
    by_shape,
    check_options,
    find_scans,
    take_part,
)
from flatjax.errors import InputError
from flatjax.mri.host.coil_compression import apply_coils, compression_matrix
from flatjax.mri.host.masks import plane_side
from flatjax.mri.host.sensitivities import from_columns
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import center_crop, central


def make(**options: Any) -> DataSet:
    """The data set of a folder with fastMRI's own subfolders; see `fastmri_scans.Options`.

    The files' size differs: `draw` picks a shape, as often as slices have it, and then slices of
    that shape. A line on stderr tells what each folder holds. Checking the files takes a while the
    first time; then an index is kept. NaN and infinite values are found at indexing in the middle
    slice, elsewhere when they are read; all-zero slices are accepted, all-zero files are not.

    Where a file has a sampling mask of its own, that is the sample's; a target is NaN where a
    test file is undersampled and has no reference. Targets of volumes that are taller than wide
    are cropped square, as fastMRI scores them; in training they are not.

    Returns:
        a `DataSet`; its volumes are named as their files, extension and all, since fastMRI seeds
        masks with that. Without a training folder `draw` raises `InputError`.

    Raises:
        InputError: an option out of range; a folder or file that is missing, empty, damaged or
            not of this format, by name, with the field.
    """
    use = Options(**options)
    check_options(use)
    scans = find_scans(use)
    scored = "test" if scans["test"] else "validation"
    if not scans[scored]:
        raise InputError(f"{use.path}: no volume to validate or test on, expected a folder "
                         f"{use.challenge}_val with some; set data.validation or data.test")
    buckets = [*by_shape(take_part(scans["train"], use.fraction)).values()]

    def draw(rng: Generator, n: int) -> Sequence[Sample]:
        return Lazy([partial(_read_one, *picked, use) for picked in pick(buckets, rng, n)])

    nothing = no_draw(f"{use.path}: holds no training volumes, expected a folder "
                      f"{use.challenge}_train; set data.train")
    validated = take_part(scans["validation"], use.validation_fraction)
    return DataSet(draw if buckets else nothing, _volumes(validated, use),
                   {scored: _volumes(scans[scored], use)})


make.__signature__ = inspect.signature(Options)  # pyright: ignore[reportFunctionMemberAccess]


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a config whose other parts do not suit its section `data`, before any file is read.

    Args:
        config: with the sections `data` and `acquisition`.

    Raises:
        InputError: coil maps would be made of samples that are not measured.
    """
    data, center = config["data"], ends(config["acquisition"]["center_fraction"])[0]
    if data["challenge"] == "multicoil" and data["calibration"] > center:
        raise InputError(f"data.calibration is {data['calibration']}, expected at most "
                         f"acquisition.center_fraction = {center}: coil maps are made from the "
                         "fully sampled center")


def _volumes(scans: list[FastmriScan], use: Options) -> list[Volume]:
    return [Volume(scan.file.name, partial(_read, scan, scan.slices, use, square=True))
            for scan in scans]


def _read_one(scan: FastmriScan, index: int, use: Options) -> Sample:
    return _read(scan, [index], use)[0]


def _read(scan: FastmriScan, indices: Sequence[int], use: Options,
          square: bool = False) -> list[Sample]:
    """Samples of some slices; with `square`, targets taller than wide are cropped."""
    height, width = scan.crop
    crop = (min(height, width), width) if square else scan.crop
    multicoil = use.challenge == "multicoil"
    columns = round(scan.record.kspace[-1] * use.calibration)
    samples = []
    for kspace, reference, mask in read_fastmri_slices(scan.file, scan.record, indices,
                                                       CHALLENGES[use.challenge]):
        maps = np.ones_like(kspace)
        if multicoil:
            if use.virtual_coils:
                kspace = _compressed(kspace, columns, use)
            maps = from_columns(kspace, columns, use.sensitivities)
        if reference is None and scan.record.undersampled:
            reference = np.full(crop, np.nan, np.float32)
        elif reference is None or (multicoil and use.combine == "sense"):
            reference = _combined(kspace, maps, use.combine)
        target = np.ascontiguousarray(center_crop(reference, crop))
        samples.append(Sample(kspace, maps, target, scan.record.padding, mask))
    return samples


def _compressed(kspace: np.ndarray, columns: int, use: Options) -> np.ndarray:
    """Virtual coils, from the columns of the calibration and the rows that plane masks sample."""
    ky, kx = kspace.shape[-2:]
    rows = central(ky, plane_side(ky, use.calibration))
    matrix = compression_matrix(kspace[..., rows, central(kx, columns)], use.virtual_coils)
    return apply_coils(matrix, kspace)


def _combined(kspace: np.ndarray, maps: np.ndarray, combine: str) -> np.ndarray:
    """Magnitude `[y, x]` float32 of full k-space, host twin of `mri.forward.combine`."""
    images = host_ifft2c(kspace)
    if combine == "sense":
        return np.abs(np.sum(np.conj(maps) * images, axis=0))
    return np.sqrt(np.sum(np.real(images) ** 2 + np.imag(images) ** 2, axis=0))
