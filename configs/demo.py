"""FLAT for eight coils on real heads, in minutes on two CPUs; and what it is compared with.

    python train.py --config=configs/demo.py --workdir=runs/demo
    python train.py --config=configs/demo.py:METHOD --workdir=runs/METHOD

METHOD is one of those of configs/singlecoil.py, "flat" if it is left out. Evaluation ends with a
real scan, which no method has seen.
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.experiments.config_file import load_config_file


def get_config(method: str = "flat") -> ConfigDict:
    demo = load_config_file(f"singlecoil:{method}")
    if method == "flat":
        demo.method.update(space={"name": "image", "cg_iterations": 6}, solver="imex")
    demo.data = config.data("heads", matrix=96, coils=8)
    demo.acquisition = config.acquisition(
        mask="equispaced", acceleration=4.0, center_fraction=0.08, noise=0.01)
    return demo
