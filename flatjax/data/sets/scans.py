"""Undersampled scans of a user's own, which have no reference: for training by `supervision=self`.

A folder of k-space in the formats of `data.io.kspace`, fastMRI's and ISMRMRD's files among them.
Each is taken with its own mask, and coil maps are made of what was measured. The split is by file.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.random import Generator

from flatjax.data.acquisition import ends
from flatjax.data.base import DataSet, Lazy, Sample, Volume, grouped, pick
from flatjax.data.io.kspace import find_scans, open_scan
from flatjax.data.prepare import prepare
from flatjax.data.splits import split_subjects
from flatjax.data.subjects import unique_names
from flatjax.errors import InputError
from flatjax.mri.sampling import pattern

KEPT = 256  # slices that are kept in memory with their maps, which take long to make


def make(*, path: str = "", split: bool = True, split_seed: int = 0,
         validation: Sequence[str] = (), test: Sequence[str] = (), validation_share: float = 0.1,
         test_share: float = 0.2) -> DataSet:
    """The data set of a folder. Slices have a largest sample of 1, and targets are NaN.

    A batch has slices of one shape. An `InputError` for an option out of range, a bad file, one
    that is fully sampled or has coils but neither maps nor a center to make them of.

    Args:
        path: of the folder, or a file that is tested with `split=False`.
        split, split_seed, validation, test, validation_share, test_share: as of
            `subjects.make_dataset`, where a subject is a file, by its name without extension.
    """
    if not path:
        raise InputError("the data set scans has no path: set data.path to a folder of k-space")
    found = [scan for scan in map(open_scan, find_scans([path])) if not scan.simulated]
    scans = dict(zip(unique_names([scan.name for scan in found]), found, strict=True))

    @lru_cache(maxsize=KEPT)
    def read(name: str, index: int) -> Sample:
        scan = scans[name]
        kspace = next(scan.read([index]))
        maps, lines = (next(one([index])) if one else None for one in (scan.maps, scan.calibration))
        try:
            measured, _ = prepare(kspace, scan.mask, maps, lines, scan.noise)
            mask = np.asarray(measured.mask)[0]
            if pattern(mask) == "full" and kspace.any():
                raise InputError("is fully sampled, expected undersampled k-space; multiply it by "
                                 "the mask that it is to be trained with")
        except InputError as error:
            raise InputError(f"{scan.file}: {error}") from error
        target = np.full(mask.shape, np.nan, np.float32)
        return Sample(np.asarray(measured.kspace), np.asarray(measured.maps), target, mask=mask,
                      noise=float(measured.noise or 0))

    def build(roles: Mapping[str, Sequence[str]]) -> DataSet:
        if lost := sorted({*chain(*roles.values())} - {*scans}):
            raise InputError(f"{path}: {', '.join(lost)} of the run's split not found; put the "
                             "same files there, or name another workdir")
        # of one shape, and all or none with a known noise
        buckets = [*grouped(((scans[name].shape[1:], scans[name].noise is None), (name, index))
                            for name in roles["train"]
                            for index in range(scans[name].shape[0])).values()]

        def draw(rng: Generator, n: int) -> Sequence[Sample]:
            if not buckets:
                raise InputError(f"{path}: with split=False every file is for testing; set "
                                 "split=True to train on some")
            return Lazy(lambda one: read(*one), pick(buckets, rng, n))

        def load(name: str) -> list[Sample]:
            return [read(name, index) for index in range(scans[name].shape[0])]

        validated, tested = ([Volume(name, partial(load, name)) for name in roles[role]]
                             for role in ("validation", "test"))
        return DataSet(draw, validated, {"held_out" if split else "all": tested},
                       {role: list(names) for role, names in roles.items()}, build)

    if not split:
        return build({"train": [], "validation": [], "test": sorted(scans)})
    return build(split_subjects([*scans], validation=validation, test=test, seed=split_seed,
                                validation_share=validation_share, test_share=test_share))


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a config by which noise would be added to scans; before any file is read."""
    noise = config["acquisition"]["noise"]
    if ends(noise)[1] > 0:
        raise InputError(f"acquisition.noise is {noise}, expected 0 with the data set scans, which "
                         "have their own")
