"""fastMRI, knee and brain, single- and multi-coil: raw k-space in `.h5` files of a user's own.

Zbontar et al., "fastMRI: An Open Dataset and Benchmarks for Accelerated MRI" (arXiv 1811.08839);
the files come from fastmri.med.nyu.edu and may not be redistributed. In them readout runs along
the rows' axis and phase encoding along the last one, k-space is centered and orthonormal as
`mri.fourier` has it, and the reference is the cropped magnitude of its inverse transform:
`reconstruction_esc` for one emulated coil, `reconstruction_rss` for several.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from flatjax.data.acquisition import ends
from flatjax.data.base import DataSet, Lazy, Sample, Volume
from flatjax.data.io.fastmri_files import read_fastmri_slices
from flatjax.data.sets.fastmri_scans import (
    CHALLENGES,
    FastmriScan,
    Use,
    by_shape,
    find_folders,
    select_scans,
    take_part,
)
from flatjax.errors import InputError
from flatjax.mri.forward import COMBINES
from flatjax.mri.host.coil_compression import apply_coils, compression_matrix
from flatjax.mri.host.masks import plane_side
from flatjax.mri.host.sensitivities import ESTIMATES, from_columns
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import center_crop, central


def make(*, path: str = "", challenge: str = "singlecoil", combine: str = "sense",
         train: str = "", validation: str = "", test: str = "",
         acquisition_filter: Sequence[str] = (), volumes: Sequence[str] = (),
         fraction: float = 1.0, validation_fraction: float = 1.0, slices: Sequence[int] = (),
         calibration: float = 0.04, sensitivities: str = "low_resolution",
         virtual_coils: int = 0, cache: str = "", skip_bad: bool = False) -> DataSet:
    """The data set of a folder with fastMRI's own subfolders.

    The files' size differs: `draw` picks a shape, as often as slices have it, and then slices of
    that shape. A line on stderr tells what each folder holds. Checking the files takes a while the
    first time; then an index is kept. NaN and infinite values are found at indexing in the middle
    slice, elsewhere when they are read; all-zero slices are accepted, all-zero files are not.

    Where a file has a sampling mask of its own, that is the sample's; a target is NaN where a
    test file is undersampled and has no reference. Targets of volumes that are taller than wide
    are cropped square, as fastMRI scores them; in training they are not.

    Args:
        path: the folder that holds `singlecoil_train`, `singlecoil_val` and so on.
        challenge: "singlecoil", with unit maps, or "multicoil", with estimated coil
            maps.
        combine: how coils are combined for the target: "sense" for one coil
            (`reconstruction_esc`); for several "rss" (`reconstruction_rss`, by which fastMRI
            scores), or "sense": `|E^H k|` of the full k-space.
        train, validation, test: folders, if they have other names than `FOLDERS` has; relative to
            `path` or absolute. Without a test folder the validation volumes are tested, as
            papers do: fastMRI's own `*_test` files hold no reference.
        acquisition_filter: only volumes of these acquisitions, as `("CORPD_FBK",)`; all if empty.
        volumes: only these files, by name; all if empty.
        fraction: part of the training volumes that is used; a smaller one is a part of a larger.
        validation_fraction: part of the validation volumes that is used while training.
        slices: `(start, stop)` within each volume, as Python slices; all if empty. Scores on
            fewer slices are not fastMRI's.
        calibration: part of the columns, central ones, that coil maps are made from: at most the
            `center_fraction` of the masks, for only measured samples may be used.
        sensitivities: how they are made, "low_resolution" or "espirit", see
            `mri.host.sensitivities.from_columns`.
        virtual_coils: number of coils to compress each slice's to, by principal components of the
            same columns; 0 leaves them as they are. References of files show all coils.
        cache: folder for the index of each folder of files, by default the one above that.
        skip_bad: leave bad files out, with a warning, instead of refusing the folder.

    Returns:
        a `DataSet`; its volumes are named as their files, extension and all, since fastMRI seeds
        masks with that. Without a training folder `draw` raises `InputError`.

    Raises:
        InputError: an option out of range; a folder or file that is missing, empty, damaged or
            not of this format, by name, with the field.
    """
    names = [name if name.endswith(".h5") else f"{name}.h5" for name in _names("volumes", volumes)]
    use = Use(challenge, combine, calibration, sensitivities, virtual_coils, slices,
              _names("acquisition_filter", acquisition_filter), names, cache, skip_bad)
    _check_options(path, use, fraction=fraction, validation_fraction=validation_fraction)
    folders = find_folders(Path(path).expanduser(), challenge,
                           {"train": train, "validation": validation, "test": test})
    scans = {role: select_scans(folder, role, use) for role, folder in folders.items()}
    missing = set(names) - {scan.file.name for found in scans.values() for scan in found}
    if missing:
        raise InputError(f"volumes: {', '.join(sorted(missing))} not found in "
                         f"{', '.join(map(str, folders.values()))} (or filtered out); give file "
                         "names as ('file1000000.h5',)")
    scored = "test" if scans.get("test") else "validation"
    if not scans.get(scored):
        raise InputError(f"{path}: no volume to validate or test on, expected a folder "
                         f"{challenge}_val with some; set data.validation or data.test")
    training = take_part(scans.get("train", []), fraction)
    return DataSet(
        _make_draw(training, use) if training else _draw_nothing(path, challenge),
        _volumes(take_part(scans.get("validation", []), validation_fraction), use),
        {scored: _volumes(scans[scored], use)})


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


def _names(option: str, values: Sequence[str]) -> Sequence[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{option} is {values!r}, expected a list of names as ('a', 'b')")
    return values


def _check_options(path: str, use: Use, **fractions: float) -> None:
    if not path:
        raise InputError("the data set fastmri has no path: set data.path to the folder that "
                         "holds singlecoil_train, singlecoil_val and so on")
    for name, choices in (("challenge", CHALLENGES), ("combine", COMBINES),
                          ("sensitivities", ESTIMATES)):
        if getattr(use, name) not in choices:
            raise InputError(f"{name} is {getattr(use, name)!r}, expected one of "
                             f"{', '.join(choices)}")
    if use.challenge == "singlecoil" and use.combine == "rss":
        raise InputError("combine is 'rss', expected 'sense' with challenge 'singlecoil': the "
                         "reconstruction_rss of its files shows all coils, which one coil cannot "
                         "be scored against")
    if not (isinstance(use.virtual_coils, int) and use.virtual_coils >= 0):
        raise InputError(f"virtual_coils is {use.virtual_coils!r}, expected a whole number, 0 for "
                         "all coils as they are")
    for name, value in (fractions | {"calibration": use.calibration}).items():
        if not 0 < value <= 1:
            raise InputError(f"{name} is {value!r}, expected above 0 and at most 1")
    if len(use.slices) not in (0, 2) or not all(isinstance(value, int) for value in use.slices):
        raise InputError(f"slices is {use.slices!r}, expected two whole numbers (start, stop), or "
                         "() for all")


def _make_draw(scans: list[FastmriScan], use: Use) -> Callable[[Generator, int], Sequence[Sample]]:
    buckets = list(by_shape(scans).values())
    ends = np.cumsum([len(bucket) for bucket in buckets])

    def draw(rng: Generator, n: int) -> Sequence[Sample]:
        bucket = buckets[np.searchsorted(ends, rng.integers(ends[-1]), side="right")]
        picked = [bucket[i] for i in rng.integers(len(bucket), size=n)]
        return Lazy([partial(_read_one, scan, index, use) for scan, index in picked])

    return draw


def _read_one(scan: FastmriScan, index: int, use: Use) -> Sample:
    return _read(scan, [index], use)[0]


def _draw_nothing(path: str, challenge: str) -> Callable[[Generator, int], list[Sample]]:
    def draw(rng: Generator, n: int) -> list[Sample]:
        raise InputError(f"{path}: holds no training volumes, expected a folder "
                         f"{challenge}_train; set data.train")

    return draw


def _volumes(scans: list[FastmriScan], use: Use) -> list[Volume]:
    return [Volume(scan.file.name, partial(_read, scan, scan.slices, use, square=True))
            for scan in scans]


def _read(scan: FastmriScan, indices: Sequence[int], use: Use,
          square: bool = False) -> list[Sample]:
    """Samples of some slices; with `square`, targets taller than wide are cropped."""
    height, width = scan.crop
    crop = (min(height, width), width) if square else scan.crop
    multicoil = use.challenge == "multicoil"
    columns = round(scan.record.kspace[-1] * use.calibration)
    samples = []
    for one in read_fastmri_slices(scan.file, scan.record, indices, CHALLENGES[use.challenge]):
        if multicoil and use.virtual_coils:
            ky, kx = one.kspace.shape[-2:]
            center = one.kspace[..., central(ky, plane_side(ky, use.calibration)),
                                central(kx, columns)]
            matrix = compression_matrix(center, use.virtual_coils)
            one = one._replace(kspace=apply_coils(matrix, one.kspace))
        maps = (from_columns(one.kspace, columns, use.sensitivities) if multicoil else
                np.ones_like(one.kspace))
        if one.reference is not None and not (multicoil and use.combine == "sense"):
            target = center_crop(one.reference, crop)
        elif scan.record.undersampled:
            target = np.full(crop, np.nan, np.float32)
        else:
            target = center_crop(_combined(one.kspace, maps, use.combine), crop)
        sample = Sample(one.kspace, maps, np.ascontiguousarray(target), scan.record.padding)
        samples.append(sample if one.mask is None else sample._replace(mask=one.mask))
    return samples


def _combined(kspace: np.ndarray, maps: np.ndarray, combine: str) -> np.ndarray:
    """Magnitude `[y, x]` float32 of full k-space, host twin of `mri.forward.combine`."""
    images = host_ifft2c(kspace)
    if combine == "sense":
        return np.abs(np.sum(np.conj(maps) * images, axis=0))
    return np.sqrt(np.sum(np.real(images) ** 2 + np.imag(images) ** 2, axis=0))
