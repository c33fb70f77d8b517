"""Loss terms: pure functions of arrays, reduced to one value per sample, and their weighted sum.

All are finite, in value and in gradient, on all-zero images.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import InputError, check_at_least, check_choice
from flatjax.mri import safe_abs

_SSIM_WINDOW, _SSIM_K1, _SSIM_K2 = 7, 0.01, 0.03
_AVERAGES = ("mean", "integral")
_MIN_RANGE = 1e-4  # of a target normalized to a maximum near 1; an empty one has range 0


def _check_shapes(prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, target {target.shape}; "
                         "expected equal shapes: crop one to the other")


def _window_mean(x: Array) -> Array:
    """Mean over every full window of `[..., y, x]`."""
    height, width = (n - _SSIM_WINDOW + 1 for n in x.shape[-2:])
    rows: Any = sum(x[..., i:i + height, :] for i in range(_SSIM_WINDOW))
    total: Any = sum(rows[..., j:j + width] for j in range(_SSIM_WINDOW))
    return total / _SSIM_WINDOW**2


def ssim(*, prediction: Array, target: Array) -> Array:
    """Structural similarity of magnitude images, as fastMRI defines and trains on it.

    Uniform 7 x 7 window, sample covariance, k1 = 0.01, k2 = 0.03, mean over full windows (Wang et
    al., IEEE TIP 13(4), 2004, with the options of fastMRI's evaluation). The data range is each
    target's maximum.

    Args:
        prediction: `[batch, y, x]` float32.
        target: same shape.

    Returns:
        `[batch]` float32, 1 for equal images.
    """
    _check_shapes(prediction, target)
    if min(target.shape[-2:]) < _SSIM_WINDOW:
        raise ValueError(f"images of shape {target.shape[-2:]} are smaller than the SSIM window "
                         f"of {_SSIM_WINDOW} x {_SSIM_WINDOW}")
    data_range = jnp.maximum(jnp.max(target, axis=(-2, -1)), _MIN_RANGE)[..., None, None]
    c1, c2 = (_SSIM_K1 * data_range) ** 2, (_SSIM_K2 * data_range) ** 2
    mean_p, mean_t = _window_mean(prediction), _window_mean(target)
    unbiased = _SSIM_WINDOW**2 / (_SSIM_WINDOW**2 - 1)
    var_p = unbiased * (_window_mean(prediction**2) - mean_p**2)
    var_t = unbiased * (_window_mean(target**2) - mean_t**2)
    covariance = unbiased * (_window_mean(prediction * target) - mean_p * mean_t)
    # Two quotients, since the product of the denominators underflows on an empty image.
    luminance = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    structure = (2 * covariance + c2) / (var_p + var_t + c2)
    return jnp.mean(luminance * structure, axis=(-2, -1))


def l1(*, prediction: Array, target: Array) -> Array:
    """Mean modulus of the difference: real or complex `[batch, ...]` to `[batch]` float32."""
    _check_shapes(prediction, target)
    return jnp.mean(safe_abs(prediction - target), axis=tuple(range(1, target.ndim)))


def squared_error(*, prediction: Array, target: Array) -> Array:
    """Mean squared modulus of the difference: complex `[batch, ...]` to `[batch]` float32."""
    difference = prediction - target
    return jnp.mean(jnp.real(difference) ** 2 + jnp.imag(difference) ** 2,
                    axis=tuple(range(1, difference.ndim)))


def relative_error(*, prediction: Array, target: Array) -> Array:
    """Relative l1 plus relative l2 error: complex `[batch, ...]` to `[batch]` float32.

    `||p - t||_1 / ||t||_1 + ||p - t||_2 / ||t||_2`, the loss of SSDU (Yaman et al., MRM 84(6),
    2020, eq. 9), by the modulus of complex numbers; the error itself where the target is 0.
    """
    _check_shapes(prediction, target)

    def norms(x: Array) -> Array:
        power = jnp.sum(jnp.real(x) ** 2 + jnp.imag(x) ** 2, axis=tuple(range(1, x.ndim)))
        return jnp.stack([jnp.sum(safe_abs(x), axis=tuple(range(1, x.ndim))),
                          jnp.where(power > 0, jnp.sqrt(jnp.where(power > 0, power, 1)), 0)])

    whole = norms(target)
    return jnp.sum(norms(prediction - target) / jnp.where(whole > 0, whole, 1), axis=0)


def alignment(*, prediction: Array, target: Array, delta: ArrayLike,
              average: str = "mean") -> Array:
    """Distance of the velocities taken to those that lead to the ideal path.

    From the state reached, the predicted velocity is `(k_{j+1} - k_j) / delta_j` and the ideal
    one `(k*_{j+1} - k_j) / delta_j`, so step j contributes `|k_{j+1} - k*_{j+1}| / |delta_j|`.
    Gradients flow through the states, which are rolled out: FLAT's third change to an unrolled
    network (Qi et al., arXiv 2512.03020).

    Args:
        prediction: states after each step, `[steps, batch, ...]` complex64.
        target: points of the ideal path at the same times, same shape.
        delta: timesteps `[steps]`.
        average: "mean" over the steps, or the time "integral", which weighs each by `|delta_j|`.

    Returns:
        `[batch]` float32.
    """
    _check_shapes(prediction, target)
    check_choice("average", average, _AVERAGES)
    distance = jnp.mean(safe_abs(prediction - target), axis=tuple(range(2, target.ndim)))
    if average == "integral":
        return jnp.sum(distance, axis=0)
    return jnp.mean(distance / jnp.abs(jnp.asarray(delta))[:, None], axis=0)


class Loss(NamedTuple):
    """What a method is trained on.

    Attributes:
        weights: of its terms by name; 0 leaves one out.
        domain: where the velocity is aligned, "image" or "kspace".
        average: of the alignment, see `alignment`.
    """

    weights: Mapping[str, float]
    domain: str = "image"
    average: str = "mean"


def _weighted(**weights: float) -> Loss:
    check_at_least(0, **weights)
    if not any(weights.values()):
        raise InputError(f"the weights of the loss's terms ({', '.join(weights)}) are all 0, "
                         "expected one above 0: nothing would be learned")
    return Loss(weights)


def flat(*, ssim: float = 1.0, l1: float = 1.0, kspace: float = 1.0, velocity: float = 0.1,
         domain: str = "image", average: str = "mean") -> Loss:
    """FLAT's loss, see `Loss`; an `InputError` for a value out of range, or if all weights are 0.

    Args:
        ssim, l1, kspace, velocity: weights of `1 - SSIM` and L1 on the final magnitude image, L1
            on the final k-space, and the velocity alignment; 0 leaves a term out.
        domain: align in "image" or in "kspace".
        average: "mean" over the steps or time "integral"; see `alignment`.
    """
    check_choice("domain", domain, ("image", "kspace"))
    check_choice("average", average, _AVERAGES)
    return _weighted(ssim=ssim, l1=l1, kspace=kspace, velocity=velocity)._replace(
        domain=domain, average=average)


def result(*, ssim: float = 1.0, l1: float = 1.0, kspace: float = 1.0) -> Loss:
    """The terms of `flat` on the result alone: its magnitude image and its k-space."""
    return _weighted(ssim=ssim, l1=l1, kspace=kspace)


def image(*, ssim: float = 1.0, l1: float = 1.0) -> Loss:
    """The terms of `flat` on the magnitude image alone."""
    return _weighted(ssim=ssim, l1=l1)


def varnet() -> Loss:
    """`1 - SSIM` of the magnitude image, as E2E-VarNet is trained."""
    return _weighted(ssim=1.0)


def total_loss(weights: Mapping[str, float],
               terms: Mapping[str, Callable[[], Array]]) -> tuple[Array, dict[str, Array]]:
    """Total loss and the unweighted mean of each of its terms by name, scalars float32.

    Terms are functions that return `[batch]`; those of weight 0 are not computed. An `InputError`
    for a weight of a term that is not there.
    """
    weights = {name: weight for name, weight in weights.items() if weight}
    for name in weights:
        check_choice("a term of the loss", name, terms)
    means = {name: jnp.mean(terms[name]()) for name in weights}
    return sum((weights[name] * mean for name, mean in means.items()), jnp.float32(0)), means
