"""MC-DDPM: a diffusion of the k-space that was not sampled, given what was.

Xie and Li, "Measurement-conditioned Denoising Diffusion Probabilistic Model for Under-sampled
Medical Image Reconstruction", MICCAI 2022 (arXiv 2203.03623). With r_0 the unsampled k-space,

    r_t = sqrt(alpha_bar_t) r_0 + sqrt(1 - alpha_bar_t) tau (1 - M) E n,    n ~ CN(0, I)

and a network that sees the images of r_t + y and of y is trained to predict (1 - M) E n, or a
velocity that amounts to it, by mean squared error. Noise is drawn in the image, so that it lies
where coil sensitivities can explain it and `E net` can follow; for a single coil E n is CN(0, I)
in k-space. With the exact prediction and many steps the results are samples of p(k_0 | y).
Measured samples stay as they are, noise included.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flatjax.errors import InputError, check_at_least, check_choice
from flatjax.flow.diffusion import (
    PREDICTIONS,
    Draw,
    Predict,
    check_eta,
    cosine_alpha_bar,
    diffuse,
    learned,
    noise_from,
    posterior_coefficients,
    timestep_subset,
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
from flatjax.mri import COMBINES, Batch, Measurement, expand, fft2c, ifft2c, reduce, safe_abs
from flatjax.nets import image_unet

TOTAL = 1000
SAMPLERS = ("ddpm", "ddim")


def sample(predict: Predict, draw: Draw, rng: Array, *, indices: np.ndarray,
           alpha_bar: np.ndarray, eta: float, clip: Callable[[Array], Array] | None = None,
           trajectory: bool | int = False, record: Record = identity) -> tuple[Array, Array | None]:
    """Sample r_0 by ancestral (`eta = 1`) or implicit steps.

    Args:
        predict: `(r_t, t / T) -> noise`.
        draw: `key -> noise`, shaped like r_t.
        rng: key.
        indices: diffusion steps `[steps + 1]`, from `timestep_subset`.
        alpha_bar: of all diffusion steps `[T + 1]`.
        eta: share of fresh noise, see `posterior_coefficients`.
        clip: applied to every estimate of r_0, or None.
        trajectory, record: which states are kept, and what of them, see `scan_steps`.

    Returns:
        `(r_0, records or None)`, records `[saved, ...]`.

    Raises:
        InputError: for an `eta` outside [0, 1].
    """
    total = len(alpha_bar) - 1
    left, reached = alpha_bar[indices[:-1]], alpha_bar[indices[1:]]
    columns = (indices[:-1] / total, np.sqrt(left), np.sqrt(1 - left),
               *posterior_coefficients(left, reached, eta))
    keys = jax.random.split(rng, len(indices))

    def advance(state: Array, x: tuple[Array, ...]) -> Array:
        key, t, signal, spread, to_end, to_state, std = x
        end = (state - spread * predict(state, t)) / signal
        end = end if clip is None else clip(end)
        return to_end * end + to_state * state + std * draw(key)

    xs = (keys[1:], *(jnp.asarray(column, jnp.float32) for column in columns))
    return scan_steps(advance, draw(keys[0]), xs, trajectory=trajectory, record=record)


def clip_magnitude(image: Array, largest: float) -> Array:
    """Complex numbers of modulus above `largest` brought back to it, their phase kept."""
    return image * (largest / jnp.maximum(safe_abs(image), largest))


def make(network: nn.Module, *, sampler: str = "ddim", steps: int = 50, eta: float = 0.0,
         tau: float = 0.1, prediction: str = "velocity", clip: float = 2.0, samples: int = 1,
         combine: str = "sense") -> Method:
    """MC-DDPM as a `Method`, with T = 1000 noise levels on the cosine schedule.

    Sampler, steps and eta concern sampling alone: one training serves them all.

    Args:
        network: from the images of state and measurement, and the time, to an image, as
            `nets.image_unet`.
        sampler: "ddpm", ancestral sampling, or "ddim".
        steps: noise levels that the sampler visits, evenly spaced; up to T.
        eta: share of fresh noise in each "ddim" step: 0 is deterministic, 1 is "ddpm".
        tau: scale of the noise. The paper's is 1; at the rms of unsampled k-space, about 0.1 for
            a brain slice of maximum 1 at R = 4, noise levels are spread evenly around the signal.
        prediction: what the network learns: the "noise", as in the paper, or the "velocity", from
            which the noise follows, see `diffusion.learned`. It needs far less training.
        clip: largest modulus of a pixel in the coil images of an estimate of r_0, on the scale of
            an image with maximum 1. At the first noise levels an error of the noise is amplified
            almost without bound there.
        samples: drawn for each slice and averaged.
        combine: how coils are combined for the image, "sense" or "rss".

    Raises:
        InputError: for a value out of range.
    """
    check_choice("sampler", sampler, SAMPLERS)
    check_choice("prediction", prediction, PREDICTIONS)
    check_choice("combine", combine, COMBINES)
    check_at_least(1, samples=samples)
    for name, value in (("tau", tau), ("clip", clip)):
        if not value > 0:
            raise InputError(f"{name} is {value}, expected above 0")
    indices = timestep_subset(TOTAL, steps)
    alpha_bar = cosine_alpha_bar(TOTAL)
    levels = jnp.asarray(alpha_bar, jnp.float32)
    check_eta(eta)
    eta = 1.0 if sampler == "ddpm" else eta

    def init(rng: Array, batch: Batch) -> Params:
        return {"net": init_network(network, rng, batch, images=2)}

    def noise(rng: Array, measured: Measurement) -> Array:
        kspace, mask, maps, _ = measured
        return (1 - mask) * expand(image_noise(rng, kspace), maps)

    # Below, the unsampled k-space is in units of tau.
    def output(params: Params, rest: Array, t: Array, measured: Measurement,
               zero_filled: Array) -> Array:
        image = apply_network(network, params["net"],
                              zero_filled + tau * reduce(rest, measured.maps), zero_filled, t=t)
        return (1 - measured.mask) * expand(image, measured.maps)

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        measured, kspace, _ = normalize(batch)
        key_time, key_noise = jax.random.split(rng)
        index = jax.random.randint(key_time, kspace.shape[:1], 1, TOTAL + 1)
        level = levels[index][:, None, None, None]
        end, added = (1 - measured.mask) * kspace / tau, noise(key_noise, measured)
        predicted = output(params, diffuse(end, added, level), index / TOTAL, measured,
                           reduce(measured.kspace, measured.maps))
        error = jnp.mean(squared_error(predicted, learned(prediction, end, added, level)))
        return error, {prediction: error}

    def draw(params: Params, rng: Array, measured: Measurement,
             trajectory: bool | int, record: Record) -> Rolled:
        zero_filled = reduce(measured.kspace, measured.maps)

        def predict(rest: Array, t: Array) -> Array:
            predicted = output(params, rest, at_time(t, rest), measured, zero_filled)
            level = levels[jnp.round(TOTAL * t).astype(int)]
            return noise_from(prediction, predicted, rest, level)

        def completed(rest: Array) -> Array:
            return measured.kspace + tau * rest

        rest, states = sample(
            predict, lambda key: noise(key, measured), rng, indices=indices, alpha_bar=alpha_bar,
            eta=eta,
            clip=lambda r: (1 - measured.mask) * fft2c(clip_magnitude(ifft2c(r), clip / tau)),
            trajectory=trajectory, record=lambda r: record(completed(r)))
        return completed(rest), states, steps

    return Method(init, loss, posterior_reconstructor(draw, samples=samples, combine=combine,
                                                      steps=steps))


SPEC = MethodSpec(make, parts={"network": image_unet},
                  test_time=("sampler", "steps", "eta", "clip", "samples", "network.dtype"))
