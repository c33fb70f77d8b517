"""Physics: what a scanner does to an image. Knows nothing of flows or networks.

`forward` is the forward model, in JAX; `linalg` solves with it, `wavelets` and `espirit` are
transforms of their own, `sampling` is what a mask tells. In `host`, in NumPy: masks, simulation,
sensitivities and virtual coils.
"""

from flatjax.mri.forward import (
    COMBINES,
    Batch,
    Measurement,
    adjoint,
    combine,
    expand,
    fft2c,
    forward,
    global_phase,
    ifft2c,
    intensity_scale,
    noise_level,
    normal,
    reduce,
    rss,
    safe_abs,
    zero_filled,
)
from flatjax.mri.sampling import center_crop

__all__ = ["COMBINES", "Batch", "Measurement", "adjoint", "center_crop", "combine", "expand",
           "fft2c", "forward", "global_phase", "ifft2c", "intensity_scale", "noise_level", "normal",
           "reduce", "rss", "safe_abs", "zero_filled"]
