"""Which files of a folder of fastMRI's are taken, and with which slices and size of target."""

import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from flatjax.data.base import grouped
from flatjax.data.io.fastmri_files import Record, crop_shape
from flatjax.data.io.fastmri_index import index_folder
from flatjax.data.slices import check_names
from flatjax.data.subjects import check_bad
from flatjax.errors import InputError, check_at_least, check_choice
from flatjax.mri.espirit import KERNEL
from flatjax.mri.forward import COMBINES
from flatjax.mri.host.sensitivities import ESTIMATES

CHALLENGES = {"singlecoil": "reconstruction_esc", "multicoil": "reconstruction_rss"}
FOLDERS = {
    "train": ("{}_train", "train"),
    "validation": ("{}_val", "val", "validation"),
    "test": ("{}_test_full", "test"),
}


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
    """A file as it is used: its path, its record, the slices taken and the size of the target."""

    file: Path
    record: Record
    slices: range
    crop: tuple[int, int]


def check_options(use: Options) -> None:
    """Refuse options that are out of range or contradict each other, before any file is read."""
    if not use.path:
        raise InputError("the data set fastmri has no path: set data.path to the folder that "
                         "holds singlecoil_train, singlecoil_val and so on")
    check_choice("challenge", use.challenge, CHALLENGES)
    check_choice("combine", use.combine, COMBINES)
    check_choice("sensitivities", use.sensitivities, ESTIMATES)
    check_names("volumes", use.volumes)
    check_names("acquisition_filter", use.acquisition_filter)
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


def find_scans(use: Options) -> dict[str, list[FastmriScan]]:
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
        try:
            _check_record(record, role, use)
            crop = crop_shape(record, CHALLENGES[use.challenge])
        except InputError as error:
            errors[record.name] = f"{folder / record.name}: {error}"
            continue
        slices = range(record.kspace[0])[slice(*(use.slices or (None,)))]
        scans += [FastmriScan(folder / record.name, record, slices, crop)] if slices else []
    check_bad(folder, [*errors.values()], use.skip_bad)
    if not scans and not names:
        known = sorted({str(one.attributes.get("acquisition", "unknown")) for one in records})
        raise InputError(f"{folder}: nothing is left of {len(records)} good files of acquisitions "
                         f"{', '.join(known) or 'none'} by acquisition_filter = "
                         f"{tuple(use.acquisition_filter)} and slices = {tuple(use.slices)}")
    sizes = "; ".join(f"{len(bucket)} slices of {' x '.join(map(str, shape))}"
                      for (shape, _), bucket in by_shape(scans).items())
    print(f"fastmri {role}: {len(scans)} volumes in {folder}: {sizes or 'none of those named'}",
          file=sys.stderr)
    return scans


def _check_record(record: Record, role: str, use: Options) -> None:
    """Refuse a file that cannot be used as the options want it."""
    multicoil = use.challenge == "multicoil"
    axes = "(slice, coil, ky, kx)" if multicoil else "(slice, ky, kx)"
    columns = round(record.kspace[-1] * use.calibration)
    taken = f"calibration = {use.calibration:g} takes {columns} central columns"
    hidden = "kspace is undersampled by the file's own mask"
    for wrong, message in (
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
             f"{use.virtual_coils}; lower data.virtual_coils")):
        if wrong:
            raise InputError(message)


def take_part(scans: list[FastmriScan], fraction: float) -> list[FastmriScan]:
    """About that part of the scans, at least one, whatever else lies in the folder."""
    count = max(1, round(fraction * len(scans)))
    ranked = sorted(scans, key=lambda scan: sha256(bytes(Path(scan.file.name))).digest())
    return sorted(ranked[:count], key=lambda scan: scan.file.name)


def by_shape(scans: list[FastmriScan]) -> dict[tuple, list[tuple[FastmriScan, int]]]:
    """All `(scan, slice index)` by the shapes `(kspace, target)` that a batch must share."""
    return grouped(((scan.record.kspace[1:], scan.crop), (scan, index))
                   for scan in scans for index in scan.slices)
