"""Trained models that come with the package, a folder each.

`config.json` is the config of the training, `weights.npz` the weights in half precision,
`scores.json` what they score and `MODEL_CARD.md` what they are and are not for. `flatjax pack`
makes such a folder, and `--pretrained=NAME` takes it, or one that is shipped, as a workdir.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.errors import InputError
from flatjax.evaluation.evaluate import evaluate
from flatjax.evaluation.tables import of_run
from flatjax.files import make_folder, write_json, write_text
from flatjax.methods import Params
from flatjax.options import flattened
from flatjax.runs import weights
from flatjax.runs.workdir import at_test_time, load_config, load_params

_SHIPPED = Path(__file__).parent / "models"


def names() -> list[str]:
    """Of the models that are shipped."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{weights.FILE}"))


def folder(name: str) -> Path:
    """Where a model is: shipped under that name, or a folder that `pack` wrote; else InputError."""
    for path in (_SHIPPED / name, Path(name)):
        if (path / weights.FILE).is_file():
            return path
    raise InputError(f"no pretrained model {name!r}, expected {' or '.join(names())} or a folder "
                     f"with {weights.FILE}, made by flatjax pack")


def pack(config: ConfigDict, workdir: str | Path, to: str | Path,
         output: str | Path | None = None) -> None:
    """Write a run's weights into the folder `to`, score these, and write what they are.

    `evaluate` writes into `output`, by default `workdir/eval_NAME` with the name of the folder. An
    `InputError` if `to` holds a run, or for no volume with a reference.
    """
    check_no_run(to)
    config = at_test_time(config, load_config(workdir))
    params, step = load_params(workdir, config, configuration.make_method(config))
    to, config = write_model(to, config, params, step)
    results = evaluate(config, to, output or Path(workdir) / f"eval_{to.name}")
    if not results:
        raise InputError(f"no test volume of data set {config.data.name} has a reference, expected "
                         f"one: {to} has no scores and no model card; pack with other data")
    write_json(to / "scores.json", results)
    write_text(to / "MODEL_CARD.md", model_card(to.name, config, results))
    print(f"the packed model is in {to}")


def write_model(to: str | Path, config: ConfigDict, params: Params,
                step: int) -> tuple[Path, ConfigDict]:
    """Write the weights of a step and their config into a folder, which `flatjax.load` takes.

    Returns both as they are now.
    """
    to, config = make_folder(to), config.copy_and_resolve_references()
    config.evaluation.checkpoint = str(step)
    weights.save(to / weights.FILE, params)
    write_text(to / "config.json", configuration.to_json(config) + "\n")
    return to, config


def check_no_run(to: str | Path) -> None:
    """Refuse a folder for a model that holds a run, by an `InputError`."""
    if (Path(to) / "config.json").is_file() and not (Path(to) / weights.FILE).is_file():
        raise InputError(f"cannot pack into {to}, which holds a run; name a folder of its own")


def model_card(name: str, config: ConfigDict, results: dict[str, dict[str, Any]]) -> str:
    """What a model is, what it was trained on, its scores and what it is not for, as Markdown."""
    method, data, train = config.method.name, config.data.name, config.train
    first = next(iter(results.values()))
    usual = flattened(configuration.method(method))
    changed = {key: value for key, value in flattened(config.method).items()
               if key not in usual or usual[key] != value}
    origin = ", started from the weights of another run" if config.init_from else ""
    return f"""# {name}

**For research only, not a medical device: no image that it makes may be used for a diagnosis, a
treatment or any other clinical decision.**

- Method: `{method}` ({_listed(changed)}); {first["parameters"]:,} parameters, half precision.
- Trained on: data set `{data}` ({_listed(flattened(config.data))}).
- Measured by: {_listed(flattened(config.acquisition))}.
- Training: step {first["checkpoint_step"]} of {train.steps}, batches of {train.batch_size}, \
seed {config.seed}{origin}. `config.json` has all of it.

## Scores

Of these weights as they are, by `flatjax evaluate --pretrained=FOLDER --output=DIR` with this \
folder:

{of_run(results)}

## What it must not be used for

- Anything clinical. A learned reconstruction can take away what is there and draw what is not,
  and look right.
- Data unlike those it was trained on: other parts of the body, contrasts, sampling patterns,
  accelerations, noise, coils. It may do worse there than zero filling: measure first.
- Claims about scanners from simulated k-space, which flatters every method.
"""


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items() if key != "name") or "as is"
