"""Configurations: what a run consists of, its defaults, and how it is built.

Every choice has its default in the signature of the function that it is handed to; a config
lists them all, so that each can be set from the command line and a misspelt one is refused.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from flatjax.data import CHECKS, DATASETS, Acquisition, DataSet
from flatjax.data.acquisition import check_acquisition, ends
from flatjax.errors import InputError
from flatjax.methods import METHODS, Method
from flatjax.options import (
    build_part,
    carried,
    check_finite,
    defaults,
    method_section,
    named,
    part_section,
    tuples,
    unknown,
)

_ONCE = ("combine",)  # handed to the method and to the data set, if they ask for it


def method(name: str, **overrides: Any) -> ConfigDict:
    """Config of a method of `METHODS`; the options of its parts are dicts.

    Raises:
        InputError: for an unknown method, kind of a part, or option, with the nearest name.
    """
    return method_section(name, named("method", name, METHODS), _ONCE, overrides)


def data(name: str, **overrides: Any) -> ConfigDict:
    """Config of a data set of `DATASETS`; raises as `method`."""
    config = defaults(named("data set", name, DATASETS), _ONCE, **overrides)
    config.name = name
    return config


def _renamed(config: ConfigDict, section: str, name: str) -> ConfigDict:
    """The section of that dotted name for another `name`: its options, with shared ones kept."""
    if section == "method":
        return method(name, **carried(config.method, fresh=method(name), spec=METHODS[name]))
    if section == "data":
        return data(name, **_shared(config.data, data(name)))
    key = section.removeprefix("method.")
    part = METHODS[config.method.name].parts[key]
    fresh = part_section(section, part, {"name": name})
    return part_section(section, part, _shared(config.method[key], fresh) | {"name": name})


def _shared(old: ConfigDict, fresh: ConfigDict) -> dict[str, Any]:
    return {key: value for key, value in old.items() if key in fresh and key != "name"}


def with_names(config: ConfigDict, names: Mapping[str, str]) -> None:
    """Give sections other names, in place, which brings the options that belong to these.

    Args:
        config: of an experiment.
        names: by dotted section, as "method" or "method.space"; sections without a name are
            passed over.

    Raises:
        InputError: if there is none of that name.
    """
    for section in sorted(names, key=lambda one: one.count(".")):
        *parents, key = section.split(".")
        parent: Any = config
        for one in parents:
            found = isinstance(parent, ConfigDict) and one in parent
            parent = parent[one] if found else None
        old: Any = parent[key] if isinstance(parent, ConfigDict) and key in parent else None
        if isinstance(old, ConfigDict) and old.get("name", names[section]) != names[section]:
            parent[key] = _renamed(config, section, names[section])


def acquisition(**overrides: Any) -> ConfigDict:
    """Config of an `Acquisition`."""
    return defaults(Acquisition, **overrides)


class Training(NamedTuple):
    """How a model is trained.

    Attributes:
        steps: number of updates.
        batch_size: slices per update, over all devices and accumulated parts together.
        learning_rate: peak of Adam's; warm-up from 0, then cosine decay to 0. It belongs to the
            batch size and is never scaled by the number of devices.
        warmup_steps: length of the warm-up.
        clip_norm: largest global norm of a gradient.
        skip_nonfinite: how many batches whose loss or gradient is not finite are left out, over
            the whole run, before the next one stops it; 0 stops at the first.
        ema_decay: of the averaged weights that are validated and evaluated; 0 for none.
        accumulate: parts in which a batch is computed, one after the other, to save memory.
        validate_every: steps between validations, each with a checkpoint.
        best_metric: "psnr" or "ssim", by which the best checkpoint is chosen.
        keep_best: number of best checkpoints kept, beside the latest.
        log_every: steps between lines of metrics.
        tensorboard: also write TensorBoard events (extra "tensorboard").
        workers: threads that make batches.
    """

    steps: int = 1000
    batch_size: int = 4
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    clip_norm: float = 1.0
    skip_nonfinite: int = 0
    ema_decay: float = 0.0
    accumulate: int = 1
    validate_every: int = 250
    best_metric: str = "psnr"
    keep_best: int = 1
    log_every: int = 10
    tensorboard: bool = False
    workers: int = 2


class Evaluation(NamedTuple):
    """How a model is evaluated.

    Attributes:
        batch_size: slices reconstructed at once.
        checkpoint: "best", "latest" or the number of a step.
        figures: volumes of each test set that are drawn.
    """

    batch_size: int = 4
    checkpoint: str = "best"
    figures: int = 2


def training(**overrides: Any) -> ConfigDict:
    """Config of a `Training`."""
    return defaults(Training, **overrides)


def evaluation(**overrides: Any) -> ConfigDict:
    """Config of an `Evaluation`."""
    return defaults(Evaluation, **overrides)


def experiment(**parts: Any) -> ConfigDict:
    """A whole config: FLAT on the embedded data unless parts say otherwise.

    Args:
        **parts: `seed`, `init_from` (a workdir whose weights to start from), `combine` (how
            coils are combined for images, "sense" or "rss"), `method`, `data`, `acquisition`,
            `train`, `evaluation`.
    """
    config = ConfigDict({
        "seed": 0,
        "init_from": "",
        "combine": "sense",
        "method": method("flat"),
        "data": data("icbm"),
        "acquisition": acquisition(),
        "train": training(),
        "evaluation": evaluation(),
    })
    for name, part in parts.items():
        if name not in config:
            raise unknown("a part of a config", name, config)
        config[name] = part
    return config


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}, expected a number from 0 to 2^32 - 1")


def _once(function: Callable, config: ConfigDict) -> dict[str, Any]:
    """What stands once in a config, of it what a function asks for."""
    return {key: config[key] for key in _ONCE if key in inspect.signature(function).parameters}


def make_method(config: ConfigDict) -> Method:
    """The `Method` that `config.method` names."""
    check_finite("method", config.method)
    options = tuples(config.method)
    spec = named("method", options.pop("name"), METHODS)
    parts = {key: build_part(f"method.{key}", part, options.pop(key))
             for key, part in spec.parts.items()}
    return spec.make(**parts, **options, **_once(spec.make, config))


def make_dataset(config: ConfigDict) -> DataSet:
    """The `DataSet` that `config.data` names.

    Raises:
        InputError: from the data set, or its entry in `CHECKS`.
    """
    if config.data.name in CHECKS:
        CHECKS[config.data.name](config)
    check_finite("data", config.data)
    options = tuples(config.data)
    make = named("data set", options.pop("name"), DATASETS)
    return make(**options, **_once(make, config))


def make_acquisition(config: ConfigDict) -> Acquisition:
    """The `Acquisition` of `config.acquisition`, checked."""
    check_finite("acquisition", config.acquisition)
    acquisition_ = Acquisition(**tuples(config.acquisition))
    check_acquisition(acquisition_)
    if config.method.get("sensitivities", {}).get("name") == "learned" and not (
            ends(acquisition_.center_fraction)[0] > 0):
        raise InputError("acquisition.center_fraction is 0, expected above 0 with "
                         "method.sensitivities.name = 'learned': maps are made from the "
                         "sampled center")
    return acquisition_


def make_training(config: ConfigDict, devices: int) -> Training:
    """The `Training` of `config.train`, checked against the number of devices.

    Raises:
        InputError: naming the value and what to do.
    """
    _check_seed(config.seed)
    train = Training(**config.train)
    for key in ("steps", "batch_size", "accumulate", "validate_every", "log_every", "keep_best"):
        if getattr(train, key) < 1:
            raise InputError(f"train.{key} is {getattr(train, key)}, expected at least 1")
    for key in ("learning_rate", "clip_norm"):
        if not getattr(train, key) > 0:
            raise InputError(f"train.{key} is {getattr(train, key)}, expected above 0")
    if train.skip_nonfinite < 0:
        raise InputError(f"train.skip_nonfinite is {train.skip_nonfinite}, expected 0 or more")
    if not 0 <= train.ema_decay < 1:
        raise InputError(f"train.ema_decay is {train.ema_decay}, expected in [0, 1)")
    if not 0 <= train.warmup_steps < train.steps:
        raise InputError(f"train.warmup_steps is {train.warmup_steps}, expected at least 0 and "
                         f"below train.steps = {train.steps}")
    if train.best_metric not in ("psnr", "ssim"):
        raise InputError(f"train.best_metric is {train.best_metric!r}, expected psnr or ssim")
    parts = devices * train.accumulate
    if train.batch_size % parts:
        raise InputError(
            f"train.batch_size = {train.batch_size} is not divisible by {devices} devices x "
            f"train.accumulate = {train.accumulate}; take a multiple of {parts}")
    return train


def make_evaluation(config: ConfigDict) -> Evaluation:
    """The `Evaluation` of `config.evaluation`, checked."""
    _check_seed(config.seed)
    evaluation_ = Evaluation(**config.evaluation)
    if evaluation_.batch_size < 1:
        raise InputError(f"evaluation.batch_size is {evaluation_.batch_size}, expected at least 1")
    if evaluation_.figures < 0:
        raise InputError(f"evaluation.figures is {evaluation_.figures}, expected 0 or more")
    return evaluation_


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON with sorted keys."""
    return json.dumps(json.loads(config.to_json_best_effort()), indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote, of this version's shape.

    Raises:
        InputError: if it is no such thing.
    """
    try:
        saved = json.loads(text)
        named = {"method": method, "data": data}
        plain = {"acquisition": acquisition, "train": training, "evaluation": evaluation}
        parts = {key: tuples(saved[key]) for key in (*named, *plain)}
        return experiment(
            seed=saved["seed"], init_from=saved["init_from"], combine=saved["combine"],
            **{key: build(parts[key].pop("name"), **parts[key]) for key, build in named.items()},
            **{key: build(**parts[key]) for key, build in plain.items()})
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError,
            RecursionError) as error:
        raise InputError(f"not a config that flatjax wrote: {error}") from error


def config_hash(config: ConfigDict) -> str:
    """First 12 hexadecimal digits of the SHA-256 of the config's JSON."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:12]
