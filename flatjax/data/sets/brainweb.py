"""BrainWeb: simulated brains of the Montreal Neurological Institute, in a folder of a user's own.

Discrete ("crisp") and fuzzy anatomical models, given a contrast by BrainWeb's own tissue table and
the spin-echo equation; or the volumes that its simulator made, with noise and non-uniformity. Files
are recognized by BrainWeb's names, in MINC 1 or 2, raw byte, raw short or NIfTI, and their gzip.

References: Cocosco et al., "BrainWeb: Online interface to a 3D MRI simulated brain database",
NeuroImage 1997; Collins et al., "Design and construction of a realistic digital brain phantom",
IEEE TMI 1998; Aubert-Broche et al., "Twenty new digital brain phantoms for creation of validation
image data bases", IEEE TMI 2006.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flatjax.data.io.volumes import as_magnitude, format_of, read_magnitude, read_volume, stem
from flatjax.data.io.volumes.common import Spacing
from flatjax.data.sets.folder import find_volumes
from flatjax.data.sets.tissues import CONTRASTS, TISSUES, tissue_signal
from flatjax.data.slices import check_names
from flatjax.data.subjects import SubjectVolume, subject_dataset
from flatjax.errors import InputError, check_choice
from flatjax.files import make_folder

SOURCES = ("crisp", "fuzzy", "simulated")
TWENTY = {f"subject{n:02d}": n for n in (4, 5, 6, 18, 20, 38, *range(41, 55))}  # normal subjects
# What a label means. The table has no blood, dura or marrow of the twenty models: they are taken
# for what is nearest in it.
PHANTOM_LABELS = tuple(TISSUES)
SUBJECT_LABELS = ("background", "csf", "gray matter", "white matter", "fat", "muscle/skin",
                  "muscle/skin", "skull", "csf", "fat", "connective", "fat")
FUZZY_NAMES = {part: tissue for tissue, parts in {
    "background": "bck", "csf": "csf ves vessels", "gray matter": "gry gm",
    "white matter": "wht wm", "fat": "fat fat2 mrw marrow",
    "muscle/skin": "m-s muscles_skin mus muscles", "skin": "skn", "skull": "skl skull",
    "glial matter": "gli", "connective": "mit dura", "lesion": "les",
}.items() for part in parts.split()}
_SHORT_STEP = 16  # between labels in raw short, which spreads a byte over 12 bits
_FRACTION_ONE = {".rawb": 255.0, ".raws": 4095.0}
_SITE = "brainweb.bic.mni.mcgill.ca"


class Named(NamedTuple):
    """What the name of a file tells."""

    source: str  # one of `SOURCES`
    subject: str  # "subject04" to "subject54" of the twenty, else "icbm": one head with any lesions
    part: str = ""  # tissue of a fuzzy model, contrast of a simulated volume


def find(folder: Path, *, source: str = "crisp", contrasts: Sequence[str] = ("T1", "T2", "PD"),
         subjects: Sequence[str] = (), pattern: str = "*",
         download: bool = False) -> list[SubjectVolume]:
    """The volumes of a folder of BrainWeb's files, one per subject and contrast.

    Args:
        folder: of the files.
        source: "crisp", of `subject04_crisp_v`, `phantom_1.0mm_normal_crisp` and the like;
            "fuzzy", of `subject04_gm_v`, `phantom_1.0mm_normal_gry` and so on, at least CSF, gray
            and white matter; or "simulated", of `t1_icbm_normal_1mm_pn3_rf20` or
            `subject04_t1w_p4`.
        contrasts: some of T1, T2 and PD; models are imaged with the protocols of
            `tissues.CONTRASTS`.
        subjects: only these, as "subject04"; all if empty.
        pattern: only these files, by shell wildcards, as "*pn3_rf20*".
        download: fetch the crisp models of the twenty, or of `subjects`, that are not there.

    Raises:
        InputError: an option out of range; a folder without such files; a file whose values are
            others than its name says; a download that fails.
    """
    check_choice("source", source, SOURCES)
    check_names("contrasts", contrasts, tuple(CONTRASTS))
    check_names("subjects", subjects)
    if download:
        _download(folder, source, subjects)
    files = find_volumes(folder, pattern)
    found = [(named, file) for file in files if (named := parse(stem(file.name)))
             and named.source == source and (not subjects or named.subject in subjects)]
    missing = sorted({*subjects} - {named.subject for named, _ in found})
    if missing:
        raise InputError(f"{folder}: no {source} files of {', '.join(missing)}; set data.subjects "
                         "or download them")
    volumes = _models(found, contrasts) if source != "simulated" else [
        SubjectVolume(named.subject, stem(file.name), (file,), source,
                      partial(read_magnitude, file))
        for named, file in found if named.part in contrasts]
    if not volumes:
        there = sorted({stem(file.name) for file in files})
        raise InputError(f"{folder}: none of its {len(there)} volumes is {source} of what is asked "
                         f"for; it holds {', '.join(there[:6])}{', ...' if there[6:] else ''}; "
                         "set data.source, data.contrasts or data.pattern, or keep BrainWeb's file "
                         "names")
    return volumes


make = subject_dataset(find, matrix=256)


def parse(name: str) -> Named | None:
    """What a file name without extension tells, None if it is none of BrainWeb's."""
    name = name.lower()
    simulated = re.fullmatch(r"(t1|t2|pd)[_+]\w+?[_+]\w+?[_+]\d+mm[_+]pn\d+[_+]rf\d+", name)
    if simulated:
        return Named("simulated", "icbm", simulated[1].upper())
    model = re.fullmatch(
        r"(?:phantom_[\d.]+mm_[a-z0-9]+|(?:subject|brainweb_s)(\d\d))_([a-z0-9_-]+)", name)
    if not model:
        return None
    subject, part = f"subject{model[1]}" if model[1] else "icbm", model[2].removesuffix("_v")
    if part == "crisp":
        return Named("crisp", subject)
    if part in FUZZY_NAMES:
        return Named("fuzzy", subject, part)
    return Named("simulated", subject, "T1") if model[1] and part in ("t1w", "t1w_p4") else None


def _models(found: Sequence[tuple[Named, Path]], contrasts: Sequence[str]) -> list[SubjectVolume]:
    """The volumes of crisp and fuzzy models; a fuzzy one has a file for each tissue."""
    models: dict[tuple[str, str], dict[str, Path]] = {}
    for named, file in found:
        # what stands before the part is the model; its files lie in one folder
        lead = stem(file.name).lower().removesuffix("_v").removesuffix(named.part or "crisp")
        parts = models.setdefault((named.subject, f"{file.parent}/{lead}"), {})
        if parts.setdefault(named.part, file) != file:
            raise InputError(f"{file}: is another file of the same part of {named.subject} beside "
                             f"{parts[named.part].name}; keep one of them")
    volumes = []
    for (subject, _), parts in models.items():
        for contrast in contrasts:
            source, load = "fuzzy", partial(fuzzy_image, parts, contrast)
            if "" in parts:
                source, load = "crisp", partial(crisp_image, parts[""], subject, contrast)
            volumes.append(SubjectVolume(subject, f"{subject}_{contrast}", tuple(parts.values()),
                                         f"{source} {contrast}", load))
    return volumes


def crisp_image(file: Path, subject: str, contrast: str) -> tuple[np.ndarray, Spacing]:
    """The image of a discrete model in a contrast, as `subjects.SubjectVolume.load` gives it.

    The labels of the phantom, subject "icbm", and of the twenty mean other tissues; those that the
    model does not have raise InputError.
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
    if np.abs(labels - whole).max() > 0.05:
        raise InputError(f"{file}: its values go from {low:g} to {high:g}, expected the labels 0 "
                         f"to {len(tissues) - 1} of a crisp model (or {_SHORT_STEP} times these); "
                         "download it again, or set data.source")
    image = tissue_signal(tissues, contrast).astype(np.float32)[whole]
    return as_magnitude(file, image), spacing


def fuzzy_image(files: Mapping[str, Path], contrast: str) -> tuple[np.ndarray, Spacing]:
    """The image of a fuzzy model in a contrast, as `subjects.SubjectVolume.load` gives it.

    Of files of fractions, by their keys in `FUZZY_NAMES`. InputError if CSF, gray or white matter
    is missing, files are of unlike size, or values are no fractions.
    """
    first = next(iter(files.values()))
    lacking = {"csf", "gray matter", "white matter"} - {FUZZY_NAMES[part] for part in files}
    if lacking:
        raise InputError(f"{first}: of this fuzzy model {', '.join(sorted(lacking))} is missing, "
                         "expected a file of each tissue; download it")
    image: Any = 0.0  # until the first tissue is read
    spacing = (1.0, 1.0, 1.0)
    for part, file in files.items():
        (level,) = tissue_signal((FUZZY_NAMES[part],), contrast).astype(np.float32)
        if not level:
            continue
        fraction, spacing = read_volume(file)
        fraction /= np.float32(_FRACTION_ONE.get(format_of(file.name), 1.0))
        if fraction.min() < -0.01 or fraction.max() > 1.01:
            raise InputError(f"{file}: its values go up to {fraction.max():g}, expected fractions "
                             "of a tissue from 0 to 1; download it again as MINC")
        if np.shape(image) not in ((), fraction.shape):
            raise InputError(f"{file}: has {fraction.shape} voxels and {first.name} "
                             f"{image.shape}, expected the same; download it again")
        image = image + level * fraction
    return as_magnitude(first, np.clip(image, 0, None)), spacing


def _download(folder: Path, source: str, subjects: Sequence[str]) -> None:
    """Fetch the crisp models that a folder lacks."""
    if source != "crisp":
        raise InputError(f"data.download with source {source!r}, expected crisp: get the others "
                         f"from {_SITE}, and set data.download=False")
    if subjects:
        check_names("subjects", subjects, tuple(TWENTY))
    make_folder(folder)
    present = set()
    with suppress(InputError):  # none is there yet
        present = {parse(stem(file.name)) for file in find_volumes(folder)}
    for name in subjects or TWENTY:
        if Named("crisp", name) in present:
            continue
        print(f"brainweb: fetching {name} into {folder}")
        try:
            import brainweb_dl  # pyright: ignore[reportMissingImports]  # an extra

            with tempfile.TemporaryDirectory(dir=folder, prefix=".") as unfinished:
                fetched = Path(brainweb_dl.get_brainweb20(
                    TWENTY[name], brainweb_dir=unfinished, segmentation="crisp"))
                fetched.replace(folder / fetched.name)
        except ImportError as error:
            raise InputError("data.download needs the package brainweb-dl: install "
                             f"flatjax[brainweb], or put files from {_SITE} into {folder} and set "
                             "data.download=False") from error
        except Exception as error:  # of requests, gzip, nibabel or the package itself
            raise InputError(f"{name} cannot be fetched from {_SITE} ({type(error).__name__}: "
                             f"{' '.join(str(error).split())[:200]}); run this where there is "
                             f"internet, and copy {folder} from there, with data.download=False"
                             ) from error
