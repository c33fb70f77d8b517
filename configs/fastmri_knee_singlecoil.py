"""FLAT on fastMRI's single-coil knees at R = 4: 12 cascades of 18 channels, for a GPU or several.

    python train.py --config=configs/fastmri_knee_singlecoil.py --workdir=runs/knee \
        --config.data.path=/data/fastmri

data.path is the folder that holds fastMRI's `singlecoil_train` and `singlecoil_val`, unpacked;
they come from fastmri.med.nyu.edu. The first start checks every file and keeps an index there; set
data.cache if it is read-only. A tenth of the validation volumes chooses the checkpoint, and
evaluate.py scores all of them; fastMRI's own test files hold no reference. Masks at evaluation are
fastMRI's, by file name. 30 million parameters; the effective batch of 8 slices is shared by all
devices, so their number must divide it. Memory, time and scores have not been measured on the
real files.
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", schedule={"steps": 12},
                             network={"channels": 18, "pools": 4}, remat=True),
        data=config.data("fastmri", challenge="singlecoil", validation_fraction=0.1),
        acquisition=config.acquisition(mask="random", acceleration=4.0, center_fraction=0.08),
        train=config.training(steps=100_000, batch_size=8, learning_rate=3e-4, warmup_steps=1000,
                              ema_decay=0.999, validate_every=5000, log_every=100, workers=8),
        evaluation=config.evaluation(batch_size=4),
    )
