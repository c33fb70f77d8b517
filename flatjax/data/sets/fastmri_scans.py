"""Which files of a folder of fastMRI's are taken, and with which slices and size of target."""

import sys
import warnings
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from flatjax.data.io.fastmri_files import Record, crop_shape
from flatjax.data.io.fastmri_index import index_folder
from flatjax.errors import InputError
from flatjax.mri.espirit import KERNEL

CHALLENGES = {"singlecoil": "reconstruction_esc", "multicoil": "reconstruction_rss"}
FOLDERS = {
    "train": ("{}_train", "train"),
    "validation": ("{}_val", "val", "validation"),
    "test": ("{}_test_full", "test"),
}


class Use(NamedTuple):
    """The options of `make` that say which files are taken and what becomes of them."""

    challenge: str
    combine: str
    calibration: float
    sensitivities: str
    virtual_coils: int
    slices: Sequence[int]
    acquisitions: Sequence[str]
    names: Sequence[str]
    cache: str
    skip_bad: bool


class FastmriScan(NamedTuple):
    """A file as it is used: its path, its record, the slices taken and the size of the target."""

    file: Path
    record: Record
    slices: range
    crop: tuple[int, int]


def find_folders(path: Path, challenge: str, given: dict[str, str]) -> dict[str, Path]:
    """The folders by their role; a role without a folder of its own is left out."""
    folders = {}
    for role, name in given.items():
        usual = [path / one.format(challenge) for one in FOLDERS[role]]
        found = [path / Path(name).expanduser()] if name else [one for one in usual if one.is_dir()]
        if found:
            folders[role] = found[0]
    if not folders:
        raise InputError(f"{path}: no such folder, or it holds neither {challenge}_train nor "
                         f"{challenge}_val; set data.path to the folder above them, or "
                         "data.train, data.validation and data.test to their names")
    return folders


def select_scans(folder: Path, role: str, use: Use) -> list[FastmriScan]:
    """The scans of a folder that are wanted and good, by name; what they are goes to stderr."""
    records, errors = index_folder(folder, use.cache, use.names)
    scans = []
    for record in records:
        if use.acquisitions and record.attributes.get("acquisition") not in use.acquisitions:
            continue
        try:
            scan = _scan(folder / record.name, record, role, use)
            scans += [scan] if scan.slices else []
        except InputError as error:
            errors[record.name] = f"{folder / record.name}: {error}"
    if errors and not use.skip_bad:
        more = f"; {len(errors) - 1} more files there are bad" if len(errors) > 1 else ""
        raise InputError(f"{next(iter(errors.values()))}{more}; or leave bad files out with "
                         "data.skip_bad=True")
    if errors:
        warnings.warn(f"{folder}: {len(errors)} files are bad and left out: "
                      f"{' | '.join(errors.values())}", stacklevel=3)
    if not scans and not use.names:
        known = {str(one.attributes.get("acquisition", "unknown")) for one in records}
        raise InputError(f"{folder}: nothing is left with acquisition_filter = "
                         f"{tuple(use.acquisitions)} and slices = {tuple(use.slices)}; expected "
                         f"some of {len(records)} good files with acquisitions "
                         f"{', '.join(sorted(known)) or 'none'}")
    shapes = "; ".join(f"{len(bucket)} slices of {' x '.join(map(str, shape))}, targets "
                       f"{' x '.join(map(str, crop))}"
                       for (shape, crop), bucket in by_shape(scans).items())
    print(f"fastmri {role}: {len(scans)} volumes in {folder}: {shapes or 'none of those named'}",
          file=sys.stderr)
    return scans


def _scan(file: Path, record: Record, role: str, use: Use) -> FastmriScan:
    """A file as the options want it, or an `InputError` that tells why it cannot be used."""
    multicoil = use.challenge == "multicoil"
    if len(record.kspace) != (4 if multicoil else 3):
        axes = "(slice, coil, ky, kx)" if multicoil else "(slice, ky, kx)"
        other = "singlecoil" if multicoil else "multicoil"
        raise InputError(f"kspace has shape {record.kspace}, expected {axes} with challenge "
                         f"{use.challenge!r}; set data.challenge={other}, or name another folder")
    if record.undersampled and role != "test":
        raise InputError(f"kspace is undersampled by the file's own mask, expected full k-space "
                         f"for {role}; name a folder of fully sampled files")
    if record.undersampled and multicoil and use.combine == "sense":
        raise InputError("kspace is undersampled by the file's own mask, so no SENSE-combined "
                         "target can be made of it; set combine to rss")
    columns = round(record.kspace[-1] * use.calibration)
    if multicoil and not 1 <= columns <= record.center:
        raise InputError(f"calibration = {use.calibration:g} takes {columns} central columns for "
                         f"the coil maps, expected from 1 to the {record.center} that are sampled "
                         "without a gap; change data.calibration")
    if multicoil and use.sensitivities == "espirit" and columns < KERNEL:
        raise InputError(f"calibration = {use.calibration:g} takes {columns} central columns, "
                         f"expected at least {KERNEL} for ESPIRiT; raise data.calibration, or set "
                         "data.sensitivities=low_resolution")
    if multicoil and use.virtual_coils > record.kspace[1]:
        raise InputError(f"kspace has {record.kspace[1]} coils, fewer than virtual_coils = "
                         f"{use.virtual_coils}; lower data.virtual_coils")
    every = range(record.kspace[0])
    return FastmriScan(file, record, every[slice(*use.slices)] if use.slices else every,
                       crop_shape(record, CHALLENGES[use.challenge]))


def take_part(scans: list[FastmriScan], fraction: float) -> list[FastmriScan]:
    """About that part of the scans, at least one, whatever else lies in the folder."""
    count = max(1, round(fraction * len(scans)))
    ranked = sorted(scans, key=lambda scan: sha256(scan.file.name.encode()).digest())
    return sorted(ranked[:count], key=lambda scan: scan.file.name)


def by_shape(scans: list[FastmriScan]) -> dict[tuple, list[tuple[FastmriScan, int]]]:
    """All `(scan, slice index)` by the shapes `(kspace, target)` that a batch must share."""
    buckets: dict[tuple, list[tuple[FastmriScan, int]]] = {}
    for scan in scans:
        bucket = buckets.setdefault((scan.record.kspace[1:], scan.crop), [])
        bucket.extend((scan, index) for index in scan.slices)
    return buckets
