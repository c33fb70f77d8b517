"""From volumes to slices: what every data set made of magnitude images shares."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from scipy import ndimage

from flatjax.data.base import Sample, Volume
from flatjax.errors import InputError
from flatjax.mri.host.simulate import (
    birdcage_maps,
    host_fft2c,
    image_phase,
    smooth_field,
    sparse_product,
)

ORIENTATIONS = ("axial", "coronal", "sagittal")
GAP_MM = 5.0
TEST_SHARE = 2 / 15
VALIDATION_SHARE = 1 / 15
TISSUE_LEVEL = 0.1  # of the bright voxels: what counts as tissue
TISSUE_SHARE = 0.1  # of the area in the fullest slice: how much makes a slice worth using
IMAGE_PHASE = 0.5  # rad in rms, of every simulated image that is evaluated


class Split(NamedTuple):
    """Slice indices of the three regions of a volume, int64, each rising."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def split_slices(count: int, spacing: float) -> Split:
    """Split a volume's slices by region, since neighboring slices show the same anatomy.

    From the first slice to the last: train, gap, test (central), gap, validation, gap, train.
    Test takes `TEST_SHARE` of the slices and validation `VALIDATION_SHARE`, each at least one; a
    gap is as many unused slices as fill `GAP_MM`.

    Args:
        count: number of slices.
        spacing: between slices, in mm.

    Returns:
        a `Split` of `range(count)`.

    Raises:
        InputError: too few slices for three regions with their gaps.
    """
    gap = max(1, int(np.ceil(GAP_MM / spacing - 1e-6)))
    if count < 2 * gap + 3:
        raise InputError(f"{count} slices with tissue, {spacing:.3g} mm apart, are too few to "
                         f"split into train, validation and test regions: at least "
                         f"{2 * gap + 3} are needed, {GAP_MM:g} mm left out between regions")
    test = min(max(1, round(count * TEST_SHARE)), count - 2 * gap - 2)
    first = (count - test) // 2
    after = first + test + gap
    validation = min(max(1, round(count * VALIDATION_SHARE)), count - after)
    every = np.arange(count)
    train = np.concatenate([every[:first - gap], every[after + validation + gap:]])
    return Split(train, every[after:after + validation], every[first:first + test])


def display_slices(volume: np.ndarray, spacing: tuple[float, float, float],
                   orientation: str) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Slices in the orientation in which radiologists view them.

    Axial: rows run from anterior to posterior, columns from the patient's right to left, slices
    upwards. Coronal: rows from superior to inferior, columns right to left, slices forwards.
    Sagittal: rows from superior to inferior, columns from anterior to posterior, slices from
    left to right.

    Args:
        volume: `[x, y, z]`, axes toward right, anterior and superior (RAS+).
        spacing: of `x, y, z` in mm.
        orientation: one of `ORIENTATIONS`.

    Returns:
        `(slices, spacing)`: a view `[slice, row, column]` and its spacing in mm.

    Raises:
        InputError: unknown orientation.
    """
    if orientation not in ORIENTATIONS:
        raise InputError(f"orientation is {orientation!r}, expected one of "
                         f"{', '.join(ORIENTATIONS)}")
    order = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}[orientation]
    slices = volume.transpose(order)[:, ::-1, ::-1]
    between, row, column = (float(spacing[axis]) for axis in order)
    return slices, (between, row, column)


@lru_cache(maxsize=32)
def _resampling_taps(size: int, spacing: float, new_size: int,
                     new_spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Keys' cubic kernel, widened where it must keep out aliases: index, weights `[new, taps]`."""
    width = max(1.0, new_spacing / spacing)
    at = (np.arange(new_size) - (new_size - 1) / 2) * new_spacing / spacing + (size - 1) / 2
    reach = int(np.ceil(2 * width))
    index = np.floor(at).astype(int)[:, None] + np.arange(1 - reach, reach + 1)
    u = np.abs(at[:, None] - index) / width
    near = 1.5 * u**3 - 2.5 * u**2 + 1
    far = -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2
    weights = np.where(u < 1, near, np.where(u < 2, far, 0.0))
    weights /= weights.sum(axis=1, keepdims=True)
    within = (index >= 0) & (index < size)
    return np.where(within, index, 0), np.where(within, weights, 0.0)


def resample(slices: np.ndarray, spacing: tuple[float, float], fov: float,
             matrix: int) -> np.ndarray:
    """Resample slices to a square field of view around the same center, zeros beyond.

    Cubic interpolation where pixels get smaller, the same kernel widened to the new pixel where
    they get larger. It is linear, and overshoots a little at edges: clip what may not be
    negative.

    Args:
        slices: `[..., h, w]`.
        spacing: of rows and columns in mm.
        fov: side of the field of view in mm.
        matrix: pixels along it.

    Returns:
        `[..., matrix, matrix]` float32, pixels of `fov / matrix` mm.
    """
    rows, columns = (_resampling_taps(n, step, matrix, fov / matrix)
                     for n, step in zip(slices.shape[-2:], spacing, strict=True))
    return sparse_product(sparse_product(slices.astype(np.float32), *rows, -2), *columns, -1)


def make_sample(magnitude: np.ndarray, phase: np.ndarray, maps: np.ndarray) -> Sample:
    """The fully sampled slice that an image gives.

    Args:
        magnitude: `[y, x]` float32, not negative; becomes the target.
        phase: unit phasors `[y, x]` complex64.
        maps: `[coil, y, x]` complex64 with `sum_c |S_c|^2 == 1`.
    """
    magnitude = np.array(magnitude, np.float32, order="C")  # a copy: the caller keeps its own
    return Sample(host_fft2c(maps * (magnitude * phase)), maps, magnitude)


def usable_slices(slices: np.ndarray, spacing: tuple[float, float, float],
                  matrix: int) -> np.ndarray:
    """The slices with enough tissue, scaled to maximum 1.

    Args:
        slices: `[slice, row, column]`, not negative.
        spacing: in mm.
        matrix: pixels along each side of a square field of view as wide as the longer side of a
            slice; 0 for the slices' own grid.

    Returns:
        `[slice, y, x]` float32.
    """
    tissue = slices > TISSUE_LEVEL * np.percentile(slices[slices > 0], 99)
    areas = tissue.sum(axis=(1, 2))
    images = slices[areas >= TISSUE_SHARE * areas.max()]
    if matrix:
        fov = max(n * step for n, step in zip(images.shape[1:], spacing[1:], strict=True))
        images = np.clip(resample(images, spacing[1:], fov, matrix), 0, None)
    return images / images.max()


def draw_sample(image: np.ndarray, coils: int, mirrored: bool, rng: Generator) -> Sample:
    """A training sample of an image, with a random smooth phase and coils turned at random.

    Args:
        image: magnitude `[y, x]` float32.
        coils: number of birdcage coils.
        mirrored: whether every second sample is mirrored left to right.
        rng: numpy generator.
    """
    if mirrored and rng.random() < 0.5:
        image = image[:, ::-1]
    phase = image_phase(rng, image.shape, rng.uniform(0.1, 1.0))
    maps = birdcage_maps(coils, image.shape, rotation=rng.uniform(0, 2 * np.pi))
    return make_sample(image, phase, maps)


def fixed_volume(name: str, load: Callable[[], np.ndarray], coils: int,
                 seed: int | Sequence[int]) -> Volume:
    """A volume for evaluation, the same whenever it is loaded.

    Args:
        name: of the volume.
        load: gives the magnitude images `[slice, y, x]` float32.
        coils: number of birdcage coils.
        seed: of the image phases, one smooth random phase per slice.
    """
    def load_samples() -> list[Sample]:
        images = load()
        shape = images.shape[1:]
        rng = np.random.default_rng(seed)
        maps = birdcage_maps(coils, shape)
        return [make_sample(image, image_phase(rng, shape, IMAGE_PHASE), maps)
                for image in images]

    return Volume(name, load_samples)


def load_head(name: str, fov: float, matrix: int) -> np.ndarray:
    """A real head that comes with the package, from `images/<name>.npz`.

    Args:
        name: of the file, which holds `slices` `[slice, y, x]` uint8 and their `spacing` in mm.
        fov: side of the field of view in mm.
        matrix: pixels along it.

    Returns:
        `[slice, matrix, matrix]` float32 with maximum 1.
    """
    with np.load(Path(__file__).with_name("images") / f"{name}.npz") as file:
        slices, spacing = file["slices"], file["spacing"]
    images = resample(slices, (float(spacing[1]), float(spacing[2])), fov, matrix)
    return np.clip(images / images.max(), 0, 1)


def deform(planes: Sequence[np.ndarray], beyond: Sequence[float], pixel: float,
           rng: Generator, zoom: float = 1.0) -> list[np.ndarray]:
    """Turn, scale, shift, mirror and bend images of one slice at random, within its plane.

    Args:
        planes: `[y, x]` float32 each, deformed alike.
        beyond: what each is outside its field of view.
        pixel: size in mm.
        rng: numpy generator.
        zoom: how much larger everything comes out, as in a field of view so much smaller.

    Returns:
        as `planes`, interpolated linearly.
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


def check_grid(matrix: int, coils: int, *, native: bool = False) -> None:
    """Refuse a matrix or coil count that no slice could have.

    Args:
        matrix: pixels along a side; 0 for the file's own where `native`.
        coils: number of coils.
        native: whether 0 is allowed.

    Raises:
        InputError: not a whole number, or out of range.
    """
    if not _is_whole(matrix) or not (16 <= matrix <= 1024 or (native and matrix == 0)):
        zero = " or 0 for the file's own" if native else ""
        raise InputError(f"matrix is {matrix!r}, expected a whole number from 16 to 1024{zero}")
    if not _is_whole(coils) or not 1 <= coils <= 128:
        raise InputError(f"coils is {coils!r}, expected a whole number from 1 to 128")


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
