"""The anatomy of the ICBM152 average head: tissue fractions, texture and outline of its slices."""

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from flatjax.data.slices import (
    display_slices,
    resample,
)
from flatjax.errors import InputError

FOV_MM = 233.0
# what the T1 template shows in pure CSF, GM and WM, by least squares over its inside
TEMPLATE_LEVELS = np.array([69.5, 167.3, 224.3], np.float32)


class Anatomy(NamedTuple):
    """What slices are made of, each `[slice, y, x]` float32.

    Attributes:
        gm: gray matter fraction.
        wm: white matter fraction.
        texture: what of the template its tissue fractions leave unexplained, relative to it.
        support: smooth indicator of the brain, 1 well inside.
        outside: distance in mm from the brain's convex hull, negative inside.
    """

    gm: np.ndarray
    wm: np.ndarray
    texture: np.ndarray
    support: np.ndarray
    outside: np.ndarray


@lru_cache(maxsize=1)
def load_template() -> dict[str, np.ndarray]:
    """The ICBM152 maps "t1", "gm" and "wm" as nilearn packs them, without importing nilearn.

    Returns:
        `[slice, row, column]` uint8 each, 1 mm, displayed as `display_slices` says. Read-only.

    Raises:
        InputError: nilearn or nibabel is not installed, or has no such files.
    """
    spec = importlib.util.find_spec("nilearn")
    places = spec.submodule_search_locations if spec else None
    if not places or importlib.util.find_spec("nibabel") is None:
        raise InputError("the data set icbm needs the ICBM152 maps of the package nilearn, which "
                         "is not installed: pip install nilearn")
    import nibabel

    folder = Path(places[0]) / "datasets" / "data"
    maps = {}
    for name in ("t1", "gm", "wm"):
        path = folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        if not path.exists():
            raise InputError(f"{path} is missing from the installed nilearn: "
                             "pip install --force-reinstall 'nilearn>=0.10'")
        volume = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
        maps[name] = display_slices(volume, (1, 1, 1), "axial")[0]
        maps[name].setflags(write=False)
    return maps


def build_anatomy(template: dict[str, np.ndarray], indices: np.ndarray,
                  matrix: int) -> Anatomy:
    """Resample some slices of the template; nothing is read of any other slice.

    Args:
        template: from `load_template`.
        indices: of its slices.
        matrix: pixels along each side of the field of view.
    """
    t1, gm, wm = (template[name][indices].astype(np.float32) for name in ("t1", "gm", "wm"))
    gm, wm = gm / 255, wm / 255
    brain = t1 > 0
    csf = np.clip(1 - gm - wm, 0, 1)
    explained = csf * TEMPLATE_LEVELS[0] + gm * TEMPLATE_LEVELS[1] + wm * TEMPLATE_LEVELS[2]
    inside = ndimage.binary_erosion(brain, np.ones((1, 3, 3)), iterations=2)
    texture = np.where(inside, np.clip(t1 / explained, 0.8, 1.2) - 1, 0)
    support = ndimage.gaussian_filter(brain.astype(np.float32), (0, 2, 2))
    outside = np.stack([_hull_distance(mask, matrix) for mask in brain])
    *fractions, texture, support = (resample(plane, (1.0, 1.0), FOV_MM, matrix)
                                    for plane in (gm, wm, texture, support))
    gm, wm = np.clip(fractions, 0, 1)
    return Anatomy(gm, wm, texture, support, outside)


def _hull_distance(brain: np.ndarray, matrix: int, directions: int = 48) -> np.ndarray:
    """Signed distance in mm from the brain's convex hull: the farthest of its supporting lines.

    Args:
        brain: `[y, x]` bool, pixels of 1 mm.
        matrix: pixels along the field of view that is returned.
        directions: number of lines.

    Returns:
        `[matrix, matrix]` float32, negative inside.
    """
    y, x = (axis - (n - 1) / 2 for axis, n in zip(np.nonzero(brain), brain.shape, strict=True))
    grid = ((np.arange(matrix) - (matrix - 1) / 2) * FOV_MM / matrix).astype(np.float32)
    distance = np.full((matrix, matrix), -FOV_MM, np.float32)
    for angle in np.arange(directions) * 2 * np.pi / directions:
        sin, cos = np.sin(angle), np.cos(angle)
        line = np.max(sin * y + cos * x)
        np.maximum(distance, (sin * grid - line).astype(np.float32)[:, None]
                   + (cos * grid).astype(np.float32), out=distance)
    return distance
