"""Masks that contradict the data are refused, and those that undersample them are not."""

import numpy as np
import pytest

from flatjax.data.io.checks import check_mask
from flatjax.data.io.kspace import find_mask
from flatjax.errors import InputError
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.simulate import complex_noise, host_fft2c
from tests.support.arrays import smooth_image


def measured(mask, shape=(40, 40)):
    return (mask * host_fft2c(smooth_image(np.random.default_rng(0), shape))[None]
            + mask * complex_noise(np.random.default_rng(1), (2, *shape), 0.01))


def contradiction(kspace, mask):
    """The two numbers of the refusal, or None."""
    try:
        check_mask(kspace, find_mask(kspace), mask)
    except InputError as error:
        words = str(error).split()
        return int(words[words.index("at") + 1]), int(words[words.index("1") + 2])
    return None


@pytest.mark.parametrize("kind", ["equispaced", "random", "poisson", "gaussian2d"])
def test_a_mask_that_contradicts_the_data_is_refused_with_both_numbers(kind):
    mask = np.broadcast_to(make_mask(kind, (40, 40), 4, 0.1, 0), (40, 40))
    kspace = measured(mask)
    assert contradiction(kspace, mask) is None
    for other in (np.roll(mask, 20, axis=1), make_mask(kind, (40, 40), 4, 0.1, 5), 1 - mask,
                  *([mask.T] if kind in ("equispaced", "random") else [])):
        assert contradiction(kspace, other) == ((mask > other).sum(), (mask < other).sum())


def test_a_mask_may_undersample_what_was_measured():
    full, lines = measured(np.ones((40, 40))), make_mask("random", (40, 40), 3, 0.1, 0)
    fewer = lines * (np.arange(40) % 2 + (np.abs(np.arange(40) - 20) < 3) > 0)
    partial = (np.arange(40) > 12)[:, None] * np.ones((40, 40))
    for data, mask in ((full, lines), (full, make_mask("poisson", (40, 40), 4, 0.1, 0)),
                       (measured(lines), fewer), (measured(partial), lines),
                       (measured(partial.T), lines), (measured(lines), np.ones((1, 40)))):
        assert contradiction(data, mask) is None
    rounded = measured(lines)
    rounded[:, 5:7, 20] = 0  # as integers have it
    assert contradiction(rounded, lines) is None
    left = full * (lines + 1e-8 * (np.arange(40) % 2))  # as a transform and its inverse leave it
    assert contradiction(left, np.roll(lines, 1) + lines > 0) is None


def test_a_mask_with_its_center_at_the_edge_is_refused():
    mask = make_mask("random", (40, 40), 3, 0.2, 0)
    with pytest.raises(InputError, match=r"center at the edge.*numpy.fft.fftshift\(mask\)"):
        kspace = measured(np.ones((40, 40)))
        check_mask(kspace, find_mask(kspace), np.fft.ifftshift(mask))
