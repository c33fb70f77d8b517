"""DDS, a diffusion with conjugate gradients in every step, on the demo's data and budget.

One network of about as many parameters as the demo's six cascades together; 49 network
evaluations.

    python train.py --config=configs/demo_dds.py --workdir=runs/demo_dds
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.cli import load_config_file


def get_config() -> ConfigDict:
    demo = load_config_file("demo")
    demo.method = config.method("dds", steps=49, channels=20, pools=3)
    return demo
