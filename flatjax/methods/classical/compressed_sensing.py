"""Compressed sensing: the image that is sparse in wavelets and fits the measurement.

    min_x 1/2 ||A x - y||^2 + lam ||W x||_1

Lustig, Donoho, Pauly, "Sparse MRI", MRM 58(6), 2007, by FISTA (Beck and Teboulle, SIAM J. Imaging
Sci. 2(1), 2009) with steps of length 1, for no coils amplify: `||A|| <= 1`. It has no network.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax import losses, mri
from flatjax.errors import check_at_least
from flatjax.flow.scan import scan_steps
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.methods.common import Rolled, end_supervised
from flatjax.mri import Batch, Measurement, wavelets

_LOSS = losses.image()


def make(*, steps: int = 60, levels: int = 4, lam: float = 0.003, combine: str = "sense",
         loss: losses.Loss = _LOSS) -> Method:
    """Compressed sensing with wavelets as a `Method`; its k-space is `E x`.

    Its one parameter is `log_lam`: training looks for the weight of sparsity that gives the best
    images, which takes few steps and may be left out.

    Args:
        steps: iterations of FISTA.
        levels: of the wavelet transform, see `flatjax.mri.wavelets`.
        lam: weight of sparsity to start from, on the scale of an image with maximum 1.
        combine, loss: see `unet.make`.
    """
    check_at_least(0, levels=levels)
    check_at_least(1e-8, lam=lam)
    momenta = _momenta(steps)

    def init(rng: Array, batch: Batch) -> Params:
        return {"log_lam": jnp.asarray(np.log(lam), jnp.float32)}

    def rollout(params: Params, measured: Measurement, trajectory: bool | int) -> Rolled:
        kspace, mask, maps, _ = measured
        threshold = jnp.exp(params["log_lam"])

        def step(state: tuple[Array, Array], momentum: Array) -> tuple[Array, Array]:
            image, ahead = state
            residual = mri.forward(ahead, mask, maps) - kspace
            new = sparser(ahead - mri.adjoint(residual, mask, maps), threshold, levels)
            return new, new + momentum * (new - image)

        start = mri.zero_filled(measured)
        (image, _), states = scan_steps(step, (start, start), jnp.asarray(momenta),
                                        trajectory=trajectory,
                                        record=lambda state: mri.expand(state[0], maps))
        states = None if states is None else states.at[0].set(kspace)
        return mri.expand(image, maps), states, 0

    return end_supervised(init, rollout, loss, combine=combine, steps=steps)


SPEC = MethodSpec(make, parts={"loss": losses.image}, test_time=("steps", "levels", "lam", "loss"))


def sparser(image: Array, threshold: Array, levels: int) -> Array:
    """Proximal operator of `threshold ||W x||_1` on images `[batch, y, x]` complex64.

    It moves wavelet coefficients towards 0, by the threshold at most.
    """
    coefficients = wavelets.forward(image, levels)
    size = mri.safe_abs(coefficients)
    # Where a coefficient is not above the threshold the other branch would divide by 0.
    above = size > threshold
    kept = jnp.where(above, coefficients * (1 - threshold / jnp.where(above, size, 1)), 0)
    return wavelets.inverse(kept, image.shape[-2:], levels)


def _momenta(steps: int) -> np.ndarray:
    """FISTA's `(t_j - 1) / t_{j+1}`, `[steps]` float32."""
    t, out = 1.0, []
    for _ in range(steps):
        following = (1 + np.sqrt(1 + 4 * t * t)) / 2
        out.append((t - 1) / following)
        t = following
    return np.array(out, np.float32)
