"""One U-Net on the demo's data and budget.

So wide that a step takes about as long as the demo's with its six narrow networks; data, seed
and number of steps are the demo's.

    python train.py --config=configs/demo_unet.py --workdir=runs/demo_unet
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.cli import load_config_file


def get_config() -> ConfigDict:
    demo = load_config_file("demo")
    demo.method = config.method("unet", channels=48, pools=3)
    return demo
