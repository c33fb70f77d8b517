"""The model of singlecoil on scans that it was not trained for, as a table with a figure.

    python train.py --config=configs/shift.py --workdir=runs/shift

One model, trained as singlecoil says (R = 4, random mask, noise 0.005), is evaluated at other
accelerations, mask kinds, noise levels and contrasts, one at a time; and as trained, but with the
measured samples put back into its result, whose residual `||M k_K - y|| / ||y||` is then zero to
round-off. A model trained without T2 tells about contrasts.
"""

from flatjax.experiments.config_file import load_config_file
from flatjax.experiments.grid import Grid, Run, changed

SHIFTS = {
    "as trained": {},
    "projected": {"method.projection": True},
    "R 2": {"acquisition.acceleration": 2.0, "acquisition.center_fraction": 0.16},
    "R 8": {"acquisition.acceleration": 8.0, "acquisition.center_fraction": 0.04},
    "equispaced": {"acquisition.mask": "equispaced"},
    "gaussian2d": {"acquisition.mask": "gaussian2d"},
    "radial": {"acquisition.mask": "radial"},
    "no noise": {"acquisition.noise": 0.0},
    "noise 0.02": {"acquisition.noise": 0.02},
}
T2 = {"data.contrasts": ("T2",)}


def get_config() -> Grid:
    demo = load_config_file("singlecoil")
    others = changed(demo, {"data.contrasts": ("T1", "PD")})
    return Grid("Scans that the model was not trained for", {
        "demo": Run(demo, SHIFTS | {"T2 alone": T2}, title="singlecoil"),
        "without T2": Run(others, {"T1 and PD": {}, "T2 alone": T2}),
    }, baseline="singlecoil, as trained")
