"""Trained models that come with the package, a folder each.

`config.json` is the config of the training, `weights.npz` the weights in half precision,
`scores.json` what they score and `MODEL_CARD.md` what they are and are not for. The command line
packs a run's folder into such a form (`flatjax pack --workdir=DIR --to=FOLDER`) and takes such a
folder, or the name of one that is shipped, in the place of a workdir (`--pretrained=NAME`).
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from flatjax import config as configuration
from flatjax.errors import InputError
from flatjax.files import make_folder, write_json, write_text
from flatjax.methods import Method, Params
from flatjax.options import flattened
from flatjax.runs import weights

_SHIPPED = Path(__file__).parent / "models"


class Pretrained(NamedTuple):
    """A trained model.

    Attributes:
        config: that it was trained with.
        method: its functions; `reconstruct(params, key, measurement)` uses it.
        params: its weights, float32.
    """

    config: ConfigDict
    method: Method
    params: Params


def names() -> list[str]:
    """Of the models that are shipped."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{weights.FILE}"))


def folder(name: str) -> Path:
    """Where a model is: shipped under that name, or a folder that `pack` wrote.

    Raises:
        InputError: if there is neither.
    """
    for path in (_SHIPPED / name, Path(name)):
        if (path / weights.FILE).is_file():
            return path
    raise InputError(f"no pretrained model {name!r}, expected {' or '.join(names()) or 'none yet'} "
                     f"or a folder with {weights.FILE}, made by flatjax pack")


def load_pretrained(name: str) -> Pretrained:
    """A model that is shipped, or was packed into a folder.

    Args:
        name: of the model, or path of the folder.

    Raises:
        InputError: if there is no such model, or its files are damaged.
    """
    from flatjax.runs.workdir import load_config, load_params

    path = folder(name)
    config = load_config(path)
    method = configuration.make_method(config)
    return Pretrained(config, method, load_params(path, config, method)[0])


def pack(config: ConfigDict, workdir: str | Path, to: str | Path,
         output: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Write a run's weights in half precision, score these, and write what they are.

    Args:
        config: of the run.
        workdir: of the run.
        to: folder of the model.
        output: folder for what `evaluate` writes, by default `workdir/eval`.

    Returns:
        what `evaluate` does.

    Raises:
        InputError: as `evaluate`; for a folder that holds a run; or if no test volume has a
            reference: there is no model card then, nor scores.
    """
    from flatjax.evaluation.evaluate import evaluate
    from flatjax.runs.workdir import at_test_time, load_config, load_params

    if (Path(to) / "config.json").is_file() and not (Path(to) / weights.FILE).is_file():
        raise InputError(f"cannot pack into {to}, which holds a run; name a folder of its own")
    config = at_test_time(config, load_config(workdir))
    params, step = load_params(workdir, config, configuration.make_method(config))
    to = make_folder(to)
    weights.save(to / weights.FILE, params)
    config = config.copy_and_resolve_references()
    config.evaluation.checkpoint = str(step)
    write_text(to / "config.json", configuration.to_json(config) + "\n")
    results = evaluate(config, to, output or Path(workdir) / "eval")
    if not results:
        raise InputError(f"no test volume of data set {config.data.name} has a reference, expected "
                         f"one at least: {to} has weights, but no scores and no model card; pack "
                         "with other data")
    write_json(to / "scores.json", results)
    write_text(to / "MODEL_CARD.md", model_card(to.name, config, results))
    return results


def model_card(name: str, config: ConfigDict, results: dict[str, dict[str, Any]]) -> str:
    """What a model is, what it was trained on, what it scores and what it is not for, as Markdown.

    Args:
        name: of the model.
        config: of its training.
        results: as from `evaluate`.
    """
    from flatjax.evaluation.tables import of_run

    method, data, acquisition, train = (config[part].to_dict() for part in (
        "method", "data", "acquisition", "train"))
    first = next(iter(results.values()))

    def listed(options: dict[str, Any], usual: Mapping[str, Any] = MappingProxyType({})) -> str:
        shown = {key: value for key, value in flattened(options).items()
                 if key != "name" and (key not in usual or usual[key] != value)}
        return ", ".join(f"{key} {value}" for key, value in shown.items()) or "as it is"

    defaults = flattened(configuration.method(method["name"]))

    origin = ", started from the weights of another run" if config.init_from else ""
    return f"""# {name}

**For research only, not a medical device: no image that it makes may be used for a diagnosis, a
treatment or any other clinical decision.**

- Method: `{method["name"]}` ({listed(method, defaults)}); {first["parameters"]:,} parameters, \
half precision.
- Trained on: data set `{data["name"]}` ({listed(data)}).
- Measured by: {listed(acquisition)}.
- Training: step {first["checkpoint_step"]} of {train["steps"]}, batches of {train["batch_size"]}, \
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
