"""Score-MRI: a score learned without measurements, which enter while sampling.

Chung and Ye, "Score-based diffusion models for accelerated MRI", Medical Image Analysis 80, 2022
(arXiv 2110.05243), on the variance-exploding SDE and the predictor-corrector sampler of Song et
al., ICLR 2021 (arXiv 2011.13456). A network predicts the noise n of `x + sigma(t) n`, or a velocity
that amounts to it, from the real and imaginary parts of the complex image; the score is
-n / sigma.

The state is the combined image, whatever the number of coils. After each half step

    x <- x + E^H M (y - E x)

brings in the measurement. For a single coil it replaces the measured samples; for several it is a
gradient step of length 1 on ||M E x - y||^2 / 2, with which the residual never grows.

Approximate by construction: samples of a noisy state are replaced by clean ones, for which the
score was not learned, and a Langevin step of finite length widens the spread a little. Exact, as
steps become many and without the corrector, are sampling without a measurement, and entries of
k-space that the prior holds to be independent of the measured ones.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flatjax.errors import InputError, check_above, check_at_least
from flatjax.flow.diffusion import Predict, geometric_sigma
from flatjax.flow.scan import Record, identity, scan_steps
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.methods.common import Rolled, init_network, reconstructor
from flatjax.methods.generative.denoiser import Levels, denoiser, image_network, image_noise
from flatjax.mri import Measurement, expand, reduce
from flatjax.nets import image_unet

SMALLEST = 1e-3  # sigma_min; of 1 - alpha_bar, near 1e-6 then, float32 has one digit left


def replace_measured(image: Array, measured: Measurement) -> Array:
    """`x + E^H M (y - E x)`: `[batch, y, x]` complex64 to the same."""
    kspace, mask, maps, _ = measured
    return image + reduce(mask * (kspace - expand(image, maps)), maps)


def langevin(state: Array, score: Array, noise: Array, snr: float) -> Array:
    """A Langevin step whose drift is `snr` times as long as its noise; all `[batch, y, x]`.

    Song et al., algorithm 4: `x + h s + sqrt(2 h) n` with `h = 2 (snr ||n|| / ||s||)^2`. The
    norms are those of each element; the paper's code averages them over the batch.
    """
    axes = tuple(range(1, state.ndim))
    power, drift = (jnp.sum(jnp.real(x) ** 2 + jnp.imag(x) ** 2, axis=axes, keepdims=True)
                    for x in (noise, score))
    step = jnp.where(drift > 0, 2 * snr**2 * power / jnp.where(drift > 0, drift, 1), 0)
    return state + step * score + jnp.sqrt(2 * step) * noise


def sample(score: Predict, consistent: Callable[[Array], Array], start: Array, rng: Array, *,
           steps: int, sigma_min: float, sigma_max: float, snr: float,
           trajectory: bool | int = False, record: Record = identity) -> tuple[Array, Array | None]:
    """Predictor-corrector sampling down from sigma_max.

    Every step is a corrector, a Langevin step at the present noise level, and a predictor, the
    ancestral step of Song et al. (their appendix F):

        x + (sigma_j^2 - sigma_{j+1}^2) score
          + sigma_{j+1} / sigma_j sqrt(sigma_j^2 - sigma_{j+1}^2) n

    Score-MRI leaves out the ratio of the sigmas, which is near 1 for its 2000 steps; with few
    steps the noise added would then be several times that of the next level. The last predictor
    goes from sigma_min to 0 and adds none.

    Args:
        score: `(x, t) -> score`.
        consistent: data consistency, applied after each half step.
        start: `[batch, y, x]` complex64, noise of scale sigma_max.
        rng: key.
        steps: N, number of noise levels, `t_j` evenly from 1 to 0.
        sigma_min, sigma_max, snr: of `geometric_sigma` and `langevin`.
        trajectory, record: as in `scan_steps`, whose result this is, too.
    """
    times = jnp.linspace(1.0, 0.0, steps, dtype=jnp.float32)
    variances = geometric_sigma(times, sigma_min, sigma_max) ** 2
    reached = jnp.append(variances[1:], 0)
    removed = variances - reached
    added = removed * reached / variances

    def advance(x: Array, at: tuple[Array, ...]) -> Array:
        key, t, removed_, added_ = at
        first, second = jax.random.normal(key, (2, *x.shape), x.dtype)
        x = consistent(langevin(x, score(x, t), first, snr))
        return consistent(x + removed_ * score(x, t) + jnp.sqrt(added_) * second)

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
        sigma_min, sigma_max: noise at t = 0 and t = 1, see `diffusion.geometric_sigma`, as the
            root mean square of complex noise on the scale of an image with maximum 1. The default
            maximum belongs to images of 320 x 320; it should exceed the distance between images,
            which falls with their size.
        prediction: what the network learns, "noise" or "velocity", see `denoiser`.
        samples, combine: see `common.reconstructor`.
    """
    check_above(0, snr=snr)  # at 0 the corrector would do nothing
    check_at_least(SMALLEST, sigma_min=sigma_min)
    if not sigma_min < sigma_max:
        raise InputError(f"sigma_min is {sigma_min} and sigma_max {sigma_max}, expected "
                         "sigma_min < sigma_max")

    def alpha_bar(t: Array) -> Array:
        """For which `sqrt(alpha_bar) x_t`, what the network sees, is `diffusion.diffuse`."""
        return 1 / (1 + geometric_sigma(t, sigma_min, sigma_max) ** 2)

    levels = Levels(alpha_bar, lambda rng, count: jax.random.uniform(rng, (count,), jnp.float32))
    loss, noise_in = denoiser(image_network(network), levels, prediction)

    def rollout(params: Params, rng: Array, measured: Measurement, trajectory: bool | int,
                record: Record) -> Rolled:
        noise_at = noise_in(params, measured)

        def score(image: Array, t: Array) -> Array:
            noise = noise_at(jnp.sqrt(alpha_bar(t)) * image, t)
            return -noise / geometric_sigma(t, sigma_min, sigma_max)

        key_start, key_steps = jax.random.split(rng)
        image, states = sample(
            score, lambda x: replace_measured(x, measured),
            sigma_max * image_noise(key_start, measured), key_steps, steps=steps,
            sigma_min=sigma_min, sigma_max=sigma_max, snr=snr, trajectory=trajectory,
            record=lambda x: record(expand(x, measured.maps)))
        return expand(image, measured.maps), states, 2 * steps

    return Method(partial(init_network, network), loss,
                  reconstructor(rollout, combine=combine, steps=steps, samples=samples))


SPEC = MethodSpec(make, parts={"network": image_unet},
                  test_time=("steps", "snr", "samples", "network.dtype"))
