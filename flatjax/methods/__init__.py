"""Reconstruction methods. A new one is one file with a `make` and one entry here.

`base` is what every method offers, `common` what several share. `flat` is FLAT and the vanilla
unrolled network; `classical`, `unrolled` and `generative` hold the methods it is compared with.
"""

from flatjax.methods import flat
from flatjax.methods.base import Method, Params, Reconstruction
from flatjax.methods.classical import compressed_sensing, zero_filled
from flatjax.methods.generative import dds, flow_matching, mc_ddpm, score_sde
from flatjax.methods.unrolled import modl, unet, varnet

METHODS = {
    "compressed_sensing": compressed_sensing.make,
    "dds": dds.make,
    "flat": flat.make,
    "flow_matching": flow_matching.make,
    "mc_ddpm": mc_ddpm.make,
    "modl": modl.make,
    "score_sde": score_sde.make,
    "unet": unet.make,
    "varnet": varnet.make,
    "zero_filled": zero_filled.make,
}

__all__ = ["METHODS", "Method", "Params", "Reconstruction", "compressed_sensing", "dds",
           "flat", "flow_matching", "mc_ddpm", "modl", "score_sde", "unet", "varnet",
           "zero_filled"]
