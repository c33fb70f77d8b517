"""flatjax: flow-aligned unrolled networks for accelerated MRI reconstruction, in JAX.

Layers, each importing only those before it:

    mri       physics: Fourier transform, coils, masks, forward model, simulation
    flow      mathematics: path, timesteps, ODE solvers
    nets      learned functions: the U-Net
    methods   reconstruction methods, each a `Method(init, loss, reconstruct)` of pure functions
    data      data sets, each a `DataSet(draw, validation, test)`
    config, train, evaluate   what the command-line programs call

`make_method(config.method)` and the modules above are all one needs to train or reconstruct in
one's own loop.
"""

from flatjax import config, data, flow, losses, methods, mri, nets
from flatjax.errors import InputError, TrainingError
from flatjax.evaluation import metrics
from flatjax.inference.pretrained import load_pretrained
from flatjax.methods import METHODS, Method, Reconstruction
from flatjax.mri import Batch, Measurement

__version__ = "0.1.0"

__all__ = ["METHODS", "Batch", "InputError", "Measurement", "Method", "Reconstruction",
           "TrainingError", "config", "data", "flow", "load_pretrained",
           "losses", "methods", "metrics", "mri", "nets"]
