"""MRBrainS13: brains of five people at 3 T with several contrasts, in a folder of a user's own.

Mendrik et al., "MRBrainS challenge: online evaluation framework for brain image segmentation in 3T
MRI scans", Computational Intelligence and Neuroscience 2015; doi 10.34894/645ZIN. The volumes are
magnitudes, so k-space is simulated; the labels that come with them are not used.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from flatjax.data.io.volumes import read_magnitude, stem
from flatjax.data.sets.folder import find_volumes
from flatjax.data.slices import check_names
from flatjax.data.subjects import SubjectVolume, subject_dataset
from flatjax.errors import InputError

CONTRASTS = ("T1", "T1_IR", "T2_FLAIR", "T1_1mm")
TREE = "TrainingData"


def find(folder: Path, *, contrasts: Sequence[str] = ("T1",)) -> list[SubjectVolume]:
    """The volumes of `TrainingData`, one per subject and contrast.

    Args:
        folder: `TrainingData`, with a folder `1` to `5` per subject, or the one above it.
        contrasts: some of `CONTRASTS`. T1, T1_IR and T2_FLAIR are aligned, 240 x 240 pixels of
            0.96 mm in 48 slices of 3 mm; T1_1mm is the T1 scan as it was acquired.

    Raises:
        InputError: other contrasts, or a folder without subjects. A file that is missing is named
            when it is read.
    """
    check_names("contrasts", contrasts, CONTRASTS)
    if (folder / TREE).is_dir():
        folder = folder / TREE
    files = {(file.parent, stem(file.name)): file for file in find_volumes(folder)
             if file.parent.parent == folder}
    if not files:
        raise InputError(f"{folder}: no subject with volumes in it, expected folders 1 to 5 with "
                         f"T1.nii and so on; set data.path to {TREE}")
    volumes = []
    for place in sorted({place for place, _ in files}):
        for contrast in contrasts:
            file = files.get((place, contrast))
            read = partial(read_magnitude, file or place / f"{contrast}.nii")
            volumes.append(SubjectVolume(place.name, f"{place.name}_{contrast}",
                                         (file,) if file else (), "", read))
    return volumes


make = subject_dataset(find)
