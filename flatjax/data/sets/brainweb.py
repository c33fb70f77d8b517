"""BrainWeb: simulated brains of the Montreal Neurological Institute, in a folder of a user's own.

Discrete ("crisp") and fuzzy anatomical models, given a contrast by BrainWeb's own tissue table and
the spin-echo equation; or the volumes that its simulator made, with noise and non-uniformity. Files
are recognized by BrainWeb's names, in MINC 1 or 2, raw byte, raw short or NIfTI, and their gzip.

References: Cocosco et al., "BrainWeb: Online interface to a 3D MRI simulated brain database",
NeuroImage 1997; Collins et al., "Design and construction of a realistic digital brain phantom",
IEEE TMI 1998; Aubert-Broche et al., "Twenty new digital brain phantoms for creation of validation
image data bases", IEEE TMI 2006; the tissue table is brainweb.bic.mni.mcgill.ca's
`tissue_mr_parameters.txt`, at 1.5 T.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from flatjax.data.base import DataSet
from flatjax.data.io.checks import first_line
from flatjax.data.io.volumes import read_magnitude, stem
from flatjax.data.sets.brainweb_models import FUZZY_NAMES, crisp_image, fuzzy_image
from flatjax.data.sets.folder import find_volumes, volumes_below
from flatjax.data.sets.icbm import CONTRASTS
from flatjax.data.subjects import SubjectVolume, make_dataset, unique_names
from flatjax.errors import InputError
from flatjax.files import make_folder

SOURCES = ("crisp", "fuzzy", "simulated")
MODELS = (4, 5, 6, 18, 20, 38, *range(41, 55))  # the twenty normal subjects
_SITE = "brainweb.bic.mni.mcgill.ca"


class Named(NamedTuple):
    """What the name of a file tells.

    Attributes:
        source: one of `SOURCES`.
        subject: "subject04" to "subject54" of the twenty, else "icbm": one head, whatever its
            lesions.
        part: tissue of a fuzzy model, contrast of a simulated volume, "" of a crisp model.
        noise, rf: percent, of a simulated volume; None if not told.
    """

    source: str
    subject: str
    part: str = ""
    noise: int | None = None
    rf: int | None = None


def make(*, path: str = "", source: str = "crisp", contrasts: Sequence[str] = ("T1", "T2", "PD"),
         subjects: Sequence[str] = (), noise: Sequence[int] = (), rf: Sequence[int] = (),
         download: bool = False, matrix: int = 256, coils: int = 1, orientation: str = "axial",
         split: bool = True, split_seed: int = 0, validation: Sequence[str] = (),
         test: Sequence[str] = (), validation_share: float = 0.1, test_share: float = 0.2,
         cache: str = "", skip_bad: bool = False) -> DataSet:
    """The data set of a folder of BrainWeb's files, one volume per subject and contrast.

    Slices, phases and coils are as the data set `volume` makes them.

    Args:
        path: of the folder.
        source: "crisp", of `subject04_crisp_v`, `phantom_1.0mm_normal_crisp` and the like;
            "fuzzy", of `subject04_gm_v`, `phantom_1.0mm_normal_gry` and so on, at least CSF, gray
            and white matter; or "simulated", of `t1_icbm_normal_1mm_pn3_rf20` or
            `subject04_t1w_p4`.
        contrasts: some of T1, T2 and PD; models are imaged with the protocols `icbm.CONTRASTS`.
        subjects: only these, as "subject04"; all if empty.
        noise, rf: only simulated volumes with these percentages; all if empty.
        download: fetch the crisp models of the twenty, or of `subjects`, that are not there.
        matrix: pixels along each side of a square field of view as wide as the longer side of a
            slice; 0 for the files' own grids.
        coils: simulated birdcage coils.
        orientation: one of `slices.ORIENTATIONS`.
        split: whether subjects are split; otherwise all are tested and `draw` raises.
        split_seed: of the split.
        validation, test: subjects with that role; drawn by the shares if empty.
        validation_share, test_share: of the subjects, at least one each.
        cache: folder for prepared slices, "" for `.flatjax-NAME` beside the folder.
        skip_bad: leave bad volumes out, with a warning, instead of refusing the folder.

    Raises:
        InputError: an option out of range; a folder without such files; a file that is damaged,
            or holds other values than its name says; too few subjects; a download that fails.
    """
    if not path:
        raise InputError("the data set brainweb has no path: set data.path to a folder of files "
                         f"from {_SITE}, or to an empty one with data.download=True")
    if source not in SOURCES:
        raise InputError(f"source is {source!r}, expected one of {', '.join(SOURCES)}")
    unknown = [one for one in contrasts if one not in CONTRASTS]
    if unknown or not contrasts or isinstance(contrasts, str):
        raise InputError(f"contrasts is {contrasts!r}, expected some of {', '.join(CONTRASTS)} as "
                         "('T1', 'T2')")
    if isinstance(subjects, str):
        raise InputError(f"subjects is {subjects!r}, expected a list as ('subject04',)")
    folder = Path(path).expanduser()
    if download:
        _download(folder, source, subjects)
    named = [(parse(stem(file.name)), file) for file in find_volumes(folder)]
    found = [(one, file) for one, file in named if one is not None and one.source == source
             and (not subjects or one.subject in subjects)]
    missing = sorted(set(subjects) - {one.subject for one, _ in found})
    if missing:
        raise InputError(f"{folder}: no {source} files of {', '.join(missing)}; set data.subjects "
                         "or download them")
    if source == "simulated":
        scans = _simulated(found, contrasts, noise, rf)
    else:
        scans = _models(found, source, contrasts)
    if not scans:
        there = sorted({stem(file.name) for _, file in named})
        raise InputError(f"{folder}: none of its {len(there)} volumes is {source} of what is asked "
                         f"for; it holds {', '.join(there[:6])}{', ...' if there[6:] else ''}; "
                         "set data.source, data.contrasts, data.noise or data.rf, or keep "
                         "BrainWeb's file names")
    return make_dataset(
        "brainweb", folder, scans, matrix=matrix, coils=coils, orientation=orientation,
        split=split, split_seed=split_seed, validation=validation, test=test,
        validation_share=validation_share, test_share=test_share, cache=cache, skip_bad=skip_bad)


def parse(name: str) -> Named | None:
    """What a file name without extension tells, None if it is none of BrainWeb's."""
    name = name.lower()
    simulated = re.fullmatch(r"(t1|t2|pd)[_+]\w+?[_+]\w+?[_+]\d+mm[_+]pn(\d+)[_+]rf(\d+)", name)
    if simulated:
        contrast, noise, rf = simulated.groups()
        return Named("simulated", "icbm", contrast.upper(), int(noise), int(rf))
    model = re.fullmatch(
        r"(?:phantom_[\d.]+mm_[a-z0-9]+|(?:subject|brainweb_s)(\d\d))_([a-z0-9_-]+)", name)
    if not model:
        return None
    subject = f"subject{model[1]}" if model[1] else "icbm"
    part = model[2].removesuffix("_v")
    if part == "crisp":
        return Named("crisp", subject)
    if part in FUZZY_NAMES:
        return Named("fuzzy", subject, part)
    if model[1] and part in ("t1w", "t1w_p4"):
        return Named("simulated", subject, "T1")
    return None


def _simulated(found: Sequence[tuple[Named, Path]], contrasts: Sequence[str],
               noise: Sequence[int], rf: Sequence[int]) -> list[SubjectVolume]:
    chosen = [(one, file) for one, file in found if one.part in contrasts
              and (not noise or one.noise in noise) and (not rf or one.rf in rf)]
    names = unique_names([stem(file.name) for _, file in chosen])
    return [SubjectVolume(one.subject, name, (file,), "simulated", partial(read_magnitude, file))
            for (one, file), name in zip(chosen, names, strict=True)]


def _models(found: Sequence[tuple[Named, Path]], source: str,
            contrasts: Sequence[str]) -> list[SubjectVolume]:
    models: dict[tuple[str, str], list[tuple[Named, Path]]] = {}
    for one, file in found:
        # what stands before the part is the model; its files lie in one folder
        lead = stem(file.name).lower().removesuffix("_v").removesuffix(one.part or "crisp")
        models.setdefault((one.subject, f"{file.parent}/{lead}"), []).append((one, file))
    scans = []
    for (subject, _), parts in models.items():
        files = tuple(file for _, file in parts)
        first, *others = files
        for contrast in contrasts:
            load: Callable = partial(crisp_image, first, subject, contrast)
            if source == "fuzzy":
                load = partial(fuzzy_image, dict((one.part, file) for one, file in parts), contrast)
            elif others:
                raise InputError(f"{others[0]}: is another crisp model of {subject} beside "
                                 f"{first.name}; keep one of them")
            scans.append(SubjectVolume(subject, f"{subject}_{contrast}", files,
                                       f"{source} {contrast}", load))
    names = unique_names([scan.name for scan in scans])
    return [scan._replace(name=name) for scan, name in zip(scans, names, strict=True)]


def _download(folder: Path, source: str, subjects: Sequence[str]) -> None:
    """Fetch the crisp models that a folder lacks."""
    if source != "crisp":
        raise InputError(f"data.download with source {source!r}, expected crisp: get the others "
                         f"from {_SITE}, and set data.download=False")
    wanted = {f"subject{number:02d}": number for number in MODELS}
    unknown = sorted(set(subjects) - set(wanted))
    if unknown:
        raise InputError(f"subjects: {', '.join(unknown)} cannot be downloaded, expected some of "
                         f"{', '.join(wanted)}")
    folder = make_folder(folder)
    present = {one.subject for one in (parse(stem(file.name)) for file in volumes_below(folder))
               if one and one.source == "crisp"}
    lacking = [name for name in subjects or wanted if name not in present]
    if not lacking:
        return
    try:
        import brainweb_dl  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError as error:
        raise InputError("data.download needs the package brainweb-dl: install flatjax[brainweb], "
                         f"or put files from {_SITE} into {folder} and set data.download=False"
                         ) from error
    for name in lacking:
        print(f"brainweb: fetching {name} into {folder}")
        try:
            with tempfile.TemporaryDirectory(dir=folder, prefix=".") as unfinished:
                fetched = Path(brainweb_dl.get_brainweb20(
                    wanted[name], brainweb_dir=unfinished, segmentation="crisp"))
                fetched.replace(folder / fetched.name)
        except Exception as error:  # of requests, gzip, nibabel or the package itself
            raise InputError(
                f"{name} cannot be fetched from {_SITE} ({type(error).__name__}: "
                f"{first_line(error)}); run this where there is internet, and copy {folder} from "
                "there, with data.download=False") from error
