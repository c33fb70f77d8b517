"""Tissues of the head at 1.5 T and spin-echo protocols that show them in the usual contrasts.

The table is BrainWeb's (brainweb.bic.mni.mcgill.ca, `tissue_mr_parameters.txt`); Collins et al.,
"Design and construction of a realistic digital brain phantom", IEEE TMI 1998.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flatjax.mri.host.simulate import spin_echo

# T1 and T2 in ms, PD
TISSUES = {
    "background": (1.0, 1.0, 0.0),
    "csf": (2569.0, 329.0, 1.0),
    "gray matter": (833.0, 83.0, 0.86),
    "white matter": (500.0, 70.0, 0.77),
    "fat": (350.0, 70.0, 1.0),
    "muscle/skin": (900.0, 47.0, 1.0),
    "skin": (2569.0, 329.0, 1.0),
    "skull": (1.0, 1.0, 0.0),
    "glial matter": (833.0, 83.0, 0.86),
    "connective": (500.0, 70.0, 0.77),
    "lesion": (752.0, 237.0, 0.76),
}


class Contrast(NamedTuple):
    """A spin-echo protocol, times in ms: `tr, te` as evaluated, ranges as trained on."""

    tr: float
    te: float
    tr_range: tuple[float, float]
    te_range: tuple[float, float]


CONTRASTS = {
    "T1": Contrast(500, 12, (400, 700), (8, 20)),
    "T2": Contrast(4500, 100, (3000, 6000), (80, 120)),
    "PD": Contrast(3000, 15, (2500, 4000), (10, 25)),
}


def tissue_table(tissues: Sequence[str]) -> np.ndarray:
    """`[3, tissue]` float64: T1 and T2 in ms, PD."""
    return np.array([TISSUES[tissue] for tissue in tissues]).T


def tissue_signal(tissues: Sequence[str], contrast: str) -> np.ndarray:
    """Signal `[tissue]` float64 of tissues in a contrast of `CONTRASTS`, as evaluated."""
    protocol = CONTRASTS[contrast]
    return spin_echo(tissue_table(tissues), protocol.tr, protocol.te)
