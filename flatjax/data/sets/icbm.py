"""Simulated brains from the ICBM152 average head that nilearn brings.

Gray and white matter maps (nilearn's `mni_icbm152_*_tal_nlin_sym_09a`; Fonov et al., NeuroImage
2011), the spin-echo equation and a table of tissues make T1-, T2- and PD-weighted axial slices;
random deformations, tissue values, sharpness, heads around the brain, spots and fields make many
training slices of them. One smooth, skull-stripped average head: scores on its held-out slab are
optimistic. The second test set is the real brain of another person, who is never trained on.
"""

import importlib.util
from collections.abc import Sequence
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from numpy.random import Generator
from scipy import ndimage

from flatjax.data import slices
from flatjax.data.base import DataSet, Sample, Volume
from flatjax.data.sets.tissues import CONTRASTS, tissue_signal, tissue_table
from flatjax.errors import InputError
from flatjax.mri.host.simulate import birdcage_maps, image_phase, smooth_field, spin_echo

FOV_MM = 233.0
FOV_RANGE_MM = (100.0, 500.0)
FIRST_SLICE, LAST_SLICE = 24, 143  # of the template, 1 mm each: cerebellum to vertex
SEED = 152  # of everything in the fixed volumes, whatever the training seed
CRISPNESS = 3.0  # of the fixed volumes
BRAIN = ("csf", "gray matter", "white matter")
TISSUES = tissue_table((*BRAIN, "fat"))
TISSUE_SPREAD = np.array([[0.08], [0.08], [0.03]])  # between the people trained on, relative
# what the T1 template shows in pure CSF, GM and WM, by least squares over its inside
TEMPLATE_LEVELS = np.array([69.5, 167.3, 224.3], np.float32)


def make(*, contrasts: Sequence[str] = ("T1", "T2", "PD"), matrix: int = 128,
         coils: int = 1, fov: tuple[float, float] = (FOV_MM, FOV_MM)) -> DataSet:
    """The data set: axial slices, magnitude at most 1, evaluated in a 233 mm field of view.

    Training slices have maximum 1 each. `validation` and `test["held_out"]` are slabs of the
    template, `GAP_MM` away from each other and from what is trained on, one volume per contrast
    with maximum 1 over the volume. `test["other_head"]` is one volume: 16 slices of a real
    T1-weighted brain with a stroke (`images/LICENSE-cstar.txt`).

    Args:
        contrasts: which of `tissues.CONTRASTS`.
        matrix: pixels along each side; samples are `[coils, matrix, matrix]`.
        coils: simulated birdcage coils.
        fov: least and largest field of view in mm of training slices, each of which draws its
            own; a range makes a model for scans of other resolutions and croppings.

    Raises:
        InputError: unknown contrast, matrix, coils or fov out of range, or nilearn is not
            installed.
    """
    slices.check_names("contrasts", contrasts, tuple(CONTRASTS))
    slices.check_grid(matrix, coils)
    if len(fov) != 2 or not FOV_RANGE_MM[0] <= fov[0] <= fov[1] <= FOV_RANGE_MM[1]:
        raise InputError(f"fov is {fov!r}, expected the least and the largest field of view in mm, "
                         f"between {FOV_RANGE_MM[0]:g} and {FOV_RANGE_MM[1]:g}")
    template, regions = load_template(), region_split()
    anatomy = build_anatomy(template, regions["train"], matrix)

    def draw(rng: Generator, n: int) -> list[Sample]:
        return [_draw_sample(anatomy, contrasts, coils, fov, rng) for _ in range(n)]

    def volumes(region: str, seed: int) -> list[Volume]:
        load = partial(_fixed_slices, template, regions[region], matrix=matrix)
        return [slices.fixed_volume(f"icbm_{region}_{name}", partial(load, name), coils, seed + i)
                for i, name in enumerate(CONTRASTS) if name in contrasts]

    def load_other_head() -> np.ndarray:
        stored, spacing = (slices.packaged_array("cstar_t1", key) for key in ("slices", "spacing"))
        images = slices.resample(stored, (float(spacing[1]), float(spacing[2])), FOV_MM, matrix)
        return np.clip(images / images.max(), 0, 1)

    other = slices.fixed_volume("cstar_T1", load_other_head, coils, SEED + 200)
    return DataSet(draw, volumes("validation", SEED),
                   {"held_out": volumes("test", SEED + 100), "other_head": [other]})


def region_split() -> dict[str, np.ndarray]:
    """Slice indices of the template by region, as of `split_slices`."""
    regions = slices.split_slices(LAST_SLICE + 1 - FIRST_SLICE, 1.0)
    return {region: indices + FIRST_SLICE for region, indices in regions.items()}


class Anatomy(NamedTuple):
    """What slices are made of, each `[slice, y, x]` float32."""

    gm: np.ndarray  # gray matter fraction
    wm: np.ndarray  # white matter fraction
    texture: np.ndarray  # what of the template its tissue fractions leave unexplained, relative
    support: np.ndarray  # smooth indicator of the brain, 1 well inside
    outside: np.ndarray  # distance in mm from the brain's convex hull, negative inside


@lru_cache(maxsize=1)
def load_template() -> dict[str, np.ndarray]:
    """The ICBM152 maps "t1", "gm" and "wm" as nilearn packs them, without importing nilearn.

    `[slice, row, column]` uint8 each, 1 mm, displayed as `display_slices` says, read-only.
    InputError if nilearn has no such files.
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
        maps[name] = slices.display_slices(volume, (1, 1, 1), "axial")[0]
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
    *fractions, texture, support = (slices.resample(plane, (1.0, 1.0), FOV_MM, matrix)
                                    for plane in (gm, wm, texture, support))
    gm, wm = np.clip(fractions, 0, 1)
    return Anatomy(gm, wm, texture, support, outside)


def _hull_distance(brain: np.ndarray, matrix: int, directions: int = 48) -> np.ndarray:
    """`Anatomy.outside` of a brain `[y, x]` bool with pixels of 1 mm: `[matrix, matrix]` float32.

    It is the largest of the distances from the hull's supporting lines.
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


def render(anatomy: Anatomy, signal: np.ndarray, crispness: float, rim: float,
           texture: float) -> tuple[np.ndarray, np.ndarray]:
    """The image of an anatomy `[..., y, x]`, and the background that no tissue fills, float32 each.

    Average heads are blurred, single ones are not: fractions `p` become `p^g / sum p^g`, which
    leaves pure tissue as it is and sharpens what lies between.

    Args:
        anatomy: what is imaged.
        signal: of CSF, GM and WM.
        crispness: g, at least 1.
        rim: level of `anatomy.support`, in (0, 1), down to which CSF surrounds the brain.
        texture: strength of the template's texture, 1 as in the template.
    """
    gm, wm = anatomy.gm, anatomy.wm
    csf = np.clip(1 - gm - wm, 0, 1) * np.clip((anatomy.support - rim) / 0.2 + 0.5, 0, 1)
    fractions = np.stack([csf, gm, wm, np.clip(1 - csf - gm - wm, 0, 1)]) ** np.float32(crispness)
    fractions /= fractions.sum(axis=0)
    csf, gm, wm, background = fractions
    tissue = np.float32(signal[0]) * csf + np.float32(signal[1]) * gm + np.float32(signal[2]) * wm
    return tissue * (1 + np.float32(texture) * anatomy.texture), background


def deform(planes: Sequence[np.ndarray], beyond: Sequence[float], pixel: float,
           rng: Generator, zoom: float = 1.0) -> list[np.ndarray]:
    """Turn, scale, shift, mirror and bend images `[y, x]` float32 of one slice at random, alike.

    `beyond` is what each is outside its field of view, `pixel` the size of pixels in mm, and `zoom`
    how much larger everything comes out, as in a field of view so much smaller.
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


def _fixed_slices(template: dict[str, np.ndarray], indices: np.ndarray, contrast: str,
                  matrix: int) -> np.ndarray:
    """The undeformed slices of a contrast, `[slice, y, x]` float32 with maximum 1."""
    anatomy = build_anatomy(template, indices, matrix)
    images, _ = render(anatomy, tissue_signal(BRAIN, contrast), CRISPNESS, 0.3,
                       1.0 if contrast == "T1" else 0.5)
    images = ndimage.gaussian_filter(images, (0, 0.5, 0.5))
    rng = np.random.default_rng([SEED, *contrast.encode()])
    images *= np.exp(0.1 * smooth_field(rng, images.shape[1:], 0.6))
    return images / images.max()


def _draw_sample(anatomy: Anatomy, contrasts: Sequence[str], coils: int,
                 fov: tuple[float, float], rng: Generator) -> Sample:
    shape = anatomy.gm.shape[1:]
    protocol = CONTRASTS[contrasts[int(rng.integers(len(contrasts)))]]
    tissues = TISSUES * np.exp(TISSUE_SPREAD * rng.standard_normal(TISSUES.shape))
    signal = spin_echo(tissues, rng.uniform(*protocol.tr_range), rng.uniform(*protocol.te_range))
    index = rng.integers(len(anatomy.gm))
    width = fov[0] if fov[0] == fov[1] else rng.uniform(*fov)
    # beyond the field of view there is air, far from the head
    plane = Anatomy(*deform([planes[index] for planes in anatomy], (0, 0, 0, 0, FOV_MM),
                            FOV_MM / shape[0], rng, FOV_MM / width))
    image, background = render(plane, signal[:3], rng.uniform(1, 6), rng.uniform(0.1, 0.6),
                               rng.uniform(-0.5, 1.5))
    image *= 1 + 0.04 * rng.random() * smooth_field(rng, shape, rng.uniform(0.008, 0.03))
    if rng.random() < 0.6:
        image += background * _head(plane.outside, signal, width, rng)
    image *= _spots(shape, width, rng)
    image = ndimage.gaussian_filter(image, rng.uniform(0.35, 0.65), truncate=3)
    image *= np.exp(rng.uniform(0, 0.25) * smooth_field(rng, shape, 0.6))
    image = np.maximum(image, 0) / image.max()
    phase = image_phase(rng, shape, rng.uniform(0.1, 1.0))
    maps = birdcage_maps(coils, shape, rotation=rng.uniform(0, 2 * np.pi))
    return slices.make_sample(image, phase, maps)


def _head(outside: np.ndarray, signal: np.ndarray, fov: float, rng: Generator) -> np.ndarray:
    """Fluid, skull and scalp around the brain, by distance from it; `[y, x]` float32."""
    csf, gray, fat = signal[0], signal[1], signal[3]
    layers = np.cumsum(rng.uniform((0, 2, 0, 2, 1, 2), (4, 4, 3, 3, 2, 7)))
    bone = 0.05 * fat
    marrow, skin, scalp = rng.uniform(0.2, 0.9) * fat, 0.8 * gray, rng.uniform(0.4, 1.0) * fat
    levels = (rng.uniform(0, 1) * csf, bone, marrow, bone, skin, scalp, 0)
    edge = 0.5 * fov / outside.shape[0]
    at = np.ravel([(layer - edge, layer + edge) for layer in layers])
    values = np.ravel([(a, b) for a, b in pairwise(levels)])
    wavy = outside + rng.uniform(0, 1.5) * smooth_field(rng, outside.shape, 0.12)
    return np.interp(wavy, np.maximum.accumulate(at), values).astype(np.float32)


def _spots(shape: tuple[int, int], fov: float, rng: Generator) -> np.ndarray:
    """Factors `[y, x]` float32 of up to six small bright or dark spots: lesions, vessels."""
    factors = np.ones(shape, np.float32)
    y, x = ((np.arange(n, dtype=np.float32) - (n - 1) / 2) * fov / n for n in shape)
    for _ in range(rng.integers(7)):
        size, strength = np.exp(rng.uniform(0, np.log(8), 2)), rng.uniform(-0.9, 1.0)
        rows, columns = (np.exp(-((u - rng.uniform(-75, 75)) / width) ** 2)
                         for u, width in zip((y, x), size, strict=True))
        factors *= 1 + strength * np.minimum(1, 2 * rows[:, None] * columns)
    return factors
