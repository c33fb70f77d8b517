"""From samples to batches: every batch is a pure function of its seed and step."""

from collections import deque
from collections.abc import Callable, Generator as Generated, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import jax
import numpy as np
from numpy.random import Generator

from flatjax.data.acquisition import Acquisition, draw_mask, draw_noise
from flatjax.data.base import DataSet, Sample, Volume, check_sample
from flatjax.errors import InputError
from flatjax.mri import Batch, Measurement
from flatjax.mri.host.masks import seed_from_name
from flatjax.mri.host.simulate import acquire, complex_noise


def measure_slice(sample: Sample, acquisition: Acquisition, mask_seed: int | tuple[int, ...],
                  rng: Generator) -> Batch:
    """Measure one slice: a `Batch` of numpy arrays without their batch axis.

    `mask_seed` is that of the mask, unless the sample brings its own, and of the noise level. The
    noise itself is drawn from `rng`, for the coils whose maps are not 0, as much as a sample lacks
    that contains some. The measurement's noise is the level then, None where none is known of.
    """
    check_sample(sample)
    mask = sample.mask
    if mask is None:
        mask = draw_mask(acquisition, sample.kspace.shape[-2:], mask_seed, sample.padding)
    level, noise = max(draw_noise(acquisition, mask_seed), sample.noise), 0.0
    if level > sample.noise:
        noise = np.zeros_like(sample.kspace)
        coils = sample.maps.any(axis=(1, 2))
        noise[coils] = complex_noise(rng, (int(coils.sum()), *noise.shape[1:]),
                                     float(np.sqrt(level**2 - sample.noise**2)))
    kspace = acquire(sample.kspace, mask, noise)
    # jitted functions take NumPy's arrays
    measured: Any = (kspace, mask[None], sample.maps, np.float32(level) if level else None)
    full: Any = (sample.kspace, sample.target)
    return Batch(Measurement(*measured), *full)


def stack(slices: list[Batch]) -> Batch:
    """Slices of one shape as one batch."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *slices)


def training_batch(dataset: DataSet, acquisition: Acquisition, seed: int, step: int,
                   size: int, rows: range | None = None) -> Batch:
    """The training batch of a step: the same arguments give the same bits, in any thread.

    They do on any machine too, except for compressed coils and ESPIRiT's maps of measured k-space:
    linear algebra rounds differently on other processors.

    Args:
        dataset, acquisition: what is drawn and how it is measured.
        seed, step: that the batch belongs to.
        size: slices in the whole batch.
        rows: the part of it that is wanted, None for all. Other rows are read only if noise is
            added, which is drawn row by row.
    """
    rows = range(size) if rows is None else rows
    rng = np.random.default_rng([seed, step])
    samples = dataset.draw(rng, size)
    if len(samples) != size:
        raise InputError(f"draw of the data set gives {len(samples)} samples, expected {size}")
    mask_seeds = rng.integers(2**32, size=size)
    measured = {index: measure_slice(samples[index], acquisition, int(mask_seeds[index]), rng)
                for index in (range(rows.stop) if acquisition.noise else rows)}
    return stack([measured[index] for index in rows])


def measure_volume(volume: Volume, acquisition: Acquisition) -> list[Batch]:
    """A volume's slices, in every run with the mask and the noise level that belong to its name.

    If nothing but the mask is drawn, it is fastMRI's for that file name.
    """
    mask_seed = seed_from_name(volume.name)
    rng = np.random.default_rng(mask_seed)
    return [measure_slice(sample, acquisition, mask_seed, rng) for sample in volume.load()]


def padded_batches(slices: list[Batch], size: int) -> Iterator[tuple[Batch, int]]:
    """Slices in batches of one size, so that one compilation serves them all.

    Yields:
        `(batch, count)`: the last batch repeats its last slice after the first `count`.
    """
    for start in range(0, len(slices), size):
        part = slices[start:start + size]
        yield stack(part + part[-1:] * (size - len(part))), len(part)


def prefetch(make: Callable[[int], Batch], steps: range, *,
             workers: int = 2) -> Generated[Batch, None, None]:
    """`make(step)` for each step in order, computed ahead in threads.

    The number of threads changes neither order nor content, since `make` is a pure function. Two
    results for each of them are held ready. Closing the iterator drops what was not begun.
    """
    workers = max(1, workers)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="flatjax-data")
    pending, left = deque(), iter(steps)
    try:
        for _ in steps:
            pending += [pool.submit(make, step)
                        for step in islice(left, 2 * workers + 1 - len(pending))]
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
