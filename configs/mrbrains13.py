r"""FLAT on MRBrainS13's brains at R = 4: 12 cascades of 18 channels, for a GPU or several.

    python train.py --config=configs/mrbrains13.py --workdir=runs/mrbrains13 \
        --config.data.path=/data/MRBrainS13/TrainingData

data.path is the folder of the five subjects, `1/T1.nii` to `5/T2_FLAIR.nii`, from DataverseNL (doi
10.34894/645ZIN). data.contrasts chooses some of T1, T1_IR, T2_FLAIR and T1_1mm; k-space is
simulated. Three people are trained on, one is validated and one tested: runs/mrbrains13/split.json
says who, and data.test="('5',)" decides it. 30 million parameters for some hundred slices, so the
best checkpoint may be an early one; the effective batch of 8 slices is shared by all devices, so
their number must divide it. Memory, time and scores have not been measured on the real files.
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", schedule={"steps": 12},
                             network={"channels": 18, "pools": 4}, remat=True),
        data=config.data("mrbrains13", contrasts=("T1", "T2_FLAIR")),
        acquisition=config.acquisition(
            mask="random", acceleration=4.0, center_fraction=0.08, noise=0.005),
        train=config.training(steps=20_000, batch_size=8, learning_rate=3e-4, warmup_steps=1000,
                              ema_decay=0.999, validate_every=500, log_every=100, workers=8),
        evaluation=config.evaluation(batch_size=8),
    )
