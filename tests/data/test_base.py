"""What a data set must give, and one line for what it gives instead."""

import numpy as np
import pytest

from flatjax.data import Acquisition, training_batch
from flatjax.data.base import check_sample
from flatjax.data.batches import measure_volume
from flatjax.errors import InputError
from tests.support import toy


def sample():
    return toy.make().test["main"][0].load()[0]


@pytest.mark.parametrize("changes, words", [
    ({"kspace": lambda one: one.kspace[0]}, "kspace of a sample of the data set is complex64 "
     "[16, 16], expected complex [coil, ky, kx], also of a single coil"),
    ({"kspace": lambda one: one.kspace.real}, "kspace of a sample of the data set is float32"),
    ({"maps": lambda one: one.maps.real}, "is float32 [1, 16, 16], expected complex [1, 16, 16]"),
    ({"maps": lambda one: one.maps[0]}, "maps of a sample of the data set is complex64 [16, 16]"),
    ({"target": lambda one: one.target[None]}, "expected a real image of at most [16, 16]"),
    ({"target": lambda one: np.ones((17, 16))}, "target of a sample of the data set is float64"),
    ({"target": lambda one: one.kspace[0]}, "target of a sample of the data set is complex64"),
    ({"mask": lambda one: np.ones(16)}, "mask of a sample of the data set is float64 [16], "
     "expected [16, 16], or one row for all, or None")])
def test_a_sample_of_other_arrays_is_refused_wherever_it_is_measured(changes, words):
    for mask in (None, np.ones((1, 16)), np.ones((16, 16))):
        check_sample(sample()._replace(mask=mask))
    broken = sample()._replace(**{key: value(sample()) for key, value in changes.items()})
    dataset = toy.make()._replace(draw=lambda rng, n: [broken] * n)
    volume = toy.make().test["main"][0]._replace(load=lambda: [broken])
    for measure in (lambda: training_batch(dataset, Acquisition(), 0, 0, 2),
                    lambda: measure_volume(volume, Acquisition())):
        with pytest.raises(InputError) as refused:
            measure()
        assert words in str(refused.value)


def test_other_things_than_samples_and_too_few_of_them_are_refused():
    for draw, words in ((lambda rng, n: [tuple(sample())] * n, "gives a tuple, expected a Sample"),
                        (lambda rng, n: [sample()], "draw of the data set gives 1 samples, "
                         "expected 2")):
        with pytest.raises(InputError, match=words):
            training_batch(toy.make()._replace(draw=draw), Acquisition(), 0, 0, 2)
