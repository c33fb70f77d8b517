"""Centered cropping."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jax import Array

AnyArray = TypeVar("AnyArray", Array, np.ndarray)


def center_crop(image: AnyArray, shape: Sequence[int]) -> AnyArray:
    """The central `shape` `(h, w)` of the last two axes, numpy or JAX.

    Raises:
        ValueError: if the image is smaller.
    """
    height, width = image.shape[-2:]
    if shape[0] > height or shape[1] > width:
        raise ValueError(f"cannot crop {height} x {width} to {shape[0]} x {shape[1]}: "
                         "expected a shape no larger than the image")
    top, left = (height - shape[0]) // 2, (width - shape[1]) // 2
    return image[..., top:top + shape[0], left:left + shape[1]]
