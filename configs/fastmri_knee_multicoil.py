"""FLAT on fastMRI's multi-coil knees at R = 4: 12 cascades of 18 channels, for a large GPU.

    python train.py --config=configs/fastmri_knee_multicoil.py --workdir=runs/knee15 \
        --config.data.path=/data/fastmri

data.path is the folder that holds fastMRI's `multicoil_train` and `multicoil_val`, unpacked; they
come from fastmri.med.nyu.edu. The first start checks every file and keeps an index there; set
data.cache if it is read-only. Coil maps are made from the central columns of each slice, as many
as data.calibration says, all of which the masks sample; ESPIRiT's come with
--config.data.sensitivities=espirit, and with --config.method.sensitivities.name=learned a network
makes them, as in E2E-VarNet. With --config.data.virtual_coils=8 eight virtual coils stand for all.

The state is one image and the data term implicit, which docs/ablations.md found far better for
several coils than explicit steps on k-space. Those are the paper's form, and come with
--config.method.space.name=kspace --config.method.solver=euler --config.method.likelihood.name=fixed
--config.method.parameterization=endpoint; the endpoint form also replaces what the maps do not
explain. References are combined by root sum of squares, and so is the result.

The effective batch of 8 slices is computed one slice at a time on one device; with n devices give
--config.train.accumulate=8/n. A tenth of the validation volumes chooses the checkpoint, and
evaluate.py scores all of them. Memory, time and scores have not been measured on the real files.
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", space={"name": "image"}, solver="imex",
                             likelihood={"name": "noise"}, schedule={"steps": 12},
                             network={"channels": 18, "pools": 4}, remat=True),
        combine="rss",
        data=config.data("fastmri", challenge="multicoil", calibration=0.08,
                         validation_fraction=0.1),
        acquisition=config.acquisition(mask="random", acceleration=4.0, center_fraction=0.08),
        train=config.training(steps=100_000, batch_size=8, accumulate=8, learning_rate=3e-4,
                              warmup_steps=1000, ema_decay=0.999, validate_every=5000,
                              log_every=100, workers=8),
        evaluation=config.evaluation(batch_size=1),
    )
