"""Reconstruction methods. A new one is one file with a `make` and one entry here."""

from flatjax.methods import flat, modl, unet, varnet, zero_filled
from flatjax.methods.base import Method, Reconstruction

METHODS = {
    "flat": flat.make,
    "modl": modl.make,
    "unet": unet.make,
    "varnet": varnet.make,
    "zero_filled": zero_filled.make,
}

__all__ = ["METHODS", "Method", "Reconstruction", "flat", "modl", "unet", "varnet", "zero_filled"]
