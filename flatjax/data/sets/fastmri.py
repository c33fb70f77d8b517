"""fastMRI, knee and brain, single- and multi-coil: raw k-space in `.h5` files of a user's own.

Zbontar et al., "fastMRI: An Open Dataset and Benchmarks for Accelerated MRI" (arXiv 1811.08839);
the files come from fastmri.med.nyu.edu and may not be redistributed. In them readout runs along
the rows' axis and phase encoding along the last one, k-space is centered and orthonormal as
`mri.fft2c` has it, and the reference is the cropped magnitude of its inverse transform:
`reconstruction_esc` for one emulated coil, `reconstruction_rss` for several.
"""

import inspect
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from flatjax.data.acquisition import ends
from flatjax.data.base import DataSet, Lazy, Sample, Volume, grouped, pick
from flatjax.data.io.fastmri import Record, index_folder, read_fastmri_slices
from flatjax.data.slices import check_names
from flatjax.data.subjects import check_bad
from flatjax.errors import InputError, check_at_least, check_choice
from flatjax.mri.espirit import KERNEL
from flatjax.mri.forward import COMBINES
from flatjax.mri.host.coil_compression import apply_coils, compression_matrix
from flatjax.mri.host.masks import plane_side
from flatjax.mri.host.sensitivities import ESTIMATES, from_columns
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import center_crop, central

CHALLENGES = {"singlecoil": "reconstruction_esc", "multicoil": "reconstruction_rss"}
FOLDERS = {"train": ("{}_train", "train"), "validation": ("{}_val", "val", "validation"),
           "test": ("{}_test_full", "test")}


class Options(NamedTuple):
    """The options of the data set.

    Attributes:
        path: the folder that holds `singlecoil_train`, `singlecoil_val` and so on.
        challenge: "singlecoil", with unit maps, or "multicoil", with estimated coil maps.
        combine: how coils are combined for the target: "sense" for one coil
            (`reconstruction_esc`); for several "rss" (`reconstruction_rss`, by which fastMRI
            scores), or "sense": `|E^H k|` of the full k-space.
        train, validation, test: folders, if they have other names than `FOLDERS` has; relative to
            `path` or absolute. Without a test folder the validation volumes are tested, as
            papers do: fastMRI's own `*_test` files hold no reference.
        acquisition_filter: only volumes of these acquisitions, as `("CORPD_FBK",)`; all if empty.
        volumes: only these files, by name; all if empty.
        fraction, validation_fraction: part of the volumes that is used for training, and for
            validation while training; a smaller one is a part of a larger.
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
    """

    path: str = ""
    challenge: str = "singlecoil"
    combine: str = "sense"
    train: str = ""
    validation: str = ""
    test: str = ""
    acquisition_filter: Sequence[str] = ()
    volumes: Sequence[str] = ()
    fraction: float = 1.0
    validation_fraction: float = 1.0
    slices: Sequence[int] = ()
    calibration: float = 0.04
    sensitivities: str = "low_resolution"
    virtual_coils: int = 0
    cache: str = ""
    skip_bad: bool = False


class FastmriScan(NamedTuple):
    """A file and the slices of it that are taken."""

    file: Path
    record: Record
    slices: range


def make(**options: Any) -> DataSet:
    """The data set of a folder with fastMRI's own subfolders; see `Options`.

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
    _check_options(use)
    scans = _find_scans(use)
    scored = "test" if scans["test"] else "validation"
    if not scans[scored]:
        raise InputError(f"{use.path}: no volume to validate or test on, expected a folder "
                         f"{use.challenge}_val with some; set data.validation or data.test")
    buckets = [*_by_shape(_part(scans["train"], use.fraction)).values()]

    def draw(rng: Generator, n: int) -> Sequence[Sample]:
        if not buckets:
            raise InputError(f"{use.path}: holds no training volumes, expected a folder "
                             f"{use.challenge}_train; set data.train")
        return Lazy(lambda one: _read(one[0], [one[1]], use)[0], pick(buckets, rng, n))

    def volumes(found: list[FastmriScan]) -> list[Volume]:
        return [Volume(scan.file.name, partial(_read, scan, scan.slices, use, square=True))
                for scan in found]

    return DataSet(draw, volumes(_part(scans["validation"], use.validation_fraction)),
                   {scored: volumes(scans[scored])})


make.__signature__ = inspect.signature(Options)  # pyright: ignore[reportFunctionMemberAccess]


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a config by which coil maps would be made of samples that are not measured.

    Raises:
        InputError: before any file is read.
    """
    data, center = config["data"], ends(config["acquisition"]["center_fraction"])[0]
    if data["challenge"] == "multicoil" and data["calibration"] > center:
        raise InputError(f"data.calibration is {data['calibration']}, expected at most "
                         f"acquisition.center_fraction = {center}: coil maps are made from the "
                         "fully sampled center")


def _check_options(use: Options) -> None:
    """Refuse options that are out of range or contradict each other, before any file is read."""
    if not use.path:
        raise InputError("the data set fastmri has no path: set data.path to the folder that "
                         "holds singlecoil_train, singlecoil_val and so on")
    check_choice("challenge", use.challenge, CHALLENGES)
    check_choice("combine", use.combine, COMBINES)
    check_choice("sensitivities", use.sensitivities, ESTIMATES)
    for name in ("volumes", "acquisition_filter"):
        check_names(name, getattr(use, name))
    check_at_least(0, virtual_coils=use.virtual_coils)
    if use.challenge == "singlecoil" and use.combine == "rss":
        raise InputError("combine is 'rss', expected 'sense' with challenge 'singlecoil': the "
                         "reconstruction_rss of its files shows all coils")
    for name in ("fraction", "validation_fraction", "calibration"):
        if not 0 < getattr(use, name) <= 1:
            raise InputError(f"{name} is {getattr(use, name)!r}, expected above 0 and at most 1")
    if len(use.slices) not in (0, 2) or not all(isinstance(value, int) for value in use.slices):
        raise InputError(f"slices is {use.slices!r}, expected two whole numbers (start, stop), or "
                         "() for all")


def _find_scans(use: Options) -> dict[str, list[FastmriScan]]:
    """The scans that are wanted and good, by role and name; none where there is no folder."""
    path = Path(use.path).expanduser()
    names = [f"{name.removesuffix('.h5')}.h5" for name in use.volumes]
    folders = {}
    for role, usual in FOLDERS.items():
        given = getattr(use, role)
        there = [one for name in usual if (one := path / name.format(use.challenge)).is_dir()]
        if given or there:
            folders[role] = path / Path(given).expanduser() if given else there[0]
    if not folders:
        raise InputError(f"{path}: no such folder, or it holds neither {use.challenge}_train nor "
                         f"{use.challenge}_val; set data.path to the folder above them, or "
                         "data.train, data.validation and data.test to their names")
    scans = {role: _select(folders[role], role, names, use) if role in folders else []
             for role in FOLDERS}
    missing = {*names} - {scan.file.name for found in scans.values() for scan in found}
    if missing:
        raise InputError(f"volumes: {', '.join(sorted(missing))} not found in {path} (or filtered "
                         "out); give file names as ('file1000000.h5',)")
    return scans


def _select(folder: Path, role: str, names: Sequence[str], use: Options) -> list[FastmriScan]:
    """The scans of a folder that are wanted and good; what they are goes to stderr."""
    records, errors = index_folder(folder, use.cache, names)
    scans = []
    for record in records:
        wanted = use.acquisition_filter
        if wanted and record.attributes.get("acquisition") not in wanted:
            continue
        file, slices = folder / record.name, range(record.kspace[0])[slice(*use.slices or (None,))]
        if wrong := _misfit(record, role, use):
            errors[record.name] = f"{file}: {wrong}"
        elif slices:
            scans.append(FastmriScan(file, record, slices))
    check_bad(folder, [*errors.values()], use.skip_bad)
    if not scans and not names:
        known = sorted({one.attributes.get("acquisition", "unknown") for one in records})
        raise InputError(f"{folder}: nothing is left of {len(records)} good files of acquisitions "
                         f"{', '.join(known) or 'none'} by acquisition_filter = "
                         f"{tuple(use.acquisition_filter)} and slices = {tuple(use.slices)}")
    sizes = "; ".join(f"{len(bucket)} slices of {' x '.join(map(str, shape))}"
                      for (shape, _), bucket in _by_shape(scans).items())
    print(f"fastmri {role}: {len(scans)} volumes in {folder}: {sizes or 'none of those named'}",
          file=sys.stderr)
    return scans


def _misfit(record: Record, role: str, use: Options) -> str:
    """Why a file cannot be used as the options want it, "" if it can."""
    multicoil = use.challenge == "multicoil"
    axes = "(slice, coil, ky, kx)" if multicoil else "(slice, ky, kx)"
    columns = round(record.kspace[-1] * use.calibration)
    taken = f"calibration = {use.calibration:g} takes {columns} central columns"
    hidden = "kspace is undersampled by the file's own mask"
    reasons = (
        (len(record.kspace) != (4 if multicoil else 3),
         f"kspace has shape {record.kspace}, expected {axes} with challenge "
         f"{use.challenge!r}; set data.challenge, or name another folder"),
        (record.undersampled and role != "test",
         f"{hidden}, expected full k-space for {role}; name a folder of fully sampled files"),
        (multicoil and record.undersampled and use.combine == "sense",
         f"{hidden}, so no SENSE-combined target can be made of it; set combine to rss"),
        (multicoil and not 1 <= columns <= record.center,
         f"{taken} for the coil maps, expected from 1 to the {record.center} that are sampled "
         "without a gap; change data.calibration"),
        (multicoil and use.sensitivities == "espirit" and columns < KERNEL,
         f"{taken}, expected at least {KERNEL} for ESPIRiT; raise data.calibration, or set "
         "data.sensitivities=low_resolution"),
        (multicoil and use.virtual_coils > record.kspace[1],
         f"kspace has {record.kspace[1]} coils, fewer than virtual_coils = "
         f"{use.virtual_coils}; lower data.virtual_coils"))
    return next((reason for wrong, reason in reasons if wrong), "")


def _part(scans: list[FastmriScan], fraction: float) -> list[FastmriScan]:
    """About that part of the scans, at least one, whatever else lies in the folder."""
    count = max(1, round(fraction * len(scans)))
    ranked = sorted(scans, key=lambda scan: sha256(bytes(Path(scan.file.name))).digest())
    return sorted(ranked[:count], key=lambda scan: scan.file.name)


def _by_shape(scans: list[FastmriScan]) -> dict[tuple, list[tuple[FastmriScan, int]]]:
    """All `(scan, slice index)` by the shapes `(kspace, target)` that a batch must share."""
    return grouped(((scan.record.kspace[1:], scan.record.crop), (scan, index))
                   for scan in scans for index in scan.slices)


def _read(scan: FastmriScan, indices: Sequence[int], use: Options,
          square: bool = False) -> list[Sample]:
    """Samples of some slices; with `square`, targets taller than wide are cropped."""
    record = scan.record
    height, width = record.crop
    crop = (min(height, width) if square else height), width
    multicoil = use.challenge == "multicoil"
    ky, kx = record.kspace[-2:]
    columns = round(kx * use.calibration)
    samples = []
    for kspace, reference in read_fastmri_slices(scan.file, record, indices,
                                                 CHALLENGES[use.challenge]):
        maps = np.ones_like(kspace)
        if multicoil:
            if use.virtual_coils:
                rows = central(ky, plane_side(ky, use.calibration))  # which plane masks sample, too
                box = kspace[..., rows, central(kx, columns)]
                kspace = apply_coils(compression_matrix(box, use.virtual_coils), kspace)
            maps = from_columns(kspace, columns, use.sensitivities)
        if reference is None and record.undersampled:
            reference = np.full(crop, np.nan, np.float32)
        elif reference is None or (multicoil and use.combine == "sense"):
            reference = _combined(kspace, maps, use.combine)
        target = np.ascontiguousarray(center_crop(reference, crop))
        samples.append(Sample(kspace, maps, target, record.padding, record.own_mask()))
    return samples


def _combined(kspace: np.ndarray, maps: np.ndarray, combine: str) -> np.ndarray:
    """Magnitude `[y, x]` float32 of full k-space: `mri.forward.combine` on the host."""
    images = host_ifft2c(kspace)
    if combine == "sense":
        return np.abs(np.sum(np.conj(maps) * images, axis=0))
    return np.sqrt(np.sum(np.real(images) ** 2 + np.imag(images) ** 2, axis=0))
