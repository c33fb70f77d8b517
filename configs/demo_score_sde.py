"""Score-MRI, predictor-corrector sampling of a score, on the demo's data and budget.

One network of about as many parameters as the demo's six cascades together; 50 noise levels, 100
network evaluations. The largest noise is a little more than the distance between two slices of
this size.

    python train.py --config=configs/demo_score_sde.py --workdir=runs/demo_score_sde
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.cli import load_config_file


def get_config() -> ConfigDict:
    demo = load_config_file("demo")
    demo.method = config.method("score_sde", steps=50, sigma_max=50.0, channels=20, pools=3)
    return demo
