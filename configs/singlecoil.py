"""FLAT, and all methods that it is compared with, on single-coil slices, in minutes on two CPUs.

    python train.py --config=configs/singlecoil.py --workdir=runs/singlecoil
    python train.py --config=configs/singlecoil.py:METHOD --workdir=runs/METHOD

METHOD is one of `METHODS` below, "flat" if it is left out. Data, seed and number of updates are the
same for all. An update of the U-Net takes about as long as one of FLAT with its six narrow
networks; the generative methods have one network of about as many parameters as these six
together, and a cheaper update.
"""

from ml_collections import ConfigDict

from flatjax import config
from flatjax.errors import InputError

NET = {"channels": 8, "pools": 3}
WIDE = {"channels": 20, "pools": 3}
METHODS = {
    "flat": {"schedule": {"steps": 6}, "network": NET},
    # Its three changes undone: step sizes eta and lambda learned without constraint, as in
    # E2E-VarNet, and nothing aligns the intermediate images.
    "vanilla": {"steps": 6, "network": NET},
    "cg_sense": {},  # for configs/demo.py: with one coil there is nothing to solve for
    "compressed_sensing": {},
    "unet": {"network": {"channels": 48, "pools": 3}},
    # With the others' network, whose last layer starts from zero. From fastMRI's random start, with
    # its own network, it gets nowhere near the others in so few updates: docs/comparison.md.
    "varnet": {"steps": 6, "network": {"name": "plain", **NET}},
    "modl": {"steps": 6, "network": NET},
    "flow_matching": {"schedule": {"steps": 12}, "samples": 4, "network": WIDE},
    # By DDIM; all the ancestral steps with the same weights by --config.method.sampler=ddpm
    # --config.method.steps=1000.
    "mc_ddpm": {"steps": 20, "samples": 4, "network": WIDE},
    # The largest noise is a little more than the distance between two slices of this size.
    "score_sde": {"steps": 50, "sigma_max": 50.0, "network": WIDE},
    "dds": {"steps": 49, "network": WIDE},
}


def get_config(method: str = "flat") -> ConfigDict:
    if method not in METHODS:
        raise InputError(f"the method is {method!r}, expected one of {', '.join(METHODS)}")
    train = config.training(steps=600, batch_size=4, learning_rate=1e-3, validate_every=150)
    if method in ("cg_sense", "compressed_sensing"):  # a single parameter, found soon
        train.update(steps=60, learning_rate=0.1, warmup_steps=0, validate_every=20)
    return config.experiment(
        method=config.method(method, **METHODS[method]),
        data=config.data("icbm", matrix=96),
        acquisition=config.acquisition(
            mask="random", acceleration=4.0, center_fraction=0.08, noise=0.005),
        train=train,
        evaluation=config.evaluation(batch_size=8),
    )
