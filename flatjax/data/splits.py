"""Splits of subjects: who is trained on, validated and tested, kept in the folder of a run.

Slices of one person show the same anatomy, so no person is ever in two parts of a split.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Any

from flatjax.data.base import DataSet
from flatjax.data.slices import check_names
from flatjax.errors import InputError
from flatjax.files import write_json

SPLIT = "split.json"  # in a workdir
ROLES = ("train", "validation", "test")
_SPLIT_OPTIONS = ("name", "split", "split_seed", "validation", "test", "validation_share",
                  "test_share")


def split_subjects(subjects: Sequence[str], *, validation: Sequence[str] = (),
                   test: Sequence[str] = (), validation_share: float = 0.1,
                   test_share: float = 0.2, seed: int = 0) -> dict[str, list[str]]:
    """Who is trained on, validated and tested: sorted names by role, disjoint.

    The same for the same names and seed. `validation` and `test` name who has that role; where they
    are empty, subjects are drawn, by the shares of all subjects and at least one each.

    Raises:
        InputError: a share out of range, a name that is unknown or in both roles, or nobody left
            to train on.
    """
    subjects = sorted({*subjects})
    both = sorted({*validation} & {*test})
    if both:
        raise InputError(f"{', '.join(both)} both in validation and test, expected in one")
    rest = sorted({*subjects} - {*validation, *test},
                  key=lambda name: sha256(os.fsencode(f"{seed}/{name}")).digest())
    roles = {"test": test, "validation": validation}
    for role, share in (("test", test_share), ("validation", validation_share)):
        if not 0 < share < 1:
            raise InputError(f"{role}_share is {share}, expected above 0 and below 1")
        if roles[role]:
            check_names(role, roles[role], subjects)
        else:
            count = max(1, round(share * len(subjects)))
            roles[role], rest = rest[:count], rest[count:]
    if not (rest and all(roles.values())):
        raise InputError(
            f"{len(subjects)} subjects ({', '.join(subjects)}) leave nobody to train on or to "
            "validate on, expected at least 3; add some, test all of them with data.split=False, "
            "or train on parts of one volume with data.name=volume")
    return {role: sorted(names) for role, names in {"train": rest, **roles}.items()}


def restore_split(dataset: DataSet, options: Mapping[str, Any], workdir: str | Path) -> DataSet:
    """The data set with the split of a run, which subjects added since do not change.

    Args:
        dataset: made with `options`.
        options: the section `data` of the config.
        workdir: of the run. Its `split.json` counts if the options of the split are the same and
            either the path is, too, or all its subjects are in the data set.

    Raises:
        InputError: if other options would test who was trained on. With `split=False`, which asks
            for all, a line says who they are.
    """
    saved = _read_split(Path(workdir))
    if dataset.split is None or dataset.resplit is None or not saved:
        return dataset
    if saved["data"] != _split_options(options):
        seen = sorted({*saved["train"]} & {*dataset.split["test"]})
        who = f"{options['path']}: {', '.join(seen)}, who the run was trained on"
        same = (saved["path"], saved["data"].get("name")) == (options["path"], options["name"])
        if seen and same and options["split"]:
            raise InputError(f"{who}, would be tested, by other options of the split than in "
                             "training; leave these, or test all with data.split=False")
        if seen and same:
            print(f"{who}, are among the tested", file=sys.stderr)
        return dataset
    roles = {role: saved[role] for role in ROLES}
    present, known = ({*chain(*split.values())} for split in (dataset.split, roles))
    if saved["path"] != options["path"] and not present >= known:
        return dataset
    if added := sorted(present - known):
        print(f"{options['path']}: {', '.join(added)} not in the run's split and left out",
              file=sys.stderr)
    return dataset if roles == dataset.split else dataset.resplit(roles)


def write_split(dataset: DataSet, options: Mapping[str, Any], workdir: str | Path) -> None:
    """Write `split.json` into a workdir: who is trained on, validated and tested, and why.

    Nothing is written for a data set without subjects.
    """
    if dataset.split is not None:
        write_json(Path(workdir) / SPLIT, dataset.split | {
            "path": options["path"], "data": _split_options(options)})


def _read_split(workdir: Path) -> dict[str, Any] | None:
    path = workdir / SPLIT
    try:
        saved = json.loads(path.read_text())
        roles = {role: [str(name) for name in saved[role]] for role in ROLES}
        return roles | {"path": str(saved["path"]), "data": dict(saved["data"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a split that flatjax wrote ({error!r}); restore it, or "
                         "remove it to split the subjects again") from error


def _split_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(json.dumps({key: options[key] for key in _SPLIT_OPTIONS}))
