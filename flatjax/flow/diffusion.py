"""Diffusion: noise schedules and the Gaussian steps between noise levels.

Variance preserving (Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv
2006.11239), step t of T, where alpha_bar falls from 1 at t = 0 to nearly 0 at t = T:

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) n

Variance exploding (Song et al., "Score-Based Generative Modeling through Stochastic Differential
Equations", ICLR 2021, arXiv 2011.13456), time t in [0, 1]:

    x_t = x_0 + sigma(t) n

Everything is complex. The noise n is circular, with E |n|^2 = 1 per entry, as `jax.random.normal`
draws it for a complex dtype; the score is `d log p / d conj(x)`. With these two conventions the
formulas are those for real numbers: -n / sigma is the score of x_t given x_0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import InputError
from flatjax.flow.scan import Record, identity, scan_steps

# A state and the time of its noise level to what a network predicts from them.
Predict = Callable[[Array, Array], Array]
# alpha_bar of the steps that are left and of those that are reached to the weights (a, b, c) of a
# step, which are float64 and shaped like them.
Weights = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]

PREDICTIONS = ("velocity", "noise")


def cosine_alpha_bar(total: int) -> np.ndarray:
    """alpha_bar of the cosine schedule (Nichol and Dhariwal, arXiv 2102.09672, sec. 3.2).

    It is `[total + 1]` float64, entry t belonging to step t and entry 0 being 1.
    """
    curve = np.cos((np.arange(total + 1) / total + 0.008) / 1.008 * np.pi / 2) ** 2
    beta = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
    return np.concatenate([[1.0], np.cumprod(1 - beta)])


def linear_alpha_bar(total: int) -> np.ndarray:
    """The same where beta rises linearly from 1e-4 to 0.02 (Ho et al., sec. 4)."""
    return np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, total))])


def geometric_sigma(t: ArrayLike, smallest: float, largest: float) -> Array:
    """`sigma(t) = smallest (largest / smallest)^t` of the variance-exploding process."""
    return smallest * (largest / smallest) ** jnp.asarray(t)


def timestep_subset(total: int, steps: int) -> np.ndarray:
    """Evenly spaced diffusion steps `T = t_0 > t_1 > ... > t_steps = 0`, of `total` T trained on.

    InputError unless `steps` is from 1 to T.
    """
    if not 1 <= steps <= total:
        raise InputError(f"steps is {steps}, expected from 1 to {total}, the number of noise "
                         "levels that the network is trained on")
    return total * np.arange(steps, -1, -1) // steps


def check_eta(eta: float) -> None:
    """Refuse a share of fresh noise outside [0, 1]."""
    if not 0 <= eta <= 1:
        raise InputError(f"eta is {eta}, expected in [0, 1]: 0 adds no fresh noise, 1 the most")


def diffuse(end: Array, noise: Array, alpha_bar: ArrayLike) -> Array:
    """x_t from x_0 and the noise; `alpha_bar` broadcasts against them."""
    return jnp.sqrt(alpha_bar) * end + jnp.sqrt(1 - alpha_bar) * noise


def learned(kind: str, end: Array, noise: Array, alpha_bar: ArrayLike) -> Array:
    """What a network is to predict from `diffuse(end, noise, alpha_bar)`.

    It is the "noise" n itself, or the "velocity" `sqrt(alpha_bar) n - sqrt(1 - alpha_bar) x_0` of
    Salimans and Ho, "Progressive Distillation", ICLR 2022 (arXiv 2202.00512, sec. 4). An error of
    the noise is divided by sqrt(alpha_bar) in the x_0 that follows from it; one of the velocity is
    not.
    """
    if kind == "noise":
        return noise
    return jnp.sqrt(alpha_bar) * noise - jnp.sqrt(1 - alpha_bar) * end


def noise_from(kind: str, predicted: Array, state: Array, alpha_bar: ArrayLike) -> Array:
    """The noise n in `state` x_t that a prediction of `learned` amounts to."""
    if kind == "noise":
        return predicted
    return jnp.sqrt(alpha_bar) * predicted + jnp.sqrt(1 - alpha_bar) * state


def posterior_weights(left: np.ndarray, reached: np.ndarray,
                      eta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step to less noise: `x_t' = a x_0 + b x_t + c z` with z ~ CN(0, I).

    The family of Song et al., "Denoising Diffusion Implicit Models", ICLR 2021 (arXiv 2010.02502,
    eq. 12 and 16), whose every member has the marginals of the diffusion if x_0 is exact. `eta =
    1` is the posterior q(x_t' | x_t, x_0) of Ho et al. (eq. 7), the ancestral step; `eta = 0` is
    deterministic.

    From alpha_bar of the steps that are left, below 1, and of those that are reached, each larger
    (at 1 the step lands on x_0), it makes `(a, b, c)`, float64, shaped like them.
    """
    variance = eta**2 * (1 - reached) / (1 - left) * (1 - left / reached)
    kept = np.sqrt(np.maximum(1 - reached - variance, 0) / (1 - left))
    return np.sqrt(reached) - kept * np.sqrt(left), kept, np.sqrt(variance)


def sample(predict: Predict, correct: Callable[[Array], Array], draw: Callable[[Array], Array],
           rng: Array, *, indices: np.ndarray, alpha_bar: np.ndarray, weights: Weights,
           from_noise: bool = False, trajectory: bool | int = False,
           record: Record = identity) -> tuple[Array, Array | None]:
    """Sample x_0 from noise, level by level.

    The noise n that is predicted in x_t gives an estimate of x_0, which is corrected, and a step
    to less noise, `x_t' = a x_0 + b x_t + c z` or, `from_noise`, `a x_0 + b n + c z`.

    Args:
        predict: `(x_t, t / T) -> n`.
        correct: what is made of an estimate of x_0, by the measurement for one.
        draw: `key -> z`, noise shaped like x_t.
        rng: key.
        indices: diffusion steps `[steps + 1]`, from `timestep_subset`.
        alpha_bar: of all diffusion steps `[T + 1]`.
        weights: see `Weights`.
        from_noise: b weighs n and not x_t.
        trajectory, record: as in `scan_steps`, whose result this is, too.
    """
    left, reached = alpha_bar[indices[:-1]], alpha_bar[indices[1:]]
    columns = (indices[:-1] / (len(alpha_bar) - 1), np.sqrt(left), np.sqrt(1 - left),
               *weights(left, reached))
    keys = jax.random.split(rng, len(indices))

    def advance(state: Array, x: tuple[Array, ...]) -> Array:
        key, t, signal, spread, a, b, c = x
        noise = predict(state, t)
        end = correct((state - spread * noise) / signal)
        return a * end + b * (noise if from_noise else state) + c * draw(key)

    xs = (keys[1:], *(jnp.asarray(column, jnp.float32) for column in columns))
    return scan_steps(advance, draw(keys[0]), xs, trajectory=trajectory, record=record)
