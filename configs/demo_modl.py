"""MoDL on the demo's data and budget.

As many steps as the demo has cascades, with one network of the same width for all of them; data,
seed and number of steps are the demo's, and a step takes about as long.

    python train.py --config=configs/demo_modl.py --workdir=runs/demo_modl
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.cli import load_config_file


def get_config() -> ConfigDict:
    demo = load_config_file("demo")
    demo.method = config.method("modl", steps=6, channels=8, pools=3)
    return demo
