"""Any NIfTI volume as a data set: magnitude slices with simulated coils and image phase."""

import importlib.util
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from flatjax.data.base import DataSet, Sample
from flatjax.data.slices import (
    ORIENTATIONS,
    check_grid,
    display_slices,
    fixed_volume,
    make_sample,
    resample,
    split_slices,
)
from flatjax.errors import InputError
from flatjax.mri.simulate import birdcage_maps, image_phase

SEED = 20  # of the image phases of the volumes that are evaluated
SUFFIXES = (".nii", ".nii.gz")
TISSUE_LEVEL = 0.1  # of the bright voxels: what counts as tissue
TISSUE_SHARE = 0.1  # of the area in the fullest slice: how much makes a slice worth using
NEGATIVE_SHARE = 0.01  # of the maximum: what interpolation may have left below zero


def make(*, path: str = "", matrix: int = 0, coils: int = 1, orientation: str = "axial",
         split: bool = True) -> DataSet:
    """The data set of one volume, scaled to maximum 1.

    Slices are displayed as `display_slices` says, whatever the file's axes. Those with little
    tissue are left out. Training slices are mirrored at random (but not sagittal ones) and get a
    random smooth phase and coils turned at random; nothing is interpolated but by `matrix`.

    Args:
        path: of a `.nii` or `.nii.gz` file holding a 3-D magnitude volume. Values a little
            below zero, as interpolation leaves them, become 0; others are refused, since a
            magnitude has none and taking their absolute value would be a guess.
        matrix: pixels along each side of a square field of view as wide as the longer side of a
            slice; 0 for the file's own grid.
        coils: simulated birdcage coils.
        orientation: one of `ORIENTATIONS`.
        split: whether a slab is trained on, another validated and a third tested, by
            `split_slices`; otherwise every slice is tested and `draw` raises `InputError`.

    Returns:
        a `DataSet` whose one test set has one volume, of the file's name.

    Raises:
        InputError: an argument out of range; a file that is missing, cannot be read, is damaged
            or is not such a volume; too few slices to split; nibabel is not installed.
    """
    check_grid(matrix, coils, native=True)
    if orientation not in ORIENTATIONS:
        raise InputError(f"orientation is {orientation!r}, expected one of "
                         f"{', '.join(ORIENTATIONS)}")
    if not path:
        raise InputError("the data set volume has no path: give that of a .nii or .nii.gz file")
    file = Path(path).expanduser()
    name = file.name.removesuffix(".gz").removesuffix(".nii")
    volume, zooms = read_magnitude(file)
    slices, spacing = display_slices(volume, zooms, orientation)
    images = _usable_slices(slices, spacing, matrix)
    if not split:
        return DataSet(_draw_nothing(file), [], {"all": [
            fixed_volume(name, lambda: images, coils, SEED)]})
    try:
        regions = split_slices(len(images), spacing[0])
    except InputError as error:
        raise InputError(f"{file}: {error}; or evaluate all of them with split=False") from error
    train = images[regions.train]
    mirrored = orientation != "sagittal"

    def draw(rng: Generator, n: int) -> list[Sample]:
        return [_draw_sample(train, coils, mirrored, rng) for _ in range(n)]

    validation = fixed_volume(f"{name}_validation", lambda: images[regions.validation], coils,
                              SEED + 1)
    test = fixed_volume(name, lambda: images[regions.test], coils, SEED)
    return DataSet(draw, [validation], {"held_out": [test]})


def read_magnitude(file: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """Read a NIfTI volume, with its axes towards right, anterior and superior.

    Args:
        file: a `.nii` or `.nii.gz` file.

    Returns:
        `(volume, spacing)`: `[x, y, z]` float32 in [0, 1] with maximum 1, and its voxels in mm.

    Raises:
        InputError: as `make` says, naming the file.
    """
    _check_file(file)
    if importlib.util.find_spec("nibabel") is None:
        raise InputError(f"{file}: reading NIfTI files needs nibabel: pip install nibabel")
    volume, spacing = _load(file)
    if not np.isfinite(volume).all():
        bad = np.size(volume) - np.count_nonzero(np.isfinite(volume))
        raise InputError(f"{file}: {bad} voxels are NaN or infinite, expected finite magnitudes; "
                         "replace them, with 0 for instance")
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        raise InputError(f"{file}: every voxel is {high:g}, expected an image")
    if low < -NEGATIVE_SHARE * high:
        raise InputError(f"{file}: values from {low:g} to {high:g}, expected a magnitude image "
                         "without negative values; shift or clip it first")
    return np.clip(volume / np.float32(high), 0, 1), spacing


def _check_file(file: Path) -> None:
    if not file.name.endswith(SUFFIXES):
        raise InputError(f"{file}: expected a NIfTI file, named {' or '.join(SUFFIXES)}; other "
                         "formats can be converted, for instance with nibabel or dcm2niix")
    try:
        with open(file, "rb"):
            pass
    except FileNotFoundError as error:
        raise InputError(f"{file}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{file}: is a directory, expected a NIfTI file") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be opened ({error.strerror}); check its "
                         "permissions") from error


def _load(file: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """The voxels `[x, y, z]` float32 in RAS+ order and their size in mm."""
    import nibabel
    from nibabel.wrapstruct import WrapStructError

    damaged = (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError,
               nibabel.orientations.OrientationError, WrapStructError, zlib.error, OSError,
               EOFError, ValueError, OverflowError, MemoryError)
    try:
        image = nibabel.load(file)
    except damaged as error:
        raise InputError(f"{file}: is not a NIfTI file or is damaged ({_first_line(error)}); "
                         "download or export it again") from error
    _check_header(file, image)
    try:
        if image.ndim == 4:
            image = nibabel.funcs.squeeze_image(image)
        image = nibabel.as_closest_canonical(image)
        volume = np.asarray(image.dataobj, np.float32)
        spacing = tuple(float(size) for size in nibabel.affines.voxel_sizes(image.affine))
    except damaged as error:
        raise InputError(f"{file}: its voxels cannot be read, the file is cut short or damaged "
                         f"({_first_line(error)}); download or export it again") from error
    return volume, spacing


def _check_header(file: Path, image: object) -> None:
    shape, dtype = image.shape, image.get_data_dtype()
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)) or min(shape) < 1:
        raise InputError(f"{file}: its shape is {shape}, expected one 3-D volume; extract one, "
                         "for instance with nibabel.four_to_three")
    if dtype.kind not in "iuf":
        raise InputError(f"{file}: its voxels are {dtype}, expected real numbers; save the "
                         "magnitude")
    sizes = np.sqrt(np.sum(np.square(image.affine[:3, :3]), axis=0))
    if not (np.isfinite(sizes) & (sizes > 0)).all():
        raise InputError(f"{file}: voxels of {' x '.join(f'{size:g}' for size in sizes)} mm, "
                         "expected three positive sizes; mend the affine in its header")


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def _usable_slices(slices: np.ndarray, spacing: tuple[float, float, float],
                   matrix: int) -> np.ndarray:
    """Images `[slice, y, x]` float32 of the slices with enough tissue, maximum 1."""
    tissue = slices > TISSUE_LEVEL * np.percentile(slices[slices > 0], 99)
    areas = tissue.sum(axis=(1, 2))
    images = slices[areas >= TISSUE_SHARE * areas.max()]
    if matrix:
        fov = max(n * step for n, step in zip(images.shape[1:], spacing[1:], strict=True))
        images = np.clip(resample(images, spacing[1:], fov, matrix), 0, None)
    return images / images.max()


def _draw_nothing(file: Path) -> Callable[[Generator, int], list[Sample]]:
    def draw(rng: Generator, n: int) -> list[Sample]:
        raise InputError(f"{file}: with split=False every slice is for testing; set split=True "
                         "to train on a part of it")

    return draw


def _draw_sample(images: np.ndarray, coils: int, mirrored: bool, rng: Generator) -> Sample:
    image = images[rng.integers(len(images))]
    if mirrored and rng.random() < 0.5:
        image = image[:, ::-1]
    phase = image_phase(rng, image.shape, rng.uniform(0.1, 1.0))
    maps = birdcage_maps(coils, image.shape, rotation=rng.uniform(0, 2 * np.pi))
    return make_sample(image, phase, maps)
