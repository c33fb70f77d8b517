"""Score-MRI: a score learned without measurements, which enter while sampling.

Chung and Ye, "Score-based diffusion models for accelerated MRI", Medical Image Analysis 80, 2022
(arXiv 2110.05243), on the variance-exploding SDE and the predictor-corrector sampler of Song et
al., ICLR 2021 (arXiv 2011.13456). A network predicts the noise n of `x + sigma(t) n`, or a velocity
that amounts to it, from the real and imaginary parts of the complex image; the score is
-n / sigma.

The state is the combined image, whatever the number of coils. After each half step

    x <- x + E^H M (y - E x)

brings in the measurement. For a single coil it replaces the measured samples, exactly. For
several it is a gradient step of length 1 on ||M E x - y||^2 / 2: the residual never grows, and
reaches 0 at once only where everything was sampled. Pixels without sensitivity stay as they are.

Approximate by construction: samples of a noisy state are replaced by clean ones, for which the
score was not learned, so what the measured samples say about the others is only roughly
taken into account; and a Langevin step of finite length widens the spread a little. Exact, as
steps become many and without the corrector, are sampling without a measurement, and entries of
k-space that the prior holds to be independent of the measured ones.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flatjax.errors import InputError, check_at_least, check_choice
from flatjax.flow.diffusion import (
    PREDICTIONS,
    Predict,
    diffuse,
    geometric_sigma,
    learned,
    noise_from,
)
from flatjax.flow.scan import Record, identity, scan_steps
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.methods.common import (
    Rolled,
    apply_network,
    init_network,
    normalize,
)
from flatjax.methods.generative.sampling import (
    at_time,
    image_noise,
    posterior_reconstructor,
    squared_error,
)
from flatjax.mri import COMBINES, Batch, Measurement, expand, reduce
from flatjax.nets import image_unet

SMALLEST = 1e-3  # sigma_min; of 1 - alpha_bar, near 1e-6 then, float32 has one digit left


def replace_measured(image: Array, measured: Measurement) -> Array:
    """`x + E^H M (y - E x)`: `[batch, y, x]` complex64 to the same."""
    kspace, mask, maps, _ = measured
    return image + reduce(mask * (kspace - expand(image, maps)), maps)


def langevin(state: Array, score: Array, noise: Array, snr: float) -> Array:
    """A Langevin step whose drift is `snr` times as long as its noise.

    Song et al., algorithm 4: `x + h s + sqrt(2 h) n` with `h = 2 (snr ||n|| / ||s||)^2`. The
    norms are those of each element; the paper's code averages them over the batch, which
    would let neighbors in a batch change each other.

    Args:
        state, score, noise: `[batch, y, x]` complex64.
        snr: ratio of the two lengths.
    """
    axes = tuple(range(1, state.ndim))
    power, drift = (jnp.sum(jnp.real(x) ** 2 + jnp.imag(x) ** 2, axis=axes, keepdims=True)
                    for x in (noise, score))
    step = jnp.where(drift > 0, 2 * snr**2 * power / jnp.where(drift > 0, drift, 1), 0)
    return state + step * score + jnp.sqrt(2 * step) * noise


def sample(predict: Predict, consistent: Callable[[Array], Array], start: Array, rng: Array, *,
           steps: int, sigma_min: float, sigma_max: float, snr: float,
           trajectory: bool | int = False, record: Record = identity) -> tuple[Array, Array | None]:
    """Predictor-corrector sampling down from sigma_max.

    Every step is a corrector, a Langevin step at the present noise level, and a predictor, the
    ancestral step of Song et al. (their appendix F):

        x + (sigma_j^2 - sigma_{j+1}^2) score
          + sigma_{j+1} / sigma_j sqrt(sigma_j^2 - sigma_{j+1}^2) n

    Score-MRI leaves out the ratio of the sigmas, which is near 1 for its 2000 steps. For the tens
    of steps taken here the noise added would be several times that of the next level.

    The corrector comes first, as in Song et al.'s sampler, so that the last predictor goes from
    sigma_min to 0. It adds no noise: the denoised image is returned.

    Args:
        predict: `(x, t) -> score`.
        consistent: data consistency, applied after each half step.
        start: `[batch, y, x]` complex64, noise of scale sigma_max.
        rng: key.
        steps: N, number of noise levels, `t_j` evenly from 1 to 0.
        sigma_min, sigma_max: of `geometric_sigma`.
        snr: of `langevin`.
        trajectory, record: which states are kept, and what of them, see `scan_steps`.

    Returns:
        `(x, records or None)`, records `[saved, ...]`.
    """
    times = jnp.linspace(1.0, 0.0, steps)
    variances = geometric_sigma(times, sigma_min, sigma_max) ** 2
    reached = jnp.append(variances[1:], 0)
    removed = variances - reached
    added = removed * reached / variances

    def advance(x: Array, at: tuple[Array, ...]) -> Array:
        key, t, removed_, added_ = at
        first, second = jax.random.normal(key, (2, *x.shape), x.dtype)
        x = consistent(langevin(x, predict(x, t), first, snr))
        return consistent(x + removed_ * predict(x, t) + jnp.sqrt(added_) * second)

    return scan_steps(advance, start, (jax.random.split(rng, steps), times, removed, added),
                trajectory=trajectory, record=record)


def make(network: nn.Module, *, steps: int = 1000, snr: float = 0.16,
         sigma_min: float = 0.01, sigma_max: float = 378.0, prediction: str = "velocity",
         samples: int = 1, combine: str = "sense") -> Method:
    """Score-MRI as a `Method`; its k-space is `E x`.

    Args:
        network: from images and the time to an image, as `nets.image_unet`.
        steps: N, of predictor and corrector: 2 N network evaluations.
        snr: length of the corrector's drift over that of its noise.
        sigma_min, sigma_max: noise at t = 0 and t = 1, `sigma(t) = sigma_min (sigma_max /
            sigma_min)^t`, as the root mean square of complex noise on the scale of an image with
            maximum 1. The default maximum belongs to images of 320 x 320; the distance between
            images, which it should exceed, falls with their size.
        prediction: what the network learns: the "noise", as in the paper, or the "velocity", from
            which the noise follows, see `diffusion.learned`. It needs far less training.
        samples: drawn for each slice and averaged.
        combine: how coils are combined for the image, "sense" or "rss".

    Raises:
        InputError: for a value out of range.
    """
    check_choice("prediction", prediction, PREDICTIONS)
    check_at_least(1, steps=steps)
    check_choice("combine", combine, COMBINES)
    check_at_least(1, samples=samples)
    if not snr > 0:
        raise InputError(f"snr is {snr}, expected above 0: at 0 the corrector would do nothing")
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"sigma_min is {sigma_min} and sigma_max {sigma_max}, expected "
                         "0 < sigma_min < sigma_max")
    if sigma_min < SMALLEST:
        raise InputError(f"sigma_min is {sigma_min}, expected at least {SMALLEST}: float32 hardly "
                         "tells an image with less noise from one without")

    def init(rng: Array, batch: Batch) -> Params:
        return {"net": init_network(network, rng, batch)}

    def level_at(t: Array) -> Array:
        """alpha_bar for which `sqrt(alpha_bar) x_t`, what the network sees, is `diffuse`."""
        return 1 / (1 + geometric_sigma(t, sigma_min, sigma_max) ** 2)

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        measured, kspace, _ = normalize(batch)
        image = reduce(kspace, measured.maps)
        key_time, key_noise = jax.random.split(rng)
        t = jax.random.uniform(key_time, image.shape[:1])
        noise = image_noise(key_noise, kspace)
        level = level_at(t)[:, None, None]
        predicted = apply_network(network, params["net"], diffuse(image, noise, level), t=t)
        error = jnp.mean(squared_error(predicted, learned(prediction, image, noise, level)))
        return error, {prediction: error}

    def draw(params: Params, rng: Array, measured: Measurement,
             trajectory: bool | int, record: Record) -> Rolled:
        def score(image: Array, t: Array) -> Array:
            level = level_at(t)
            seen = jnp.sqrt(level) * image
            predicted = apply_network(network, params["net"], seen, t=at_time(t, image))
            noise = noise_from(prediction, predicted, seen, level)
            return -noise / geometric_sigma(t, sigma_min, sigma_max)

        key_start, key_steps = jax.random.split(rng)
        image, states = sample(
            score, lambda x: replace_measured(x, measured),
            sigma_max * image_noise(key_start, measured.kspace), key_steps,
            steps=steps, sigma_min=sigma_min, sigma_max=sigma_max, snr=snr,
            trajectory=trajectory, record=lambda x: record(expand(x, measured.maps)))
        return expand(image, measured.maps), states, 2 * steps

    return Method(init, loss, posterior_reconstructor(draw, samples=samples, combine=combine,
                                                      steps=steps))


SPEC = MethodSpec(make, parts={"network": image_unet},
                  test_time=("steps", "snr", "samples", "network.dtype"))
