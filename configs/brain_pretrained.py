r"""The model that ships as `brain`: the demo's, trained on at 128 x 128 for heads of many sizes.

Every training slice has a field of view of its own, so that heads that are cropped more or less
tightly than the template are known to it too. It starts from the demo's weights:

    python train.py --config=configs/demo.py --workdir=runs/demo
    python train.py --config=configs/brain_pretrained.py --workdir=runs/brain_pretrained \
        --config.init_from=runs/demo
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.experiments.config_file import load_config_file


def get_config() -> ConfigDict:
    brain = load_config_file("demo")
    brain.data = config.data("icbm", matrix=128, fov=(160.0, 256.0))
    brain.train.steps = 1200
    brain.train.validate_every = 100
    return brain
