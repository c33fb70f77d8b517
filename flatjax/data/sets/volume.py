"""Any volume as a data set: magnitude slices with simulated coils and image phase."""

from collections.abc import Sequence
from pathlib import Path

from numpy.random import Generator

from flatjax.data.base import DataSet, Sample
from flatjax.data.io.volumes import READERS, Raw, read_magnitude, stem
from flatjax.data.slices import (
    check_grid,
    display_slices,
    draw_sample,
    fixed_volume,
    split_slices,
    usable_slices,
)
from flatjax.errors import InputError

SEED = 20  # of the image phases of the volumes that are evaluated


def make(*, path: str = "", matrix: int = 0, coils: int = 1, orientation: str = "axial",
         split: bool = True, raw_shape: Sequence[int] = (), raw_dtype: str = "",
         raw_order: str = "zyx", raw_spacing: Sequence[float] = ()) -> DataSet:
    """The data set of one volume, scaled to maximum 1; its one test set has its name.

    Slices are displayed as `display_slices` says, whatever the file's axes. Those with little
    tissue are left out. Training slices are mirrored at random (but not sagittal ones) and get a
    random smooth phase and coils turned at random; nothing is interpolated but by `matrix`.

    Args:
        path: of a file holding a 3-D magnitude volume in a format of `io.volumes.READERS`.
        matrix, coils, orientation: as of `subjects.make_dataset`.
        split: whether a slab is trained on, another validated and a third tested, by
            `split_slices`; otherwise every slice is tested and `draw` raises `InputError`.
        raw_shape, raw_dtype, raw_order, raw_spacing: of voxels without a header, the fields of
            `io.volumes.Raw`; what is left out is taken from the file's name.

    Raises:
        InputError: an argument out of range; a file that is missing, cannot be read, is damaged
            or is not such a volume; too few slices to split.
    """
    check_grid(matrix, coils, orientation, native=True)
    if not path:
        raise InputError("the data set volume has no path: set data.path to a file named "
                         f"{', '.join(READERS)}, or one of these and .gz")
    file = Path(path).expanduser()
    name = stem(file.name)
    volume, zooms = read_magnitude(file, Raw(raw_shape, raw_dtype, raw_order, raw_spacing))
    slices, spacing = display_slices(volume, zooms, orientation)
    images = usable_slices(slices, spacing, matrix)
    train, validation, test = images, images, images
    if split:
        try:
            regions = split_slices(len(images), spacing[0])
        except InputError as error:
            raise InputError(f"{file}: {error}; or evaluate all of them with split=False"
                             ) from error
        train, validation, test = (images[regions[role]]
                                   for role in ("train", "validation", "test"))

    def draw(rng: Generator, n: int) -> list[Sample]:
        if not split:
            raise InputError(f"{file}: with split=False every slice is for testing; set split=True "
                             "to train on a part of it")
        return [draw_sample(train[rng.integers(len(train))], coils, orientation != "sagittal", rng)
                for _ in range(n)]

    validated = fixed_volume(f"{name}_validation", lambda: validation, coils, SEED + 1)
    return DataSet(draw, [validated] if split else [], {
        "held_out" if split else "all": [fixed_volume(name, lambda: test, coils, SEED)]})
