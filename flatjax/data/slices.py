"""From volumes to slices: what every data set made of magnitude images shares."""

import zipfile
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import Generator

from flatjax.data.base import Sample, Volume
from flatjax.errors import InputError, check_choice
from flatjax.mri.host.simulate import birdcage_maps, host_fft2c, image_phase, sparse_product

ORIENTATIONS = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
GAP_MM = 5.0
TEST_SHARE = 2 / 15
VALIDATION_SHARE = 1 / 15
TISSUE_LEVEL = 0.1  # of the bright voxels: what counts as tissue
TISSUE_SHARE = 0.1  # of the area in the fullest slice: how much makes a slice worth using
IMAGE_PHASE = 0.5  # rad in rms, of every simulated image that is evaluated


def check_grid(matrix: int, coils: int, orientation: str = "axial", *,
               native: bool = False) -> None:
    """InputError for options that no slice could have; a matrix of 0 is the file's, if `native`."""
    if matrix not in range(16, 1025) and not (native and matrix == 0):
        zero = " or 0 for the file's own" if native else ""
        raise InputError(f"matrix is {matrix!r}, expected a whole number from 16 to 1024{zero}")
    if coils not in range(1, 129):
        raise InputError(f"coils is {coils!r}, expected a whole number from 1 to 128")
    check_choice("orientation", orientation, ORIENTATIONS)


def check_names(option: str, values: Sequence[str], known: Sequence[str] = ()) -> None:
    """InputError for an option that is no list of names, or not some of those known, if any."""
    if isinstance(values, str) or (known and not (values and set(values) <= {*known})):
        some = f"some of {', '.join(known)}" if known else "names"
        raise InputError(f"{option} is {values!r}, expected a list of {some}, as ('a', 'b')")


def split_slices(count: int, spacing: float) -> dict[str, np.ndarray]:
    """Split a volume's slices by region, since neighboring slices show the same anatomy.

    From the first slice to the last: train, gap, test (central), gap, validation, gap, train.
    Test takes `TEST_SHARE` of the slices and validation `VALIDATION_SHARE`, each at least one; a
    gap is as many unused slices as fill `GAP_MM`. `spacing` is that between slices in mm.

    Returns:
        rising indices, int64, by "train", "validation" and "test"; InputError for too few slices.
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
    return {"train": np.concatenate([every[:first - gap], every[after + validation + gap:]]),
            "validation": every[after:after + validation], "test": every[first:first + test]}


def display_slices(volume: np.ndarray, spacing: tuple[float, float, float],
                   orientation: str) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Slices in the orientation in which radiologists view them.

    Of a volume `[x, y, z]`, axes toward right, anterior and superior (RAS+), with its spacing in
    mm: a view `[slice, row, column]` and its spacing in mm. Axial: rows run from anterior to
    posterior, columns from the patient's right to left, slices upwards. Coronal: rows from superior
    to inferior, columns right to left, slices forwards. Sagittal: rows from superior to inferior,
    columns from anterior to posterior, slices from left to right.
    """
    order = ORIENTATIONS[orientation]
    between, row, column = (float(spacing[axis]) for axis in order)
    return volume.transpose(order)[:, ::-1, ::-1], (between, row, column)


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
    """Resample slices to a square field of view of `fov` mm around the same center.

    Of `[..., h, w]`, zero beyond their own field of view, with the spacing of rows and columns in
    mm: `[..., matrix, matrix]` float32. Cubic interpolation where pixels get smaller, the same
    kernel widened to the new pixel where they get larger. It overshoots a little at edges: clip
    what may not be negative.
    """
    rows, columns = (_resampling_taps(n, step, matrix, fov / matrix)
                     for n, step in zip(slices.shape[-2:], spacing, strict=True))
    return sparse_product(sparse_product(slices.astype(np.float32), *rows, -2), *columns, -1)


def usable_slices(slices: np.ndarray, spacing: tuple[float, float, float],
                  matrix: int) -> np.ndarray:
    """The slices with enough tissue, `[slice, y, x]` float32, scaled to maximum 1.

    Of slices `[slice, row, column]`, not negative, with their spacing in mm. A matrix above 0
    resamples them to so many pixels along a square field of view as wide as their longer side.
    """
    tissue = slices > TISSUE_LEVEL * np.percentile(slices[slices > 0], 99)
    areas = tissue.sum(axis=(1, 2))
    images = slices[areas >= TISSUE_SHARE * areas.max()]
    if matrix:
        fov = max(n * step for n, step in zip(images.shape[1:], spacing[1:], strict=True))
        images = np.clip(resample(images, spacing[1:], fov, matrix), 0, None)
    return images / images.max()


def make_sample(magnitude: np.ndarray, phase: np.ndarray, maps: np.ndarray) -> Sample:
    """The fully sampled slice of a magnitude image `[y, x]`, a copy of which is the target.

    `phase` `[y, x]` complex64 are unit phasors, `maps` `[coil, y, x]` complex64 sensitivities.
    """
    magnitude = np.array(magnitude, np.float32, order="C")
    return Sample(host_fft2c(maps * (magnitude * phase)), maps, magnitude)


def draw_sample(image: np.ndarray, coils: int, mirrored: bool, rng: Generator) -> Sample:
    """A training sample of a magnitude image `[y, x]`, with a random smooth phase.

    Its birdcage coils are turned at random; every second one is mirrored left to right, if asked.
    """
    if mirrored and rng.random() < 0.5:
        image = image[:, ::-1]
    phase = image_phase(rng, image.shape, rng.uniform(0.1, 1.0))
    maps = birdcage_maps(coils, image.shape, rotation=rng.uniform(0, 2 * np.pi))
    return make_sample(image, phase, maps)


def fixed_volume(name: str, load: Callable[[], np.ndarray], coils: int,
                 seed: int | Sequence[int]) -> Volume:
    """A volume for evaluation, the same whenever it is loaded.

    `load` gives its magnitude images `[slice, y, x]` float32. They are seen by birdcage coils, each
    with a smooth random phase drawn from `seed`.
    """
    def load_samples() -> list[Sample]:
        images, rng = load(), np.random.default_rng(seed)
        shape = images.shape[1:]
        maps = birdcage_maps(coils, shape)
        return [make_sample(image, image_phase(rng, shape, IMAGE_PHASE), maps)
                for image in images]

    return Volume(name, load_samples)


@lru_cache(maxsize=8)
def packaged_array(name: str, key: str) -> np.ndarray:
    """A read-only array of the package's `images/<name>.npz`; InputError if that is broken."""
    path = Path(__file__).with_name("images") / f"{name}.npz"
    try:
        with np.load(path) as file:
            array = file[key]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}), expected images that come with "
                         "flatjax: install it again") from error
    array.setflags(write=False)
    return array
