"""Physics: what a scanner does to an image. Knows nothing of flows or networks.

`fourier`, `coils`, `forward` and `crop` are the forward model, in JAX; `linalg` solves with it,
`wavelets` and `espirit` are transforms of their own, `sampling` is what a mask tells. In `host`,
in NumPy: masks, simulation, coil compression and sensitivities.
"""

from flatjax.mri.coils import expand, reduce, rss, safe_abs
from flatjax.mri.crop import center_crop
from flatjax.mri.forward import (
    COMBINES,
    Batch,
    Measurement,
    adjoint,
    combine,
    forward,
    intensity_scale,
    normal,
    zero_filled,
)
from flatjax.mri.fourier import fft2c, ifft2c
from flatjax.mri.noise import noise_level

__all__ = ["COMBINES", "Batch", "Measurement", "adjoint", "center_crop", "combine", "expand",
           "fft2c", "forward", "ifft2c", "intensity_scale", "noise_level", "normal", "reduce",
           "rss", "safe_abs", "zero_filled"]
