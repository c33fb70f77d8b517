"""Real heads with skull and scalp that come with the package, each slice seen by another scanner.

3 T T1w, T2w and FLAIR slices of four patients with lesions (CC0) and the T1w head of one volunteer
in three planes (PDDL); `images/LICENSE-*.txt` have the sources and terms. Split by person: two
patients and the volunteer are trained on, one patient is for validation and one for test. Magnitude
images only: k-space, phase and coils are simulated, see `augment`.
"""

import zipfile
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.random import Generator

from flatjax.data.augment import (
    Augmentation,
    augmented_sample,
    check_augmentation,
    draw_maps,
    draw_phase,
    in_slots,
)
from flatjax.data.base import DataSet, Lazy, Sample, Volume
from flatjax.data.slices import ORIENTATIONS, check_grid, display_slices, make_sample, resample
from flatjax.errors import InputError

CONTRASTS = ("T1w", "T2w", "FLAIR")
TRAIN, VALIDATION, TEST = ("patient1", "patient2"), "patient3", "patient4"
PIXEL_MM = 0.75  # of the patients' images; about, their field of view is not documented
FOV_MM = 240.0  # of the volumes that are evaluated
COILS = 8  # of these volumes, at most
REPEATS = 2  # volumes of each contrast: the same slices, acquired in another way
AIR = 30  # of 255: below lies no tissue
TISSUE_SHARE = 0.15  # of the area in the fullest slice: how much makes a slice worth using


def make(*, matrix: int = 128, coils: int = 12, fewest_coils: int = 1,
         fov: tuple[float, float] = (180.0, 300.0), mixed: float = 0.5,
         gamma: tuple[float, float] = (0.6, 1.6), curve: tuple[float, float] = (0.0, 0.15),
         inverted: float = 0.15, bias: tuple[float, float] = (0.0, 0.4),
         phase: tuple[float, float] = (0.0, 2.0), cropped: float = 0.5) -> DataSet:
    """The data set; training slices have maximum 1 each, volumes over all slices.

    `validation` and `test["patient"]` have `REPEATS` volumes of four slices for each contrast, not
    augmented, in a 240 mm field of view, seen by random arrays of eight coils.

    Args:
        matrix: pixels along each side; samples are `[coils, matrix, matrix]`.
        coils: most coils that a slice has; of those it does not have, k-space and maps are 0.
        fewest_coils: least coils that a training slice has.
        fov: range of the field of view in mm of training slices.
        mixed: how often a patient's training slice is a random mixture of its three contrasts.
        gamma, curve, inverted, bias, phase, cropped: of training slices, see
            `augment.Augmentation`.

    Raises:
        InputError: a range that is empty, out of order or too wide, a probability outside [0, 1];
            a broken installation without the images.
    """
    check_grid(matrix, coils)
    options = Augmentation((fewest_coils, coils), fov, gamma, curve, inverted, bias, phase, cropped)
    check_augmentation(options)
    if not 0 <= mixed <= 1:
        raise InputError(f"mixed is {mixed!r}, expected a probability from 0 to 1")
    patients = [load(name, "images") for name in TRAIN]
    planes = volunteer_planes()

    def read(seed: int) -> Sample:
        rng = np.random.default_rng(seed)
        if rng.random() < 0.5:
            images = patients[rng.integers(len(patients))]
            plane, pixel = _contrast(images[:, rng.integers(images.shape[1])], mixed, rng), PIXEL_MM
        else:
            slices = planes[rng.integers(len(planes))]
            plane, pixel = intensity(slices[rng.integers(len(slices))]), 1.0
        return augmented_sample(plane, pixel, matrix, options, rng)

    def draw(rng: Generator, n: int) -> Lazy:
        return Lazy([partial(read, int(seed)) for seed in rng.integers(2**32, size=n)])

    validation, test = (
        [_volume(name, contrast, repeat, matrix, coils) for contrast in range(len(CONTRASTS))
         for repeat in range(REPEATS)] for name in (VALIDATION, TEST))
    return DataSet(draw, validation, {"patient": test})


@lru_cache(maxsize=8)
def load(name: str, key: str) -> np.ndarray:
    """An array of `images/<name>.npz`, uint8, read-only.

    Raises:
        InputError: the file is missing or broken.
    """
    path = Path(__file__).parents[1] / "images" / f"{name}.npz"
    try:
        with np.load(path) as file:
            array = file[key]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read ({error}), expected an image of the data set "
                         "heads: install flatjax again") from error
    array.setflags(write=False)
    return array


def intensity(codes: np.ndarray) -> np.ndarray:
    """Magnitudes from 0 to 1, float32, of stored 8-bit square roots."""
    return (codes * np.float32(1 / 255)) ** 2


def volunteer_planes() -> list[np.ndarray]:
    """Axial, coronal and sagittal slices with tissue, views `[slice, y, x]` uint8 of 1 mm."""
    volume = load("volunteer", "volume")
    planes = []
    for orientation in ORIENTATIONS:
        slices, _ = display_slices(volume, (1, 1, 1), orientation)
        area = (slices > AIR).sum(axis=(1, 2))
        enough = np.flatnonzero(area >= TISSUE_SHARE * area.max())
        planes.append(slices[enough[0]:enough[-1] + 1])
    return planes


def _contrast(images: np.ndarray, mixed: float, rng: Generator) -> np.ndarray:
    """One of a slice's contrasts `[contrast, y, x]`, or a mixture: `[y, x]` float32."""
    if rng.random() >= mixed:
        return intensity(images[rng.integers(len(images))])
    weights = rng.dirichlet(np.ones(len(images))).astype(np.float32)
    return np.sum([weight * intensity(image)
                   for weight, image in zip(weights, images, strict=True)], axis=0)


def _volume(name: str, contrast: int, repeat: int, matrix: int,
            coils: int) -> Volume:
    """A patient's slices of one contrast, each with its own phase, all seen by one array."""
    def load_samples() -> list[Sample]:
        images = resample(intensity(load(name, "images")[contrast]), (PIXEL_MM, PIXEL_MM), FOV_MM,
                          matrix)
        images = np.clip(images / images.max(), 0, None)
        rng = np.random.default_rng([contrast, repeat, *name.encode()])
        maps = draw_maps(rng, images.shape[1:], min(COILS, coils))
        return [in_slots(make_sample(image, draw_phase(rng, image.shape, rng.uniform(0, 2)), maps),
                         coils) for image in images]

    return Volume(f"{name}_{CONTRASTS[contrast]}_{repeat + 1}", load_samples)
