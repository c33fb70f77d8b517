"""The contract between data sets and the machinery that trains and evaluates on them."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator


class Sample(NamedTuple):
    """One fully sampled slice, on the host.

    Attributes:
        kspace: `[coil, ky, kx]` complex64, without added noise; `coil == 1` for a single coil.
        maps: coil sensitivities `[coil, y, x]` complex64, `sum_c |S_c|^2 == 1` inside the object.
        target: magnitude image `[h, w]` float32 to be reconstructed.
        padding: `(left, right)`: only columns `left <= kx < right` were acquired by the scanner;
            None means all.
        mask: `[ky or 1, kx]` float32, the sampling mask that the slice was or is to be measured
            with; None to have one drawn.
    """

    kspace: np.ndarray
    maps: np.ndarray
    target: np.ndarray
    padding: tuple[int, int] | None = None
    mask: np.ndarray | None = None


class Lazy(Sequence[Sample]):
    """Samples that are read from the disk on access.

    Attributes:
        read: the functions that read them.
    """

    def __init__(self, read: Sequence[Callable[[], Sample]]) -> None:
        self.read = read

    def __len__(self) -> int:
        return len(self.read)

    # slices are not supported
    def __getitem__(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, index: int) -> Sample:
        return self.read[index]()

    def __iter__(self) -> Iterator[Sample]:
        return (read() for read in self.read)


class Volume(NamedTuple):
    """The slices that are scored as one: metrics are taken per volume.

    Attributes:
        name: unique within its set and usable as a file name.
        load: reads its slices, all of one shape; called when needed, so that a set of many
            volumes never sits in memory.
    """

    name: str
    load: Callable[[], list[Sample]]


class DataSet(NamedTuple):
    """What every data set offers.

    Attributes:
        draw: `(rng, n) -> n` random training samples of one shape; a pure function of `rng`,
            safe to call from several threads at once. Samples that take long to read are best
            given as `Lazy`: of several processes that train together each reads its own.
        validation: volumes on which checkpoints are chosen.
        test: volumes by name of the test set, the main one first.
        split: subjects by role, "train", "validation" and "test"; None for a set without subjects.
        resplit: gives the same data set by another such split.
    """

    draw: Callable[[Generator, int], Sequence[Sample]]
    validation: list[Volume]
    test: dict[str, list[Volume]]
    split: dict[str, list[str]] | None = None
    resplit: "Callable[[dict[str, list[str]]], DataSet] | None" = None
