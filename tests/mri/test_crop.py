"""Centered cropping."""

import numpy as np
import pytest

from flatjax.mri import center_crop


@pytest.mark.parametrize(
    "size, crop, first", [(6, 4, 1), (7, 4, 1), (6, 3, 1), (7, 3, 2), (5, 5, 0)]
)
def test_center_crop(size, crop, first):
    x = np.arange(2 * size * 9).reshape(2, size, 9)
    np.testing.assert_array_equal(center_crop(x, (crop, 9)), x[:, first : first + crop])
    y = x.transpose(0, 2, 1)
    np.testing.assert_array_equal(center_crop(y, (9, crop)), y[..., first : first + crop])


def test_center_crop_refuses_more_than_there_is():
    with pytest.raises(ValueError, match="cannot crop 8 x 9 to 10 x 9"):
        center_crop(np.zeros((2, 8, 9)), (10, 9))
