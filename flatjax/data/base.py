"""The contract between data sets and the machinery that trains and evaluates on them."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.random import Generator

from flatjax.errors import InputError

T = TypeVar("T")


class Sample(NamedTuple):
    """One fully sampled slice, on the host.

    Attributes:
        kspace: `[coil, ky, kx]` complex64, as it comes; `coil == 1` for a single coil.
        maps: coil sensitivities `[coil, y, x]` complex64, `sum_c |S_c|^2 == 1` inside the object.
        target: magnitude image `[h, w]` float32 to be reconstructed.
        padding: `(left, right)`: only columns `left <= kx < right` were acquired by the scanner;
            None means all.
        mask: `[ky or 1, kx]` float32, the sampling mask that the slice was or is to be measured
            with; None to have one drawn.
        noise: standard deviation of the complex noise that `kspace` contains, where it is known.
    """

    kspace: np.ndarray
    maps: np.ndarray
    target: np.ndarray
    padding: tuple[int, int] | None = None
    mask: np.ndarray | None = None
    noise: float = 0.0


def check_sample(sample: Sample) -> None:
    """Refuse what is no `Sample`, by an `InputError` that says what of it and what was expected."""
    if not isinstance(sample, Sample):
        raise InputError(f"the data set gives a {type(sample).__name__}, expected a Sample")
    shape = np.shape(sample.kspace)
    size = ", ".join(map(str, shape[-2:]))
    for name, fits, expected in (
            ("kspace", len(shape) == 3 and np.iscomplexobj(sample.kspace),
             "complex [coil, ky, kx], also of a single coil"),
            ("maps", np.shape(sample.maps) == shape and np.iscomplexobj(sample.maps),
             f"complex {list(shape)} as the kspace"),
            ("target", np.ndim(sample.target) == 2 and np.isrealobj(sample.target)
             and np.all(np.less_equal(np.shape(sample.target), shape[-2:])),
             f"a real image of at most [{size}]"),
            ("mask", sample.mask is None or np.shape(sample.mask) in (
                shape[-2:], (1, *shape[-1:])), f"[{size}], or one row for all, or None")):
        if not fits:
            array = np.asarray(getattr(sample, name))
            raise InputError(f"{name} of a sample of the data set is {array.dtype} "
                             f"{list(array.shape)}, expected {expected}")


class Lazy(Sequence[Sample]):
    """Samples of which the one at `index` is made by `read(items[index])` on access."""

    def __init__(self, read: Callable[[Any], Sample], items: Sequence[Any]) -> None:
        self.read, self.items = read, items

    def __len__(self) -> int:
        return len(self.items)

    # slices are not supported
    def __getitem__(  # pyright: ignore[reportIncompatibleMethodOverride]
            self, index: int) -> Sample:
        return self.read(self.items[index])


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


def grouped(pairs: Iterable[tuple[Hashable, T]]) -> dict[Any, list[T]]:
    """The values of pairs `(key, value)` by their keys."""
    groups: dict[Any, list[T]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def pick(buckets: Sequence[Sequence[T]], rng: Generator, n: int) -> list[T]:
    """`n` random entries of one bucket, which is drawn as often as it has entries."""
    ends = np.cumsum([len(bucket) for bucket in buckets])
    bucket = buckets[np.searchsorted(ends, rng.integers(ends[-1]), side="right")]
    return [bucket[index] for index in rng.integers(len(bucket), size=n)]
