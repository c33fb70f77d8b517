"""FLAT for any array of coils, trained on real heads that each slice acquires in another way.

    python train.py --config=configs/multicoil.py --workdir=runs/multicoil

The state is the image and the data term is solved for implicitly, so that one set of weights
serves any number of coils, mask and R. Every training slice draws its field of view, contrast,
phase, coils, noise and mask.
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", space={"name": "image", "cg_iterations": 8}, solver="imex",
                             likelihood={"name": "noise"}, schedule={"steps": 8},
                             network={"channels": 12, "pools": 3}),
        data=config.data("heads", matrix=128, coils=12),
        acquisition=config.acquisition(
            mask=("random", "equispaced", "gaussian1d", "poisson", "gaussian2d"),
            acceleration=(2.0, 10.0), center_fraction=(0.03, 0.2), noise=(0.001, 0.1),
            lines="both", partial_fourier=(0.7, 1.9), bank=64),
        train=config.training(steps=20_000, batch_size=8, learning_rate=1e-3, warmup_steps=200,
                              ema_decay=0.999, validate_every=500, log_every=50, workers=2),
        evaluation=config.evaluation(batch_size=12),
    )
