"""The folder of a run: its config, what of it may change at test time, its weights, its owner."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

import jax
from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.errors import InputError
from flatjax.files import write_json, write_text
from flatjax.methods import METHODS, Method, Params
from flatjax.options import flattened
from flatjax.runs import weights
from flatjax.runs.checkpoint import Checkpoints


def load_config(workdir: str | Path) -> ConfigDict:
    """The config that a run was trained with; an `InputError` if the workdir holds none."""
    path = Path(workdir) / "config.json"
    try:
        return configuration.from_json(path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"no config in {workdir}: cannot read {path} ({error}); name the workdir "
                         "of a run made by train.py") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def at_test_time(config: ConfigDict, trained: ConfigDict) -> ConfigDict:
    """The config that is asked for, to evaluate a run that was trained with another.

    The method says which options may change, see `MethodSpec`. One that was left open stays what it
    stood for in training. An `InputError` for another method, or an option that belongs to the
    weights, as the steps do if there are weights per cascade.
    """
    asked, learned = config.method, trained.method
    if asked.name != learned.name:
        raise InputError(f"method.name is {asked.name!r} but {learned.name!r} in training: weights "
                         "belong to their method; leave it, or name the workdir of a run of "
                         f"{asked.name}")
    spec = METHODS[learned.name]
    wanted, known = flattened(asked), flattened(learned)
    for key in sorted({*wanted, *known}):
        if wanted.get(key) == known.get(key) or _within(key, spec.changeable(learned)):
            continue
        found = f"method.{key} is {wanted.get(key)!r} but {known.get(key)!r} in training: "
        if _within(key, spec.shared_time):
            raise InputError(f"{found}weights per cascade belong to the steps that they were "
                             "learned on; leave it, or train with --config.method.weights=shared")
        raise InputError(f"{found}it belongs to the weights; leave it, or train with "
                         f"--config.method.{key}={wanted.get(key)}")
    others = spec.left_open(asked)
    stood_for = {key: value for key, value in spec.left_open(learned).items()
                 if wanted[key] is None is known[key] and others[key] != value}
    if stood_for:
        config = config.copy_and_resolve_references()
        config.method.update_from_flattened_dict(stood_for)
    return config


def _within(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def load_params(workdir: str | Path, config: ConfigDict, method: Method) -> tuple[Params, int]:
    """The weights to evaluate, of `config.evaluation.checkpoint`, and the step they come from.

    The workdir is a run's, or a folder of packed weights, see `inference.pretrained`. An
    `InputError` if there is no such checkpoint, or it is another model's than the method's.
    """
    expected = weights.expected_params(method)
    if (packed := Path(workdir) / weights.FILE).is_file():
        return weights.load(packed, expected), int(load_config(workdir).evaluation.checkpoint)
    checkpoints = Checkpoints(Path(workdir), configuration.best_metric(config.train))
    step, saved = checkpoints.load(str(config.evaluation.checkpoint))
    params = saved["ema"] or saved["params"]
    weights.check_params(params, expected, workdir)
    return params, step


_PACKAGES = ("flatjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
# Changing these between two starts of a run changes nothing about its result.
_NEUTRAL = ("train.log_every", "train.skip_nonfinite", "train.tensorboard", "train.workers",
            "evaluation.checkpoint", "evaluation.figures", "evaluation.heldout")


def check_owner(workdir: Path, config: ConfigDict, *, longer: bool = False) -> int:
    """Refuse a workdir with checkpoints of another config, by an `InputError` of what differs.

    With `longer`, the config may have more steps. Returns those of the one there, or 0.
    """
    if not ((workdir / "config.json").is_file() and any(workdir.glob("checkpoints/[0-9]*"))):
        return 0
    old, new = map(flattened, (load_config(workdir), config))
    may = {*_NEUTRAL}
    if longer and new["train.steps"] > old["train.steps"]:
        may.add("train.steps")
    differing = [f"{key}: {old.get(key)!r} there, {new.get(key)!r} here"
                 for key in sorted({*old, *new} - may) if old.get(key) != new.get(key)]
    if differing:
        raise InputError(
            f"{workdir} holds checkpoints of another config ({'; '.join(differing)}); name "
            "another workdir, or start from its weights with --config.init_from")
    return old["train.steps"]


def claim(workdir: Path, config: ConfigDict) -> None:
    """Write into the workdir whose it is, if `check_owner` agrees: config, versions, devices.

    A config of more steps may follow the one there, whose number `run.json` keeps.
    """
    before, steps = check_owner(workdir, config, longer=True), config.train.steps
    if 0 < before < steps:
        print(f"{workdir}: {before} steps become {steps}; the learning rate is that of {steps} "
              f"steps from the last checkpoint on, so the result is not that of {steps} steps "
              "from the start", flush=True)
    try:
        found = json.loads((workdir / "run.json").read_text()) if before else {}
        earlier = {before, *found["earlier_steps"]}
    except (OSError, ValueError, KeyError, TypeError):
        earlier = {before}
    write_json(workdir / "run.json", {
        "python": platform.python_version(), "seed": config.seed,
        "packages": {name: version(name) for name in _PACKAGES},
        "processes": jax.process_count(),
        "devices": [f"{d.platform} {d.device_kind}" for d in jax.devices()],
        "earlier_steps": sorted(earlier - {0, steps}),
    })
    write_text(workdir / "config.json", configuration.to_json(config))
