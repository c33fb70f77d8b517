"""FLAT at full size on simulated brain slices: 12 cascades of 18 channels, for a GPU or several.

    python train.py --config=configs/brain_flat.py --workdir=runs/brain_flat

30 million parameters; the effective batch of 8 slices is shared by all devices, so their number
must divide it, and learning rate and result do not depend on it. Rematerialisation keeps one
cascade's activations at a time. Its time and scores on a GPU have not been measured.
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", steps=12, channels=18, pools=4, remat=True),
        data=config.data("icbm", matrix=256),
        acquisition=config.acquisition(
            mask="random", acceleration=4.0, center_fraction=0.08, noise=0.005),
        train=config.training(steps=50_000, batch_size=8, learning_rate=3e-4, warmup_steps=1000,
                              ema_decay=0.999, validate_every=1000, log_every=100, workers=8),
        evaluation=config.evaluation(batch_size=8),
    )
