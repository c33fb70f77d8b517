"""From a file to slices as methods take them, and what is doubtful about it."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flatjax.data.acquisition import Acquisition, draw_mask, draw_noise
from flatjax.data.io.checks import reading
from flatjax.data.io.kspace import Scan, find_mask, open_maps, open_mask, slice_with_signal
from flatjax.data.prepare import Prepared, prepare
from flatjax.errors import InputError
from flatjax.inference.checks import check_kspace
from flatjax.mri.host.masks import seed_from_name
from flatjax.mri.host.simulate import acquire, complex_noise
from flatjax.mri.sampling import pattern


def measure(scan: Scan, acquisition: Acquisition, mask: str | Path = "",
            maps: str | Path = "", undersample: bool = False) -> Iterator[Prepared]:
    """The slices of a scan as methods take them; one made of a volume is measured first.

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
    every = range(scan.shape[0])
    for kspace, own, lines in zip(scan.read(every), *(
            one(every) if one else [None] * len(every) for one in (reader, calibration)),
            strict=True):
        if noise:
            kspace = acquire(kspace, 1, complex_noise(rng, kspace.shape, noise))
        try:
            yield prepare(kspace, sampled, own, lines, scan.noise)
        except InputError as error:
            raise InputError(f"{scan.file}: {error}") from error
