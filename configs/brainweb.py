r"""FLAT on BrainWeb's twenty normal models at R = 4: 12 cascades of 18 channels, for a GPU.

    python train.py --config=configs/brainweb.py --workdir=runs/brainweb \
        --config.data.path=/data/brainweb

data.path is a folder with BrainWeb's discrete models (`subject04_crisp_v.mnc.gz` and so on, in
MINC, raw byte or raw short), from brainweb.bic.mni.mcgill.ca; data.download=True fetches them, with
`pip install -e '.[brainweb]'` and internet. They are given T1, T2 and PD contrast by BrainWeb's
tissue table; data.source=fuzzy takes the fuzzy models, and data.source=simulated the simulator's
own volumes. Of the twenty people fourteen are trained on, two validated and four tested: runs/
brainweb/split.json says who. The first start prepares every slice and keeps it beside the folder.
30 million parameters; the effective batch of 8 slices is shared by all devices, so their number
must divide it. Memory, time and scores have not been measured on the real files.
"""

from ml_collections import ConfigDict

from flatjax import config


def get_config() -> ConfigDict:
    return config.experiment(
        method=config.method("flat", schedule={"steps": 12},
                             network={"channels": 18, "pools": 4}, remat=True),
        data=config.data("brainweb", matrix=256),
        acquisition=config.acquisition(
            mask="random", acceleration=4.0, center_fraction=0.08, noise=0.005),
        train=config.training(steps=50_000, batch_size=8, learning_rate=3e-4, warmup_steps=1000,
                              ema_decay=0.999, validate_every=2500, log_every=100, workers=8),
        evaluation=config.evaluation(batch_size=8),
    )
