"""The anatomy of the ICBM152 average head: tissue fractions, texture and outline of its slices."""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from numpy.random import Generator
from scipy import ndimage

from flatjax.data.slices import display_slices, resample
from flatjax.errors import InputError
from flatjax.mri.host.simulate import smooth_field

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
        InputError: nilearn has no such files.
    """
    spec = importlib.util.find_spec("nilearn")
    package = Path(spec.origin if spec and spec.origin else "nilearn/__init__.py").parent
    maps = {}
    for name in ("t1", "gm", "wm"):
        path = package / f"datasets/data/mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        if not path.exists():
            raise InputError(f"the data set icbm needs {path}, which is missing: "
                             "pip install --force-reinstall 'nilearn>=0.11'")
        volume = np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
        maps[name] = display_slices(volume, (1, 1, 1), "axial")[0]
        maps[name].setflags(write=False)
    return maps


def build_anatomy(template: dict[str, np.ndarray], indices: np.ndarray,
                  matrix: int) -> Anatomy:
    """Resample the template's slices of those indices; no other slice is read."""
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
    """Signed distance in mm from the brain's convex hull, `[matrix, matrix]` float32.

    It is the largest of those from the supporting lines; negative inside. `brain` is `[y, x]` bool
    with pixels of 1 mm.
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


def render(slices: Anatomy, signal: np.ndarray, crispness: float, rim: float,
           texture: float) -> tuple[np.ndarray, np.ndarray]:
    """The image of an anatomy whose arrays are `[..., y, x]`.

    Average heads are blurred, single ones are not: fractions `p` become `p^g / sum p^g`, which
    leaves pure tissue as it is and sharpens what lies between.

    Args:
        slices: what is imaged.
        signal: of CSF, GM and WM.
        crispness: g, at least 1.
        rim: level of `slices.support`, in (0, 1), down to which CSF surrounds the brain.
        texture: strength of the template's texture, 1 as in the template.

    Returns:
        `(image, background)`: `[..., y, x]` float32 each; background is what no tissue fills.
    """
    gm, wm = slices.gm, slices.wm
    csf = np.clip(1 - gm - wm, 0, 1) * np.clip((slices.support - rim) / 0.2 + 0.5, 0, 1)
    fractions = np.stack([csf, gm, wm, np.clip(1 - csf - gm - wm, 0, 1)]) ** np.float32(crispness)
    fractions /= fractions.sum(axis=0)
    csf, gm, wm, background = fractions
    tissue = np.float32(signal[0]) * csf + np.float32(signal[1]) * gm + np.float32(signal[2]) * wm
    return tissue * (1 + np.float32(texture) * slices.texture), background


def deform(planes: Sequence[np.ndarray], beyond: Sequence[float], pixel: float,
           rng: Generator, zoom: float = 1.0) -> list[np.ndarray]:
    """Turn, scale, shift, mirror and bend images `[y, x]` of one slice at random, all alike.

    Args:
        planes: float32 each, interpolated linearly.
        beyond: what each is outside its field of view.
        pixel: size in mm.
        rng: numpy generator.
        zoom: how much larger everything comes out, as in a field of view so much smaller.
    """
    shape = planes[0].shape
    angle = np.deg2rad(rng.uniform(-15, 15))
    scale = zoom * rng.uniform(0.8, 1.05) * np.exp(0.03 * rng.standard_normal(2))
    mirror = rng.choice([-1, 1])
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    center = (np.array(shape) - 1) / 2
    y = (np.arange(shape[0]) - center[0])[:, None]
    x = np.arange(shape[1]) - center[1]
    shift = rng.uniform(-8, 8, 2) / pixel
    bend = rng.uniform(0, 4) / pixel
    rows = cos[0] * y + sin[0] * x + shift[0] + center[0]
    columns = mirror * (cos[1] * x - sin[1] * y) + shift[1] + center[1]
    at = np.stack([rows + bend * smooth_field(rng, shape, 0.25),
                   columns + bend * smooth_field(rng, shape, 0.25)])
    return [ndimage.map_coordinates(plane, at, order=1, mode="constant", cval=value)
            for plane, value in zip(planes, beyond, strict=True)]
