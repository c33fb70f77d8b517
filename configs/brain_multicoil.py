"""FLAT on simulated 8-coil brain slices with Poisson-disc masks at R = 8, for docs/real_scan.md.

    python train.py --config=configs/brain_multicoil.py --workdir=runs/brain_multicoil \
        --config.init_from=runs/demo

The demo's network on the demo's simulated brains, of many fields of view and seen by eight coils;
it starts from the demo's weights if they are given. Masks and noise are like those of the real
scan that benchmarks/real_scan.py reconstructs: R = 8 with a fully sampled box in the center, noise
of about 1 % of the maximum.
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", schedule={"steps": 6},
                             network={"channels": 8, "pools": 3}),
        data=config.data("icbm", matrix=128, coils=8, fov=(165.0, 235.0)),
        acquisition=config.acquisition(
            mask="poisson", acceleration=8.0, center_fraction=0.014, noise=0.012),
        train=config.training(steps=500, batch_size=2, learning_rate=5e-4, warmup_steps=20,
                              validate_every=100),
        evaluation=config.evaluation(batch_size=8),
    )
