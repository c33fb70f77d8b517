"""Images of BrainWeb's anatomical models: its tissue table and the spin-echo equation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flatjax.data.io.volumes import format_of, read_volume, stem
from flatjax.data.io.volumes.common import Spacing
from flatjax.data.sets.icbm import CONTRASTS
from flatjax.errors import InputError
from flatjax.mri.host.simulate import spin_echo

# T1 and T2 in ms, PD
TISSUES = {
    "background": (1.0, 1.0, 0.0),
    "csf": (2569.0, 329.0, 1.0),
    "gray matter": (833.0, 83.0, 0.86),
    "white matter": (500.0, 70.0, 0.77),
    "fat": (350.0, 70.0, 1.0),
    "muscle/skin": (900.0, 47.0, 1.0),
    "skin": (2569.0, 329.0, 1.0),
    "skull": (1.0, 1.0, 0.0),
    "glial matter": (833.0, 83.0, 0.86),
    "connective": (500.0, 70.0, 0.77),
    "lesion": (752.0, 237.0, 0.76),
}
# What a label means. The table has no blood, dura or marrow of the twenty models: they are taken
# for what is nearest in it.
PHANTOM_LABELS = tuple(TISSUES)
SUBJECT_LABELS = ("background", "csf", "gray matter", "white matter", "fat", "muscle/skin",
                  "muscle/skin", "skull", "csf", "fat", "connective", "fat")
FUZZY_NAMES = {
    "bck": "background", "csf": "csf", "gry": "gray matter", "gm": "gray matter",
    "wht": "white matter", "wm": "white matter", "fat": "fat", "m-s": "muscle/skin",
    "muscles_skin": "muscle/skin", "mus": "muscle/skin", "muscles": "muscle/skin", "skn": "skin",
    "skl": "skull", "skull": "skull", "gli": "glial matter", "mit": "connective",
    "les": "lesion", "ves": "csf", "vessels": "csf", "fat2": "fat", "dura": "connective",
    "mrw": "fat", "marrow": "fat",
}
_SHORT_STEP = 16  # between labels in raw short, which spreads a byte over 12 bits
_FRACTION_ONE = {".rawb": 255.0, ".raws": 4095.0}


def crisp_image(file: Path, subject: str, contrast: str) -> tuple[np.ndarray, Spacing]:
    """The image of a discrete model, as `subjects.SubjectVolume.load` gives it.

    Args:
        file: of labels.
        subject: "icbm" or one of the twenty, whose labels mean other tissues.
        contrast: of `icbm.CONTRASTS`.

    Raises:
        InputError: for labels that the model does not have.
    """
    labels, spacing = read_volume(file)
    if stem(file.name).lower().startswith("brainweb_s") and format_of(file.name) == ".nii":
        x, y, z = spacing
        labels, spacing = labels.transpose(2, 1, 0), (z, y, x)  # as brainweb-dl stores them
    tissues = PHANTOM_LABELS if subject == "icbm" else SUBJECT_LABELS
    low, high = float(labels.min()), float(labels.max())
    if high > len(tissues):
        labels /= np.float32(_SHORT_STEP)
    whole = np.rint(np.clip(labels, 0, len(tissues) - 1)).astype(np.uint8)
    if max(-(labels - whole).min(), (labels - whole).max()) > 0.05:
        raise InputError(f"{file}: its values go from {low:g} to {high:g}, expected the labels 0 "
                         f"to {len(tissues) - 1} of a crisp model (or {_SHORT_STEP} times these); "
                         "download it again, or set data.source")
    signal = _signal(tissues, contrast)
    return _scaled(file, signal[whole]), spacing


def fuzzy_image(files: dict[str, Path], contrast: str) -> tuple[np.ndarray, Spacing]:
    """The image of a fuzzy model, as `subjects.SubjectVolume.load` gives it.

    Args:
        files: of fractions, by their keys in `FUZZY_NAMES`.
        contrast: of `icbm.CONTRASTS`.

    Raises:
        InputError: if CSF, gray or white matter is missing, files are of unlike size, or values
            are no fractions.
    """
    first = next(iter(files.values()))
    lacking = {"csf", "gray matter", "white matter"} - {FUZZY_NAMES[part] for part in files}
    if lacking:
        raise InputError(f"{first}: of this fuzzy model {', '.join(sorted(lacking))} is missing, "
                         "expected a file of each tissue; download it")
    image, spacing = np.zeros(0, np.float32), (1.0, 1.0, 1.0)  # until the first tissue is read
    for part, file in files.items():
        (signal,) = _signal((FUZZY_NAMES[part],), contrast)
        if not signal:
            continue
        fraction, size = read_volume(file)
        fraction /= np.float32(_FRACTION_ONE.get(format_of(file.name), 1.0))
        if fraction.min() < -0.01 or fraction.max() > 1.01:
            raise InputError(f"{file}: its values go up to {fraction.max():g}, expected fractions "
                             "of a tissue from 0 to 1; download it again as MINC")
        if not image.size:
            image, spacing = np.zeros_like(fraction), size
        if fraction.shape != image.shape:
            raise InputError(f"{file}: has {fraction.shape} voxels and {first.name} "
                             f"{image.shape}, expected the same; download it again")
        image += signal * fraction
    return _scaled(first, np.clip(image, 0, None)), spacing


def _signal(tissues: Sequence[str], contrast: str) -> np.ndarray:
    protocol = CONTRASTS[contrast]
    table = np.array([TISSUES[tissue] for tissue in tissues]).T
    return spin_echo(table, protocol.tr, protocol.te).astype(np.float32)


def _scaled(file: Path, image: np.ndarray) -> np.ndarray:
    if not image.any():
        raise InputError(f"{file}: no tissue with a signal in it, expected a head; download it "
                         "again")
    image /= image.max()
    return image
