"""FLAT on simulated brain slices in minutes on two CPU cores.

python train.py --config=configs/demo.py --workdir=runs/demo
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", steps=6, channels=8, pools=3),
        data=config.data("icbm", matrix=96),
        acquisition=config.acquisition(
            mask="random", acceleration=4.0, center_fraction=0.08, noise=0.005),
        train=config.training(steps=600, batch_size=4, learning_rate=1e-3, validate_every=150),
        evaluation=config.evaluation(batch_size=8),
    )
