"""Measurement-conditioned DDPM on the demo's data and budget.

One network of about as many parameters as the demo's six cascades together; four samples by 20
DDIM steps each. For all the ancestral steps with the same weights, evaluate with
`--config.method.sampler=ddpm --config.method.steps=1000`.

    python train.py --config=configs/demo_mc_ddpm.py --workdir=runs/demo_mc_ddpm
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.cli import load_config_file


def get_config() -> ConfigDict:
    demo = load_config_file("demo")
    demo.method = config.method("mc_ddpm", steps=20, samples=4, channels=20, pools=3)
    return demo
