"""E2E-VarNet on the demo's data and budget.

fastMRI's cascades, as many and as wide as the demo's, trained on SSIM as they were published;
data, seed and number of steps are the demo's, and a step takes about as long.

    python train.py --config=configs/demo_varnet.py --workdir=runs/demo_varnet
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.cli import load_config_file


def get_config() -> ConfigDict:
    demo = load_config_file("demo")
    demo.method = config.method("varnet", steps=6, channels=8, pools=3)
    return demo
