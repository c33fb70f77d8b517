"""Simulated brains from the ICBM152 average head that nilearn brings.

Gray and white matter maps, the spin-echo equation and BrainWeb's tissue table make T1-, T2- and
PD-weighted axial slices; random deformations, tissue values, sharpness, heads around the brain,
spots and fields make many training slices of them. No download is needed.

One smooth, skull-stripped average head: scores on its held-out slab are optimistic. The second
test set is the real brain of another person, who is never trained on.

References: nilearn's `mni_icbm152_*_tal_nlin_sym_09a` (Fonov et al., NeuroImage 2011); tissue
table of BrainWeb's normal phantom at 1.5 T (Collins et al., IEEE TMI 1998).
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from flatjax.data.base import DataSet, Sample, Volume
from flatjax.data.sets.icbm_anatomy import (
    FOV_MM,
    Anatomy,
    build_anatomy,
    deform,
    load_template,
    render,
)
from flatjax.data.sets.tissues import CONTRASTS, tissue_signal, tissue_table
from flatjax.data.slices import (
    Split,
    check_grid,
    check_names,
    fixed_volume,
    make_sample,
    packaged_array,
    resample,
    split_slices,
)
from flatjax.errors import InputError
from flatjax.mri.host.simulate import birdcage_maps, image_phase, smooth_field, spin_echo

FOV_RANGE_MM = (100.0, 500.0)
FIRST_SLICE, LAST_SLICE = 24, 143  # of the template, 1 mm each: cerebellum to vertex
SEED = 152  # of everything in the fixed volumes, whatever the training seed
CRISPNESS = 3.0  # of the fixed volumes
BRAIN = ("csf", "gray matter", "white matter")
TISSUES = tissue_table((*BRAIN, "fat"))
TISSUE_SPREAD = np.array([[0.08], [0.08], [0.03]])  # between the people trained on, relative


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
    check_names("contrasts", contrasts, tuple(CONTRASTS))
    check_grid(matrix, coils)
    if len(fov) != 2 or not FOV_RANGE_MM[0] <= fov[0] <= fov[1] <= FOV_RANGE_MM[1]:
        raise InputError(f"fov is {fov!r}, expected the least and the largest field of view in mm, "
                         f"between {FOV_RANGE_MM[0]:g} and {FOV_RANGE_MM[1]:g}")
    template = load_template()
    split = region_split()
    anatomy = build_anatomy(template, split.train, matrix)

    def draw(rng: Generator, n: int) -> list[Sample]:
        return [_draw_sample(anatomy, contrasts, coils, fov, rng) for _ in range(n)]

    def volumes(region: str, seed: int) -> list[Volume]:
        load = partial(_fixed_slices, template, getattr(split, region), matrix=matrix)
        return [fixed_volume(f"icbm_{region}_{name}", partial(load, name), coils, seed + i)
                for i, name in enumerate(CONTRASTS) if name in contrasts]

    def load_other_head() -> np.ndarray:
        slices, spacing = (packaged_array("cstar_t1", key) for key in ("slices", "spacing"))
        images = resample(slices, (float(spacing[1]), float(spacing[2])), FOV_MM, matrix)
        return np.clip(images / images.max(), 0, 1)

    other = fixed_volume("cstar_T1", load_other_head, coils, SEED + 200)
    return DataSet(draw, volumes("validation", SEED),
                   {"held_out": volumes("test", SEED + 100), "other_head": [other]})


def region_split() -> Split:
    """Slice indices of the template by region."""
    split = split_slices(LAST_SLICE + 1 - FIRST_SLICE, 1.0)
    return Split(*(indices + FIRST_SLICE for indices in split))


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
    return make_sample(image, phase, maps)


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
