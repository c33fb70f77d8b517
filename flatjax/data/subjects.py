"""Data sets of several subjects: split by subject, their slices prepared once and kept on disk.

Slices of one person show the same anatomy, so no person is ever in two parts of a split.
"""

import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from flatjax.data.base import DataSet, Sample
from flatjax.data.io.volumes.common import Spacing
from flatjax.data.slices import (
    ORIENTATIONS,
    check_grid,
    display_slices,
    draw_sample,
    fixed_volume,
    usable_slices,
)
from flatjax.data.splits import ROLES, split_subjects
from flatjax.errors import InputError
from flatjax.files import make_folder, write_atomically
from flatjax.mri.host.masks import seed_from_name

CACHE_NAME = ".flatjax-{}"  # beside the folder of the files
_VERSION = 1  # of what is kept: counted up whenever the same file would be prepared otherwise


class SubjectVolume(NamedTuple):
    """A volume of a subject.

    Attributes:
        subject: whose it is.
        name: unique in its data set and usable as a file name.
        files: that it is made of.
        recipe: what else it depends on.
        load: gives `(volume, spacing)`: magnitudes `[x, y, z]` float32 with maximum 1 toward
            right, anterior and superior, and the size of a voxel in mm.
    """

    subject: str
    name: str
    files: Sequence[Path]
    recipe: str
    load: Callable[[], tuple[np.ndarray, Spacing]]


class Kept(NamedTuple):
    """The prepared slices of a scan: a `.npy` file `[slice, y, x]` float32, and its shape."""

    scan: SubjectVolume
    file: Path
    shape: tuple[int, int, int]

    def slices(self) -> np.ndarray:
        """The slices, mapped into memory."""
        return np.load(self.file, mmap_mode="r", allow_pickle=False)


def make_dataset(kind: str, folder: Path, scans: Sequence[SubjectVolume], *, matrix: int,
                 coils: int, orientation: str, split: bool, split_seed: int,
                 validation: Sequence[str], test: Sequence[str], validation_share: float,
                 test_share: float, cache: str, skip_bad: bool) -> DataSet:
    """The data set of some scans.

    Their slices with tissue are prepared before anything else, so that a bad file is known at
    once, and kept as `.npy` files which later starts map into memory. A line on stderr tells who
    has which role. A batch has slices of one shape.

    Args:
        kind: of data set, for messages.
        folder: that the scans come from.
        scans: with names that differ.
        matrix: pixels along each side of a square field of view as wide as the longer side of a
            slice; 0 for the files' own grids.
        coils: simulated birdcage coils.
        orientation: one of `ORIENTATIONS`.
        split: whether subjects are split by `split_subjects`; otherwise all are tested.
        split_seed, validation, test, validation_share, test_share: of the split.
        cache: folder for the prepared slices, "" for one beside `folder`.
        skip_bad: leave bad scans out, with a warning, instead of refusing them all.

    Returns:
        a `DataSet` whose `split` may be replaced by that of an earlier run.

    Raises:
        InputError: an option out of range, a bad scan, or too few subjects.
    """
    check_grid(matrix, coils, native=True)
    if orientation not in ORIENTATIONS:
        raise InputError(f"orientation is {orientation!r}, expected one of "
                         f"{', '.join(ORIENTATIONS)}")
    kept = _prepare(folder, scans, matrix, orientation, cache, skip_bad)
    subjects = sorted({one.scan.subject for one in kept})
    roles = split_subjects(
        subjects, validation=validation, test=test, validation_share=validation_share,
        test_share=test_share, seed=split_seed) if split else {
            "train": [], "validation": [], "test": subjects}
    mirrored = orientation != "sagittal"
    test_name = "held_out" if split else "all"

    def build(roles: Mapping[str, Sequence[str]]) -> DataSet:
        parts = {role: [one for one in kept if one.scan.subject in names]
                 for role, names in roles.items()}
        missing = sorted({name for names in roles.values() for name in names} - set(subjects))
        if set(missing) & {*roles["validation"], *roles["test"]}:
            raise InputError(f"{folder}: {', '.join(missing)} of the run's split not found; put "
                             "the same files there, or name another workdir")
        _tell(kind, parts)
        volumes = {role: [fixed_volume(one.scan.name, one.slices, coils,
                                       seed_from_name(one.scan.name)) for one in parts[role]]
                   for role in ("validation", "test")}
        return DataSet(_make_draw(folder, parts["train"], missing, coils, mirrored),
                       volumes["validation"], {test_name: volumes["test"]},
                       {role: list(roles[role]) for role in ROLES}, build)

    return build(roles)


def _tell(kind: str, parts: Mapping[str, Sequence[Kept]]) -> None:
    for role in ROLES:
        found = parts[role]
        names = sorted({one.scan.subject for one in found})
        some = ", ".join(names if len(names) <= 8 else [*names[:7], "..."])
        slices = "; ".join(
            f"{sum(one.shape[0] for one in found if one.shape[1:] == shape)} slices of "
            f"{shape[0]} x {shape[1]}" for shape in sorted({one.shape[1:] for one in found}))
        if found:
            print(f"{kind} {role}: {len(names)} subjects ({some}), {len(found)} volumes: {slices}",
                  file=sys.stderr)


def _prepare(folder: Path, scans: Sequence[SubjectVolume], matrix: int, orientation: str,
             cache: str, skip_bad: bool) -> list[Kept]:
    place = Path(cache).expanduser() if cache else (
        folder.resolve().parent / CACHE_NAME.format(folder.resolve().name))
    try:
        place = make_folder(place)
    except InputError as error:
        raise InputError(f"{error}; slices are kept there: set data.cache") from error
    kept, errors = [], []
    for scan in tqdm(scans, desc=f"prepare {folder.name}", unit="volume", delay=2):
        try:
            kept.append(_prepare_one(scan, place, matrix, orientation))
        except InputError as error:
            errors.append(str(error))
    if errors and not (skip_bad and kept):
        more = f"; {len(errors) - 1} more volumes there are bad" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}; or leave bad files out with data.skip_bad=True")
    if errors:
        warnings.warn(f"{folder}: {len(errors)} volumes are bad and left out: "
                      f"{' | '.join(errors)}", stacklevel=3)
    return kept


def _prepare_one(scan: SubjectVolume, place: Path, matrix: int, orientation: str) -> Kept:
    try:
        stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
                 for file in scan.files]
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror}); check its "
                         "permissions") from error
    key = sha256(repr((_VERSION, stats, scan.recipe, matrix, orientation)).encode()).hexdigest()
    file = place / f"{key[:24]}.npy"
    try:
        shape = np.load(file, mmap_mode="r", allow_pickle=False).shape
        if len(shape) == 3 and math.prod(shape):
            return Kept(scan, file, shape)
    except (OSError, ValueError, EOFError):
        pass  # none, or a damaged one: it is made again
    volume, spacing = scan.load()
    slices, spacing = display_slices(volume, spacing, orientation)
    images = np.ascontiguousarray(usable_slices(slices, spacing, matrix), np.float32)
    write_atomically(file, partial(_save, images))
    return Kept(scan, file, images.shape)


def _save(images: np.ndarray, file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, images, allow_pickle=False)


def _make_draw(folder: Path, kept: Sequence[Kept], missing: Sequence[str], coils: int,
               mirrored: bool) -> Callable[[Generator, int], list[Sample]]:
    buckets: dict[tuple[int, ...], list[tuple[Kept, int]]] = {}
    for one in kept:
        bucket = buckets.setdefault(one.shape[1:], [])
        bucket.extend((one, index) for index in range(one.shape[0]))
    every = list(buckets.values())
    ends = np.cumsum([len(bucket) for bucket in every])

    def draw(rng: Generator, n: int) -> list[Sample]:
        if missing:
            raise InputError(f"{folder}: {', '.join(missing)} of the run's split not found; put "
                             "the same files there, or name another workdir")
        if not every:
            raise InputError(f"{folder}: with split=False every subject is for testing; set "
                             "split=True to train on some")
        bucket = every[np.searchsorted(ends, rng.integers(ends[-1]), side="right")]
        picked = [bucket[i] for i in rng.integers(len(bucket), size=n)]
        return [draw_sample(one.slices()[index], coils, mirrored, rng) for one, index in picked]

    return draw


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, a number after those that came before."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return out if len(set(out)) == len(out) else unique_names(out)
