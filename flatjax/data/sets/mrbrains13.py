"""MRBrainS13: brains of five people at 3 T with several contrasts, in a folder of a user's own.

Mendrik et al., "MRBrainS challenge: online evaluation framework for brain image segmentation in 3T
MRI scans", Computational Intelligence and Neuroscience 2015; doi 10.34894/645ZIN. The volumes are
magnitudes, so k-space is simulated; the labels that come with them are not used.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flatjax.data.base import DataSet
from flatjax.data.io.volumes import read_magnitude, stem
from flatjax.data.sets.folder import find_volumes
from flatjax.data.subjects import SubjectVolume, make_dataset
from flatjax.errors import InputError

CONTRASTS = ("T1", "T1_IR", "T2_FLAIR", "T1_1mm")
TREE = "TrainingData"


def make(*, path: str = "", contrasts: Sequence[str] = ("T1",), matrix: int = 0, coils: int = 1,
         orientation: str = "axial", split: bool = True, split_seed: int = 0,
         validation: Sequence[str] = (), test: Sequence[str] = (), validation_share: float = 0.1,
         test_share: float = 0.2, cache: str = "", skip_bad: bool = False) -> DataSet:
    """The data set of the folder `TrainingData`: one volume per subject and contrast.

    Slices, phases and coils are as the data set `volume` makes them.

    Args:
        path: of `TrainingData`, with a folder `1` to `5` per subject, or of the one above it.
        contrasts: some of `CONTRASTS`. T1, T1_IR and T2_FLAIR are aligned, 240 x 240 pixels of
            0.96 mm in 48 slices of 3 mm; T1_1mm is the T1 scan as it was acquired.
        matrix: pixels along each side of a square field of view as wide as the longer side of a
            slice; 0 for the files' own grids.
        coils: simulated birdcage coils.
        orientation: one of `slices.ORIENTATIONS`.
        split: whether subjects are split; otherwise all are tested and `draw` raises.
        split_seed: of the split.
        validation, test: subjects with that role, as ("5",); drawn by the shares if empty.
        validation_share, test_share: of the subjects, at least one each.
        cache: folder for prepared slices, "" for `.flatjax-NAME` beside the folder.
        skip_bad: leave bad volumes out, with a warning, instead of refusing the folder.

    Raises:
        InputError: an option out of range; a folder without subjects; a volume that is missing
            or damaged; too few subjects.
    """
    if not path:
        raise InputError("the data set mrbrains13 has no path: set data.path to its folder "
                         f"{TREE}, with subjects 1 to 5")
    unknown = [one for one in contrasts if one not in CONTRASTS]
    if unknown or not contrasts or isinstance(contrasts, str):
        raise InputError(f"contrasts is {contrasts!r}, expected some of {', '.join(CONTRASTS)} as "
                         "('T1', 'T2_FLAIR')")
    folder = Path(path).expanduser()
    if (folder / TREE).is_dir():
        folder = folder / TREE
    files = {(file.parent, stem(file.name)): file for file in find_volumes(folder)
             if file.parent.parent == folder}
    subjects = sorted({place for place, _ in files})
    if not subjects:
        raise InputError(f"{folder}: no subject with volumes in it, expected folders 1 to 5 with "
                         f"T1.nii and so on; set data.path to {TREE}")
    scans = [_scan(place, contrast, files.get((place, contrast)))
             for place in subjects for contrast in contrasts]
    return make_dataset(
        "mrbrains13", folder, scans, matrix=matrix, coils=coils, orientation=orientation,
        split=split, split_seed=split_seed, validation=validation, test=test,
        validation_share=validation_share, test_share=test_share, cache=cache, skip_bad=skip_bad)


def _scan(place: Path, contrast: str, file: Path | None) -> SubjectVolume:
    """The scan of a subject; one that is missing is found to be so when it is prepared."""
    missing = place / f"{contrast}.nii"
    return SubjectVolume(place.name, f"{place.name}_{contrast}", (file,) if file else (), "",
                partial(read_magnitude, file or missing))
