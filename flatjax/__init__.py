"""flatjax: flow-aligned unrolled networks for accelerated MRI reconstruction, in JAX.

Rooms, each importing only those after it (`lint-imports` holds them to it):

    cli          the command-line programs
    experiments  grids of runs: ablations and comparisons; config files
    training     from a config and a workdir to checkpoints
    inference    pretrained models, reconstruction of scans, export
    evaluation   scores, tables and figures
    runs         the folder of a run: config, checkpoints, weights
    config       a run's config: method, data, acquisition, training and evaluation
    options      its sections, made from the signatures of methods, their parts and data sets
    data         data sets, each a `DataSet(draw, validation, test)`, and readers of files
    methods      reconstruction methods, each a `Method(init, loss, reconstruct)` of pure functions
    losses       FLAT's losses
    nets         learned functions: the U-Net
    flow         mathematics: path, timesteps, ODE solvers
    mri          physics: Fourier transform, coils, forward model; `mri.host`: masks, simulation

`load(name)` gives a trained model as a function of k-space. `config.make_method` and the rooms
above are all that is needed to train or reconstruct in a loop of your own. Rooms are imported at
their first use, so that `import flatjax` is light.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from flatjax.errors import InputError, TrainingError

if TYPE_CHECKING:
    from flatjax import config, data, flow, losses, methods, mri, nets
    from flatjax.evaluation import metrics
    from flatjax.inference.model import Model, load
    from flatjax.methods import METHODS, Method, Reconstruction
    from flatjax.mri import Batch, Measurement

__version__ = "0.1.0"

__all__ = ["METHODS", "Batch", "InputError", "Measurement", "Method", "Model", "Reconstruction",
           "TrainingError", "config", "data", "flow", "load", "losses", "methods", "metrics",
           "mri", "nets"]

_WITHIN = {"METHODS": "methods", "Method": "methods", "Reconstruction": "methods", "Batch": "mri",
           "Measurement": "mri", "Model": "inference.model", "load": "inference.model"}


def __getattr__(name: str) -> Any:
    """A room, or what is in one, imported at its first use."""
    if name in _WITHIN:
        return getattr(import_module(f"flatjax.{_WITHIN[name]}"), name)
    if name in __all__:
        return import_module(f"flatjax.{'evaluation.' * (name == 'metrics')}{name}")
    raise AttributeError(f"module 'flatjax' has no attribute {name!r}")
