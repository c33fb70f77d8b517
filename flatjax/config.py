"""Configurations: what a run consists of, its defaults, and how it is built.

Every choice has its default in the signature of the function that it is handed to; a config
lists them all, so that each can be set from the command line and a misspelt one is refused.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from flatjax.data import CHECKS, DATASETS, Acquisition, DataSet
from flatjax.data.acquisition import check_acquisition, ends
from flatjax.errors import InputError, check_above, check_at_least, check_choice, unknown
from flatjax.methods import METHODS, Method
from flatjax.options import build, flattened, section, tuples


class Training(NamedTuple):
    """How a model is trained.

    Attributes:
        steps: number of updates.
        batch_size: slices per update, over all devices and accumulated parts together.
        learning_rate: peak of Adam's; warm-up from 0, then cosine decay to 0. It belongs to the
            batch size and is never scaled by the number of devices.
        warmup_steps: length of the warm-up; never more than a fifth of `steps`.
        clip_norm: largest global norm of a gradient.
        skip_nonfinite: how many batches whose loss or gradient is not finite are left out, over
            the whole run, before the next one stops it; 0 stops at the first.
        ema_decay: of the averaged weights that are validated and evaluated; 0 for none.
        accumulate: parts in which a batch is computed, one after the other, to save memory.
        validate_every: steps between validations, each with a checkpoint.
        supervision: "full", by the method's loss and full k-space, or "self", by measured samples
            that are kept from the method, see `methods.self_supervised`.
        split_share, splits, split_density: of self-supervision, its share, splits and density.
        best_metric: "psnr" or "ssim", by which the best checkpoint is chosen; with self-supervision
            it is the held-out error instead.
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
    supervision: str = "full"
    split_share: float = 0.4
    splits: int = 1
    split_density: str = "gaussian"
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
        heldout: whether a tenth of the measured samples is also kept from the method, to score what
            it makes of the others; for this no reference is needed. It takes as long again.
    """

    batch_size: int = 4
    checkpoint: str = "best"
    figures: int = 2
    heldout: bool = False


_KINDS = {"method": METHODS, "data": DATASETS, "acquisition": Acquisition, "train": Training,
          "evaluation": Evaluation}


def method(name: str, **options: Any) -> ConfigDict:
    """Config of a method of `METHODS`; the options of its parts are dicts.

    Raises:
        InputError: for an unknown method, kind of a part, or option, with the nearest name.
    """
    return section("method", METHODS, {"name": name, **options})


def data(name: str, **options: Any) -> ConfigDict:
    """Config of a data set of `DATASETS`; raises as `method`."""
    return section("data", DATASETS, {"name": name, **options})


def acquisition(**options: Any) -> ConfigDict:
    """Config of an `Acquisition`; raises as `method`."""
    return section("acquisition", Acquisition, options)


def training(**options: Any) -> ConfigDict:
    """Config of a `Training`; raises as `method`."""
    return section("train", Training, options)


def evaluation(**options: Any) -> ConfigDict:
    """Config of an `Evaluation`; raises as `method`."""
    return section("evaluation", Evaluation, options)


def experiment(**parts: Any) -> ConfigDict:
    """A whole config: FLAT on the embedded data unless parts say otherwise.

    Args:
        **parts: `seed`, `init_from` (a workdir whose weights to start from), `combine` (how
            coils are combined for images, "sense" or "rss"), `method`, `data`, `acquisition`,
            `train`, `evaluation`.
    """
    config = ConfigDict({
        "seed": 0, "init_from": "", "combine": "sense", "method": method("flat"),
        "data": data("icbm"), "acquisition": acquisition(), "train": training(),
        "evaluation": evaluation()})
    for name, part in parts.items():
        if name not in config:
            raise unknown("a part of a config", name, config)
        config[name] = part
    return config


def with_names(config: ConfigDict, names: Mapping[str, str]) -> None:
    """Give sections other names, in place, which brings the options that belong to these.

    Options that both have keep their values. `names` is by dotted section, as "method.space"; what
    is no section with a name is passed over. An `InputError` if there is none of that name.
    """
    for title in sorted(names, key=lambda one: one.count(".")):
        sections = {"": (config, _KINDS),
                    "method": (config.method, METHODS[config.method.name].parts)}
        within, _, key = title.rpartition(".")
        parent, kinds = sections.get(within, (config, {}))
        table, name = kinds.get(key), names[title]
        if isinstance(table, Mapping) and parent[key].name != name:
            parent[key] = section(title, table, {"name": name}, parent[key])


def _make(config: ConfigDict, key: str) -> Any:
    """What a section of a config describes."""
    for name, value in flattened(config[key]).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{key}.{name} is {value}, expected a finite number")
    return build(key, _KINDS[key], config[key], config)


def make_method(config: ConfigDict) -> Method:
    """The `Method` that `config.method` describes."""
    return _make(config, "method")


def make_dataset(config: ConfigDict) -> DataSet:
    """The `DataSet` that `config.data` describes, checked against the rest of the config."""
    if config.data.name in CHECKS:
        CHECKS[config.data.name](config)
    made = _make(config, "data")
    if not isinstance(made, DataSet):
        raise InputError(f"data.name is {config.data.name!r}, whose function returns a "
                         f"{type(made).__name__}, expected a DataSet")
    return made


def make_acquisition(config: ConfigDict) -> Acquisition:
    """The `Acquisition` of `config.acquisition`, checked."""
    made = _make(config, "acquisition")
    check_acquisition(made)
    if config.method.get("sensitivities", {}).get("name") == "learned" and not (
            ends(made.center_fraction)[0] > 0):
        raise InputError("acquisition.center_fraction is 0, expected above 0 with "
                         "method.sensitivities.name = 'learned': maps are made from the "
                         "sampled center")
    return made


def _check_seed(seed: int) -> None:
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}, expected a number from 0 to 2^32 - 1")


def make_training(config: ConfigDict, devices: int) -> Training:
    """The `Training` of `config.train`, checked, also against the number of devices."""
    _check_seed(config.seed)
    train: Training = _make(config, "train")
    for key in ("steps", "batch_size", "accumulate", "validate_every", "log_every", "keep_best"):
        check_at_least(1, **{f"train.{key}": getattr(train, key)})
    for key in ("skip_nonfinite", "warmup_steps"):
        check_at_least(0, **{f"train.{key}": getattr(train, key)})
    for key in ("learning_rate", "clip_norm"):
        check_above(0, **{f"train.{key}": getattr(train, key)})
    if not 0 <= train.ema_decay < 1:
        raise InputError(f"train.ema_decay is {train.ema_decay}, expected in [0, 1)")
    check_choice("train.best_metric", train.best_metric, ("psnr", "ssim"))
    check_choice("train.supervision", train.supervision, ("full", "self"))
    parts = devices * train.accumulate
    if train.batch_size % parts:
        raise InputError(
            f"train.batch_size = {train.batch_size} is not divisible by {devices} devices x "
            f"train.accumulate = {train.accumulate}; take a multiple of {parts}")
    return train


def best_metric(train: Training | ConfigDict) -> str:
    """By which of the validation's metrics the best checkpoint is chosen."""
    return "heldout_error" if train.supervision == "self" else train.best_metric


def make_evaluation(config: ConfigDict) -> Evaluation:
    """The `Evaluation` of `config.evaluation`, checked."""
    _check_seed(config.seed)
    made: Evaluation = _make(config, "evaluation")
    check_at_least(1, **{"evaluation.batch_size": made.batch_size})
    check_at_least(0, **{"evaluation.figures": made.figures})
    return made


def to_json(config: ConfigDict) -> str:
    """The resolved config as JSON with sorted keys."""
    return config.to_json_best_effort(indent=2, sort_keys=True)


def from_json(text: str) -> ConfigDict:
    """The config that `to_json` wrote; an `InputError` if it is no such thing."""
    try:
        saved = tuples(json.loads(text))
        makers = {"method": method, "data": data, "acquisition": acquisition, "train": training,
                  "evaluation": evaluation}
        return experiment(**{key: saved[key] for key in ("seed", "init_from", "combine")},
                          **{key: make(**saved[key]) for key, make in makers.items()})
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError,
            RecursionError) as error:
        raise InputError(f"not a config that flatjax wrote: {error}") from error


def config_hash(config: ConfigDict) -> str:
    """First 12 hexadecimal digits of the SHA-256 of the config's JSON."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()[:12]
