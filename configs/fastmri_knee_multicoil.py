"""FLAT on fastMRI's multi-coil knees at R = 4: 12 cascades of 18 channels, for a large GPU.

    python train.py --config=configs/fastmri_knee_multicoil.py --workdir=runs/knee15 \
        --config.data.path=/data/fastmri

data.path is the folder that holds fastMRI's `multicoil_train` and `multicoil_val`, unpacked; they
come from fastmri.med.nyu.edu. The first start checks every file and keeps an index there; set
data.cache if it is read-only. Coil maps are made from the central columns of each slice, as many
as data.calibration says, all of which the masks sample. Maps explain only a part of the coils'
k-space, so a velocity `E net` could not lead to it: the endpoint form puts what they explain in
its place, and coils are combined as in the reference, by root sum of squares. ESPIRiT's maps come
with --config.data.sensitivities=espirit; with --config.method.sensitivities.name=learned a network
of their own makes them, as in E2E-VarNet, and with --config.data.virtual_coils=8 eight virtual
coils stand for all.

The effective batch of 8 slices is computed one slice at a time on one device; with n devices give
--config.train.accumulate=8/n. A tenth of the validation volumes chooses the checkpoint, and
evaluate.py scores all of them. Memory, time and scores have not been measured on the real files.
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", schedule={"steps": 12},
                             network={"channels": 18, "pools": 4}, remat=True,
                             parameterization="endpoint"),
        combine="rss",
        data=config.data("fastmri", challenge="multicoil", calibration=0.08,
                         validation_fraction=0.1),
        acquisition=config.acquisition(mask="random", acceleration=4.0, center_fraction=0.08),
        train=config.training(steps=100_000, batch_size=8, accumulate=8, learning_rate=3e-4,
                              warmup_steps=1000, ema_decay=0.999, validate_every=5000,
                              log_every=100, workers=8),
        evaluation=config.evaluation(batch_size=1),
    )
