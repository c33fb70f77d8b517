"""Scans sampled along the other axis than a model was trained with."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import Array

from flatjax.data.acquisition import Acquisition, kinds
from flatjax.methods import Params
from flatjax.mri import Measurement
from flatjax.mri.host.patterns import LINE_KINDS
from flatjax.mri.sampling import pattern

# `(params, rng, measurement) -> {name: [batch, y, x] float32}`, jitted
Reconstruct = Callable[[Params, Array, Measurement], dict[str, Array]]


def turning(reconstruct: Reconstruct, trained: Acquisition) -> Reconstruct:
    """`reconstruct` for lines along either axis, by a model whose masks had lines along one.

    Lines along the other are turned for it, and the images turned back, which a warning says.
    """
    def function(params: Params, rng: Array, measurement: Measurement) -> dict[str, Array]:
        other = turned(measurement, trained) if params else measurement
        images = reconstruct(params, rng, other)
        if other is measurement:
            return images
        warnings.warn(f"k-space is sampled along {pattern(np.asarray(measurement.mask))}, but the "
                      f"model was trained with {trained.lines}: its axes are exchanged, and those "
                      "of the images back", stacklevel=2)
        return {name: _swapped(image) for name, image in images.items()}

    return function


def turned(measurement: Measurement, trained: Acquisition) -> Measurement:
    """The measurement as `turning` hands it to a model: itself, or with its axes exchanged."""
    other = {"rows": "columns", "columns": "rows"}.get(trained.lines)
    if {*kinds(trained)}.isdisjoint(LINE_KINDS) or other != pattern(np.asarray(measurement.mask)):
        return measurement
    return jax.tree.map(lambda x: _swapped(x) if np.ndim(x) > 1 else x, measurement)


def _swapped(array: Any) -> Any:
    return array.swapaxes(-2, -1)
