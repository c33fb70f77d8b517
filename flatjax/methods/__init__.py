"""Reconstruction methods. A new one is one file with a `make` and a `SPEC`, and one entry here.

`base` is what every method offers, `common` what several share. `flat` is FLAT; `classical`,
`unrolled` and `generative` hold the methods it is compared with. They take parts:

    methods.flat(nets.unet(channels=18), flow.schedule(steps=12), flow.image_space(),
                 solver="imex")
"""

from flatjax.methods.base import Method, MethodSpec, Params, Reconstruction
from flatjax.methods.check import check_method, tracing
from flatjax.methods.classical.cg_sense import SPEC as CG_SENSE, make as cg_sense
from flatjax.methods.classical.compressed_sensing import (
    SPEC as COMPRESSED_SENSING,
    make as compressed_sensing,
)
from flatjax.methods.classical.zero_filled import SPEC as ZERO_FILLED, make as zero_filled
from flatjax.methods.flat import SPEC as FLAT, make as flat
from flatjax.methods.generative.dds import SPEC as DDS, make as dds
from flatjax.methods.generative.flow_matching import SPEC as FLOW_MATCHING, make as flow_matching
from flatjax.methods.generative.mc_ddpm import SPEC as MC_DDPM, make as mc_ddpm
from flatjax.methods.generative.score_sde import SPEC as SCORE_SDE, make as score_sde
from flatjax.methods.unrolled.modl import SPEC as MODL, make as modl
from flatjax.methods.unrolled.unet import SPEC as UNET, make as unet
from flatjax.methods.unrolled.vanilla import SPEC as VANILLA, make as vanilla
from flatjax.methods.unrolled.varnet import SPEC as VARNET, make as varnet
from flatjax.registry import Registry

METHODS = Registry("method.name", "flatjax.methods", {
    "cg_sense": CG_SENSE,
    "compressed_sensing": COMPRESSED_SENSING,
    "dds": DDS,
    "flat": FLAT,
    "flow_matching": FLOW_MATCHING,
    "mc_ddpm": MC_DDPM,
    "modl": MODL,
    "score_sde": SCORE_SDE,
    "unet": UNET,
    "vanilla": VANILLA,
    "varnet": VARNET,
    "zero_filled": ZERO_FILLED,
}, kind=MethodSpec, made=Method)

__all__ = ["METHODS", "Method", "MethodSpec", "Params", "Reconstruction", "cg_sense",
           "check_method", "compressed_sensing", "dds", "flat", "flow_matching", "mc_ddpm", "modl",
           "score_sde", "tracing", "unet", "vanilla", "varnet", "zero_filled"]
