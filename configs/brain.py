"""Every method at full size on simulated brain slices, for a GPU or several.

    python train.py --config=configs/brain.py --workdir=runs/brain
    python train.py --config=configs/brain.py:METHOD --workdir=runs/METHOD

METHOD is one of `METHODS` below, "flat" if it is left out. FLAT has 12 cascades of 18 channels, 30
million parameters. The effective batch of 8 slices is shared by all devices, so their number must
divide it, and learning rate and result do not depend on it. Rematerialization keeps one cascade's
activations at a time. The generative methods take four times as many updates, each of which
evaluates their one network once. Times and scores on a GPU have not been measured.
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.errors import InputError

NET = {"network": {"channels": 18, "pools": 4}, "remat": True}
WIDE = {"network": {"channels": 62, "pools": 4}}
METHODS = {
    "flat": {"schedule": {"steps": 12}, **NET},
    "vanilla": {"steps": 12, **NET},
    "compressed_sensing": {"steps": 200},
    "unet": WIDE,
    "varnet": {"steps": 12, **NET},
    "modl": {"steps": 10, **NET},
    "flow_matching": {"schedule": {"steps": 24}, "samples": 4, **WIDE},
    "mc_ddpm": {"steps": 100, "samples": 4, **WIDE},
    "score_sde": {"steps": 500, "samples": 4, **WIDE},
    "dds": {"steps": 99, "samples": 4, **WIDE},
}
GENERATIVE = ("flow_matching", "mc_ddpm", "score_sde", "dds")


def get_config(method: str = "flat") -> ConfigDict:
    if method not in METHODS:
        raise InputError(f"the method is {method!r}, expected configs/brain.py:METHOD with one of "
                         f"{', '.join(METHODS)}")
    train = config.training(steps=50_000, batch_size=8, learning_rate=3e-4, warmup_steps=1000,
                            ema_decay=0.999, validate_every=1000, log_every=100, workers=8)
    if method in GENERATIVE:  # whose validation is slow
        train.update(steps=200_000, ema_decay=0.9999, validate_every=20_000)
    if method == "compressed_sensing":
        train.update(steps=100, learning_rate=0.1, warmup_steps=0, ema_decay=0.0,
                     validate_every=20)
    return config.experiment(
        method=config.method(method, **METHODS[method]),
        data=config.data("icbm", matrix=256),
        acquisition=config.acquisition(
            mask="random", acceleration=4.0, center_fraction=0.08, noise=0.005),
        train=train,
        evaluation=config.evaluation(batch_size=8),
    )
