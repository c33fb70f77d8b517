"""From samples to batches: every batch is a pure function of its seed and step."""

from collections import deque
from collections.abc import Callable, Generator as Generated, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import numpy as np
from numpy.random import Generator

from flatjax.data.base import DataSet, Sample, Volume
from flatjax.errors import InputError
from flatjax.mri import Batch, Measurement
from flatjax.mri.forward import on_host
from flatjax.mri.host.masks import make_mask, seed_from_name
from flatjax.mri.host.simulate import acquire, complex_noise


class Acquisition(NamedTuple):
    """How a fully sampled slice is measured.

    Attributes:
        mask: kind of sampling mask, a key of `mri.host.masks.KINDS`.
        acceleration: nominal R, at least 1.
        center_fraction: fully sampled part of k-space around its centre.
        noise: standard deviation of the complex k-space noise that is added, in the unit of the
            data: that of an image of maximum 1 for simulated sets, 0 for data with its own noise.
    """

    mask: str = "random"
    acceleration: float = 4.0
    center_fraction: float = 0.08
    noise: float = 0.0


def check_acquisition(acquisition: Acquisition) -> None:
    """Refuse an acquisition that no slice could be measured with, before any work is done.

    Raises:
        InputError: from `make_mask`, or for a negative noise level.
    """
    if not acquisition.noise >= 0:
        raise InputError(f"acquisition.noise is {acquisition.noise}, expected 0 or more")
    make_mask(acquisition.mask, (320, 320), acquisition.acceleration,
              acquisition.center_fraction, 0)


def measure(sample: Sample, acquisition: Acquisition, mask_seed: int | tuple[int, ...],
            rng: Generator) -> Batch:
    """Measure one slice.

    Args:
        sample: the fully sampled slice.
        acquisition: how.
        mask_seed: of the mask, unless the sample brings its own.
        rng: of the noise.

    Returns:
        a `Batch` of numpy arrays without their batch axis.
    """
    mask = sample.mask
    if mask is None:
        mask = make_mask(acquisition.mask, sample.kspace.shape[-2:], acquisition.acceleration,
                         acquisition.center_fraction, mask_seed, sample.padding)
    noise = complex_noise(rng, sample.kspace.shape, acquisition.noise) if acquisition.noise else 0
    measured, mask, maps, kspace, target = map(on_host, (
        acquire(sample.kspace, mask, noise), mask[None], sample.maps, sample.kspace,
        sample.target))
    return Batch(Measurement(measured, mask, maps), kspace, target)


def stack(slices: list[Batch]) -> Batch:
    """Slices of one shape as one batch."""
    return jax.tree.map(lambda *arrays: np.stack(arrays), *slices)


def training_batch(dataset: DataSet, acquisition: Acquisition, seed: int, step: int,
                   size: int, rows: range | None = None) -> Batch:
    """The training batch of a step: same arguments, same bits, in any thread.

    Also on any machine, but for what is estimated from data with k-space of its own, compressed
    coils and maps by ESPIRiT: these are linear algebra, which rounds by the processor.

    Args:
        dataset, acquisition: what is drawn and how it is measured.
        seed, step: that the batch belongs to.
        size: slices in the whole batch.
        rows: the part of it that is wanted, None for all; the others are not read unless noise is
            added, which is drawn for one after the other.
    """
    rows = range(size) if rows is None else rows
    rng = np.random.default_rng([seed, step])
    samples = dataset.draw(rng, size)
    mask_seeds = rng.integers(2**32, size=size)
    measured = {index: measure(samples[index], acquisition, int(mask_seeds[index]), rng)
                for index in (range(rows.stop) if acquisition.noise else rows)}
    return stack([measured[index] for index in rows])


def measure_volume(volume: Volume, acquisition: Acquisition) -> list[Batch]:
    """A volume's slices, all with the one mask and the noise that belong to its name.

    The mask is fastMRI's for that file name, so evaluation never changes from run to run.
    """
    mask_seed = seed_from_name(volume.name)
    rng = np.random.default_rng(mask_seed)
    return [measure(sample, acquisition, mask_seed, rng) for sample in volume.load()]


def padded_batches(slices: list[Batch], size: int) -> Iterator[tuple[Batch, int]]:
    """Slices in batches of one size, so that one compilation serves them all.

    Yields:
        `(batch, count)`: the last batch repeats its last slice after the first `count`.
    """
    for start in range(0, len(slices), size):
        part = slices[start:start + size]
        yield stack(part + part[-1:] * (size - len(part))), len(part)


def prefetch(make: Callable[[int], Batch], steps: range, *, workers: int = 2,
             depth: int = 4) -> Generated[Batch, None, None]:
    """`make(step)` for each step in order, computed ahead in threads.

    The order and content do not depend on the number of workers. Closing the iterator drops
    what was not begun.

    Args:
        make: pure function of the step.
        steps: which.
        workers: threads.
        depth: results held ready at most.
    """
    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="flatjax-data")
    pending = deque()
    try:
        for step in steps:
            pending.append(pool.submit(make, step))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
