"""Reconstruction methods. A new one is one file with a `make` and one entry here."""

from flatjax.methods import flat, zero_filled
from flatjax.methods.base import Method, Reconstruction

METHODS = {"flat": flat.make, "zero_filled": zero_filled.make}

__all__ = ["METHODS", "Method", "Reconstruction", "flat", "zero_filled"]
