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

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flatjax.errors import check_above, check_choice
from flatjax.flow import diffusion
from flatjax.flow.scan import Record
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.methods.common import Rolled, apply_network, init_network, reconstructor
from flatjax.methods.generative.denoiser import denoiser, discrete_levels, image_noise
from flatjax.mri import Measurement, expand, fft2c, ifft2c, reduce, safe_abs
from flatjax.nets import image_unet

TOTAL = 1000


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
        prediction: what the network learns, "noise" or "velocity", see `denoiser`.
        clip: largest modulus of a pixel in the coil images of an estimate of r_0, on the scale of
            an image with maximum 1. At the first noise levels an error of the noise is amplified
            almost without bound there.
        samples, combine: see `common.reconstructor`.
    """
    check_choice("sampler", sampler, ("ddpm", "ddim"))
    check_above(0, tau=tau, clip=clip)
    diffusion.check_eta(eta)
    eta = 1.0 if sampler == "ddpm" else eta
    indices = diffusion.timestep_subset(TOTAL, steps)
    alpha_bar = diffusion.cosine_alpha_bar(TOTAL)

    # Below, the unsampled k-space is in units of tau.
    def unsampled(kspace: Array, measured: Measurement) -> Array:
        return (1 - measured.mask) * kspace / tau

    def noise(rng: Array, measured: Measurement) -> Array:
        return (1 - measured.mask) * expand(image_noise(rng, measured), measured.maps)

    def conditioned(params: Params, measured: Measurement) -> diffusion.Predict:
        maps = measured.maps
        zero_filled = reduce(measured.kspace, maps)

        def predict(rest: Array, t: Array) -> Array:
            image = apply_network(network, params["net"], zero_filled + tau * reduce(rest, maps),
                                  zero_filled, t=t)
            return (1 - measured.mask) * expand(image, maps)

        return predict

    loss, noise_in = denoiser(conditioned, discrete_levels(alpha_bar), prediction,
                              end=unsampled, noise=noise)

    def rollout(params: Params, rng: Array, measured: Measurement, trajectory: bool | int,
                record: Record) -> Rolled:
        def completed(rest: Array) -> Array:
            return measured.kspace + tau * rest

        def clipped(rest: Array) -> Array:
            return (1 - measured.mask) * fft2c(clip_magnitude(ifft2c(rest), clip / tau))

        rest, states = diffusion.sample(
            noise_in(params, measured), clipped, lambda key: noise(key, measured), rng,
            indices=indices, alpha_bar=alpha_bar,
            weights=partial(diffusion.posterior_weights, eta=eta),
            trajectory=trajectory, record=lambda r: record(completed(r)))
        return completed(rest), states, steps

    return Method(partial(init_network, network, images=2), loss,
                  reconstructor(rollout, combine=combine, steps=steps, samples=samples))


SPEC = MethodSpec(make, parts={"network": image_unet},
                  test_time=("sampler", "steps", "eta", "clip", "samples", "network.dtype"))
