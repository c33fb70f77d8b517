"""Real heads with skull and scalp that come with the package, each slice seen by another scanner.

3 T T1w, T2w and FLAIR slices of four patients with lesions (CC0) and the T1w head of one volunteer
in three planes (PDDL); `images/LICENSE-*.txt` have the sources and terms. Split by person: two
patients and the volunteer are trained on, one patient is for validation and one for test. These are
magnitude images: k-space, phase and coils are simulated, see `augment`. A second test set is a real
scan, fully sampled k-space of a brain by a head coil (MIT).
"""

import inspect
from typing import Any

import numpy as np
from numpy.random import Generator

from flatjax.data import augment
from flatjax.data.augment import Augmentation
from flatjax.data.base import DataSet, Lazy, Sample, Volume
from flatjax.data.slices import ORIENTATIONS, display_slices, make_sample, packaged_array, resample
from flatjax.mri.host.sensitivities import from_box
from flatjax.mri.host.simulate import host_ifft2c

CONTRASTS = ("T1w", "T2w", "FLAIR")
TRAIN, VALIDATION, TEST = ("patient1", "patient2"), "patient3", "patient4"
PIXEL_MM = 0.75  # of the patients' images; about, their field of view is not documented
FOV_MM = 240.0  # of the volumes that are evaluated
COILS = 8  # of these volumes, at most
REPEATS = 2  # volumes of each contrast: the same slices, acquired in another way
AIR = 30  # of 255: below lies no tissue
TISSUE_SHARE = 0.15  # of the area in the fullest slice: how much makes a slice worth using
SCAN_CENTER = 24  # samples along each side that the scan's coil maps are made of
SCAN_AIR = 8  # columns at each side of its coil images, which hold noise alone


def make(**options: Any) -> DataSet:
    """The data set; its options are those of `augment.Augmentation`.

    Training slices have maximum 1 each, volumes over all slices. `validation` and `test["patient"]`
    have `REPEATS` volumes of four slices for each contrast, not augmented, in a 240 mm field of
    view, seen by random arrays of eight coils. `test["scan"]` is one slice of 128 x 128 by eight
    virtual coils, with its own noise, .007 of the maximum. Its maps are ESPIRiT's of the full
    center, and combine the coils for the target.

    Raises:
        InputError: from `check_augmentation`; a broken installation without the images.
    """
    drawn = Augmentation(**options)
    augment.check_augmentation(drawn)
    patients = [packaged_array(name, "images") for name in TRAIN]
    planes = volunteer_planes()

    def read(seed: int) -> Sample:
        rng = np.random.default_rng(seed)
        if rng.random() < 0.5:
            images = patients[rng.integers(len(patients))]
            plane = _contrast(images[:, rng.integers(images.shape[1])], drawn.mixed, rng)
            pixel = PIXEL_MM
        else:
            slices = planes[rng.integers(len(planes))]
            plane, pixel = intensity(slices[rng.integers(len(slices))]), 1.0
        return augment.augmented_sample(plane, pixel, drawn, rng)

    def draw(rng: Generator, n: int) -> Lazy:
        return Lazy(read, rng.integers(2**32, size=n).tolist())

    validation, test = (
        [_volume(name, contrast, repeat, drawn.matrix, drawn.coils)
         for contrast in range(len(CONTRASTS)) for repeat in range(REPEATS)]
        for name in (VALIDATION, TEST))
    return DataSet(draw, validation, {"patient": test, "scan": [Volume("scan", load_scan)]})


make.__signature__ = inspect.signature(Augmentation)  # pyright: ignore[reportFunctionMemberAccess]


def intensity(codes: np.ndarray) -> np.ndarray:
    """Magnitudes from 0 to 1, float32, of stored 8-bit square roots."""
    return (codes * np.float32(1 / 255)) ** 2


def volunteer_planes() -> list[np.ndarray]:
    """Axial, coronal and sagittal slices with tissue, views `[slice, y, x]` uint8 of 1 mm."""
    volume = packaged_array("volunteer", "volume")
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


def _volume(name: str, contrast: int, repeat: int, matrix: int, coils: int) -> Volume:
    """A patient's slices of one contrast, each with its own phase, all seen by one array."""
    def load_samples() -> list[Sample]:
        images = intensity(packaged_array(name, "images")[contrast])
        images = resample(images, (PIXEL_MM, PIXEL_MM), FOV_MM, matrix)
        images = np.clip(images / images.max(), 0, None)
        rng = np.random.default_rng([contrast, repeat, *name.encode()])
        shape = images.shape[1:]
        maps = augment.draw_maps(rng, shape, min(COILS, coils))
        phases = (augment.draw_phase(rng, shape, rng.uniform(0, 2)) for _ in images)
        return [augment.in_slots(make_sample(image, phase, maps), coils)
                for image, phase in zip(images, phases, strict=True)]

    return Volume(f"{name}_{CONTRASTS[contrast]}_{repeat + 1}", load_samples)


def load_scan() -> list[Sample]:
    """The slice of a real scan, its image of maximum 1."""
    kspace = packaged_array("scan", "kspace")
    maps = from_box(kspace, SCAN_CENTER, SCAN_CENTER)
    images = host_ifft2c(kspace)
    image = np.abs(np.sum(np.conj(maps) * images, axis=0))
    air = np.concatenate([images[..., :SCAN_AIR], images[..., -SCAN_AIR:]])
    noise = np.sqrt(np.mean(np.abs(air) ** 2)) / image.max()
    return [Sample(kspace / image.max(), maps, image / image.max(), noise=float(noise))]
