"""Conditional flow matching on the demo's data and budget.

One network of about as many parameters as the demo's six cascades together; twelve Euler steps
from each of four random starts.

    python train.py --config=configs/demo_flow_matching.py --workdir=runs/demo_flow_matching
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.cli import load_config_file


def get_config() -> ConfigDict:
    demo = load_config_file("demo")
    demo.method = config.method("flow_matching", steps=12, samples=4, channels=20, pools=3)
    return demo
