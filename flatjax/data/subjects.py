"""Data sets of several subjects: split by subject, their slices prepared once and kept on disk."""

import inspect
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial, wraps
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from tqdm import tqdm

from flatjax.data.base import DataSet, Sample, grouped, pick
from flatjax.data.io.checks import check_file
from flatjax.data.io.volumes.common import Spacing
from flatjax.data.slices import check_grid, display_slices, draw_sample, fixed_volume, usable_slices
from flatjax.data.splits import ROLES, split_subjects
from flatjax.errors import InputError
from flatjax.files import make_folder, write_atomically
from flatjax.mri.host.masks import seed_from_name

CACHE_NAME = ".flatjax-{}"  # beside the folder of the files
_VERSION = 1  # of what is kept: counted up whenever the same file would be prepared otherwise


class SubjectVolume(NamedTuple):
    """A volume of a subject."""

    subject: str  # whose it is
    name: str  # usable as a file name
    files: Sequence[Path]  # that it is made of
    recipe: str  # what else it depends on
    # gives `(volume, spacing)`: magnitudes `[x, y, z]` float32 with maximum 1 toward right,
    # anterior and superior, and the size of a voxel in mm
    load: Callable[[], tuple[np.ndarray, Spacing]]


class Prepared(NamedTuple):
    """A volume as slices."""

    subject: str
    name: str
    images: np.ndarray  # `[slice, y, x]` float32, mapped into memory


def subject_dataset(find: Callable[..., Sequence[SubjectVolume]],
                    **defaults: Any) -> Callable[..., DataSet]:
    """The `make(**options)` of a data set, with the options of `make_dataset` and of `find`.

    Args:
        find: `(folder, **options) -> volumes`, in the file of the data set.
        **defaults: of options of `make_dataset`, where they differ for this set.
    """
    @wraps(find, ("__module__", "__doc__"))
    def make(**options: Any) -> DataSet:
        return make_dataset(find, **defaults | options)

    _, *shared, _ = inspect.signature(make_dataset).parameters.values()  # find and its options
    _, *own = inspect.signature(find).parameters.values()  # the folder
    shared = [one.replace(default=defaults.get(one.name, one.default)) for one in shared]
    make.__signature__ = inspect.Signature(  # pyright: ignore[reportAttributeAccessIssue]
        [*shared, *own], return_annotation=DataSet)
    return make


def make_dataset(find: Callable[..., Sequence[SubjectVolume]], *, path: str = "", matrix: int = 0,
                 coils: int = 1, orientation: str = "axial", split: bool = True,
                 split_seed: int = 0, validation: Sequence[str] = (), test: Sequence[str] = (),
                 validation_share: float = 0.1, test_share: float = 0.2, cache: str = "",
                 skip_bad: bool = False, **options: Any) -> DataSet:
    """The data set of a folder; phases and coils are simulated as in the data set `volume`.

    Slices with tissue are prepared before anything else, so that a bad file is known at once, and
    kept as `.npy` files which later starts map into memory. A line on stderr tells who has which
    role. A batch has slices of one shape. InputError for an option out of range, a bad volume, or
    too few subjects.

    Args:
        find: see `subject_dataset`.
        path: of the folder.
        matrix: pixels along each side of a square field of view as wide as the longer side of a
            slice; 0 for the files' own grids.
        coils: simulated birdcage coils.
        orientation: one of `slices.ORIENTATIONS`.
        split: whether subjects are split; otherwise all are tested and `draw` raises.
        split_seed: of the split.
        validation, test: subjects with that role; drawn by the shares if empty.
        validation_share, test_share: of the subjects, at least one each.
        cache: folder for the prepared slices, "" for `.flatjax-NAME` beside the folder.
        skip_bad: leave bad volumes out, with a warning, instead of refusing them all.
        **options: of `find`.
    """
    name = find.__module__.rpartition(".")[2]
    if not path:
        raise InputError(f"the data set {name} has no path: set data.path to a folder of its files")
    check_grid(matrix, coils, orientation, native=True)
    folder = Path(path).expanduser()
    volumes = find(folder, **options)
    prepared = _prepare(folder, volumes, matrix, orientation, cache, skip_bad)
    subjects = sorted({one.subject for one in prepared})

    def build(roles: Mapping[str, Sequence[str]]) -> DataSet:
        parts = {role: [one for one in prepared if one.subject in roles[role]] for role in ROLES}
        _tell(name, parts)
        lost = sorted({*chain(*roles.values())} - {*subjects})
        why = (f"{folder}: {', '.join(lost)} of the run's split not found; put the same files "
               "there, or name another workdir")
        if {*lost} - {*roles["train"]}:
            raise InputError(why)
        why = why if split else (f"{folder}: with split=False every subject is for testing; set "
                                 "split=True to train on some")
        buckets = [*grouped((image.shape, image) for one in parts["train"]
                            for image in one.images).values()]

        def draw(rng: Generator, n: int) -> list[Sample]:
            if lost or not split:
                raise InputError(why)
            return [draw_sample(image, coils, orientation != "sagittal", rng)
                    for image in pick(buckets, rng, n)]

        validation, test = ([fixed_volume(one.name, partial(np.asarray, one.images), coils,
                                          seed_from_name(one.name)) for one in parts[role]]
                            for role in ("validation", "test"))
        return DataSet(draw, validation, {"held_out" if split else "all": test},
                       {role: list(roles[role]) for role in ROLES}, build)

    if not split:
        return build({"train": [], "validation": [], "test": subjects})
    return build(split_subjects(subjects, validation=validation, test=test, seed=split_seed,
                                validation_share=validation_share, test_share=test_share))


def _tell(name: str, parts: Mapping[str, Sequence[Prepared]]) -> None:
    for role, found in parts.items():
        who = sorted({one.subject for one in found})
        some = ", ".join(who if len(who) <= 8 else [*who[:7], "..."])
        count = sum(len(one.images) for one in found)
        sizes = sorted({one.images.shape[1:] for one in found})
        if found:
            print(f"{name} {role}: {len(who)} subjects ({some}), {len(found)} volumes: {count} "
                  f"slices of {' or '.join(f'{y} x {x}' for y, x in sizes)}", file=sys.stderr)


def _prepare(folder: Path, volumes: Sequence[SubjectVolume], matrix: int, orientation: str,
             cache: str, skip_bad: bool) -> list[Prepared]:
    place = cache or folder.resolve().with_name(CACHE_NAME.format(folder.resolve().name))
    try:
        place = make_folder(Path(place).expanduser())
    except InputError as error:
        raise InputError(f"{error}; slices are kept there: set data.cache") from error
    prepared, errors = [], []
    names = unique_names([volume.name for volume in volumes])
    progress = tqdm(volumes, desc=f"prepare {folder.name}", unit="volume", delay=2)
    for name, volume in zip(names, progress, strict=True):
        try:
            images = _prepare_one(volume, place, matrix, orientation)
            prepared.append(Prepared(volume.subject, name, images))
        except InputError as error:
            errors.append(str(error))
    check_bad(folder, errors, skip_bad and bool(prepared))
    return prepared


def check_bad(folder: Path, errors: Sequence[str], skip: bool) -> None:
    """InputError for files of a folder, given what is wrong with each, or a warning if skipped."""
    if errors and not skip:
        more = f"; {len(errors) - 1} more files there are bad" if len(errors) > 1 else ""
        raise InputError(f"{errors[0]}{more}; or leave bad files out with data.skip_bad=True")
    if errors:
        warnings.warn(f"{folder}: {len(errors)} files are bad and left out: {' | '.join(errors)}",
                      stacklevel=3)


def _prepare_one(volume: SubjectVolume, place: Path, matrix: int, orientation: str) -> np.ndarray:
    stats = [(str(file.resolve()), check_file(file), file.stat().st_mtime_ns)
             for file in volume.files]
    key = sha256(repr((_VERSION, stats, volume.recipe, matrix, orientation)).encode()).hexdigest()
    file = place / f"{key[:24]}.npy"
    with suppress(OSError, ValueError, EOFError):  # none, or a damaged one: it is made again
        return np.load(file, mmap_mode="r")
    slices, spacing = display_slices(*volume.load(), orientation)
    images = np.ascontiguousarray(usable_slices(slices, spacing, matrix), np.float32)
    write_atomically(file, lambda temporary: np.save(temporary, images))
    return np.load(file, mmap_mode="r")


def unique_names(names: Sequence[str]) -> list[str]:
    """The names, a number after those that came before."""
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}-{seen[name]}")
    return out if len(set(out)) == len(out) else unique_names(out)
