"""Trained models that come with the package, one folder each.

`config.json` is the config of the training, `weights.npz` holds the weights in half precision,
`scores.json` their scores, and `MODEL_CARD.md` describes the model and its limits. `flatjax pack`
writes such a folder. `--pretrained=NAME` uses it, or a shipped model, in place of a workdir.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.errors import InputError
from flatjax.evaluation.evaluate import evaluate
from flatjax.evaluation.tables import of_run
from flatjax.files import make_folder, write_json, write_text
from flatjax.options import flattened
from flatjax.runs import weights
from flatjax.runs.workdir import at_test_time, load_config, load_params

_SHIPPED = Path(__file__).parent / "models"


def names() -> list[str]:
    """Names of the shipped models."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{weights.FILE}"))


def folder(name: str) -> Path:
    """Folder of a shipped model, or the folder `name` if `pack` wrote it; else InputError."""
    for path in (_SHIPPED / name, Path(name)):
        if (path / weights.FILE).is_file():
            return path
    raise InputError(f"no pretrained model {name!r}, expected {' or '.join(names())} or a folder "
                     f"with {weights.FILE}, made by flatjax pack")


def pack(config: ConfigDict, workdir: str | Path, to: str | Path,
         output: str | Path | None = None) -> None:
    """Write a run's weights into the folder `to`, with their scores and a model card.

    `evaluate` writes into `output`, by default `workdir/eval_NAME` with the name of the folder. An
    `InputError` if `to` holds a run, or if no test volume has a reference.
    """
    if (Path(to) / "config.json").is_file() and not (Path(to) / weights.FILE).is_file():
        raise InputError(f"cannot pack into {to}, which holds a run; name a folder of its own")
    config = at_test_time(config, load_config(workdir))
    params, step = load_params(workdir, config, configuration.make_method(config))
    to = make_folder(to)
    weights.save(to / weights.FILE, params)
    config = config.copy_and_resolve_references()
    config.evaluation.checkpoint = str(step)
    write_text(to / "config.json", configuration.to_json(config) + "\n")
    results = evaluate(config, to, output or Path(workdir) / f"eval_{to.name}")
    if not results:
        raise InputError(f"no test volume of data set {config.data.name} has a reference, so {to} "
                         "has no scores and no model card; pack with data that have references")
    write_json(to / "scores.json", results)
    write_text(to / "MODEL_CARD.md", model_card(to.name, config, results))
    print(f"the packed model is in {to}")


def model_card(name: str, config: ConfigDict, results: dict[str, dict[str, Any]]) -> str:
    """A Markdown text that describes a model, its training, its scores and its limits."""
    method, data, train = config.method.name, config.data.name, config.train
    first = next(iter(results.values()))
    usual = flattened(configuration.method(method))
    changed = {key: value for key, value in flattened(config.method).items()
               if key not in usual or usual[key] != value}
    origin = ", started from the weights of another run" if config.init_from else ""
    return f"""# {name}

**For research only. This is not a medical device: do not use any image that it produces for a
diagnosis, a treatment or any other clinical decision.**

## Model and training

- **Method:** `{method}` ({_listed(changed)}). It has {first["parameters"]:,} parameters, stored \
in half precision.
- **Training data:** data set `{data}` ({_listed(flattened(config.data))}).
- **Acquisition:** {_listed(flattened(config.acquisition))}.
- **Training:** step {first["checkpoint_step"]} of {train.steps}, batches of \
{train.batch_size}, seed {config.seed}{origin}. `config.json` contains the complete config.

## Scores

Scores of the stored weights, from `flatjax evaluate --pretrained=FOLDER --output=DIR` with this \
folder:

{of_run(results)}

## What it must not be used for

- Anything clinical. A learned reconstruction can remove structures that exist, add structures
  that do not exist, and still look right.
- Data unlike the training data: other parts of the body, contrasts, sampling patterns,
  accelerations, noise levels or coils. With such data, the model may do worse than zero filling.
  Measure before you use it.
- Claims about scanners that rest on simulated k-space. Simulated k-space makes every method look
  better than it is.
"""


def _listed(options: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in options.items() if key != "name") or "as is"
