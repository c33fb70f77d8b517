"""DDS: a diffusion learned without measurements, with a few CG iterations in every step.

Chung, Lee, Ye, "Decomposed Diffusion Sampler for Accelerating Large-Scale Inverse Problems", ICLR
2024 (arXiv 2303.05754). A network predicts the noise n in the complex image x_t, or a velocity that
amounts to it. From step t to t'

    x_0 = (x_t - sqrt(1 - alpha_bar_t) n) / sqrt(alpha_bar_t)        Tweedie's mean
    (I + gamma A^H A) u = x_0 + gamma A^H y                          by CG from x_0
    x_t' = sqrt(alpha_bar_t') u + sqrt(1 - alpha_bar_t') (eta z + sqrt(1 - eta^2) n)

with no noise at the last step. The state is the combined image; coils enter through A = M E.

Approximate by construction: u is a compromise between Tweedie's mean and the data, and a share eta
of the noise is renewed however short the step, so that the samples' spread is too small. Exact, at
`eta = 0` and as steps become many, are sampling without a measurement, and entries of a single
coil's k-space that the prior holds to be independent of the measured ones.
"""

from functools import partial

import numpy as np
from flax import linen as nn
from jax import Array

from flatjax.errors import check_above
from flatjax.flow import diffusion, image_space
from flatjax.flow.scan import Record
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.methods.common import Rolled, init_network, reconstructor
from flatjax.methods.generative.denoiser import (
    denoiser,
    discrete_levels,
    image_network,
    image_noise,
)
from flatjax.mri import Measurement, expand
from flatjax.nets import image_unet

TOTAL = 1000


def step_weights(left: np.ndarray, reached: np.ndarray,
                 eta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of u, n and z in a step, see above; `diffusion.sample` takes them."""
    return (np.sqrt(reached), np.sqrt((1 - reached) * (1 - eta**2)), np.sqrt(1 - reached) * eta)


def make(network: nn.Module, *, steps: int = 49, eta: float = 0.85, gamma: float = 5.0,
         cg_iterations: int = 5, prediction: str = "velocity", samples: int = 1,
         combine: str = "sense") -> Method:
    """DDS as a `Method`, with T = 1000 noise levels, beta from 1e-4 to 0.02; its k-space is `E x`.

    Args:
        network: from images and the time to an image, as `nets.image_unet`.
        steps: noise levels that the sampler visits, evenly spaced; up to T.
        eta: share of the noise that every step renews, in [0, 1].
        gamma: weight of the data in each data-consistency problem.
        cg_iterations: of each such problem, at most.
        prediction: what the network learns, "noise" or "velocity", see `denoiser`.
        samples, combine: see `common.reconstructor`.
    """
    diffusion.check_eta(eta)
    check_above(0, gamma=gamma)  # at 0 the measurement is ignored
    space = image_space(cg_iterations=cg_iterations)
    indices = diffusion.timestep_subset(TOTAL, steps)
    alpha_bar = diffusion.linear_alpha_bar(TOTAL)
    loss, noise_in = denoiser(image_network(network), discrete_levels(alpha_bar), prediction)

    def rollout(params: Params, rng: Array, measured: Measurement, trajectory: bool | int,
                record: Record) -> Rolled:
        data = space.data_consistency(measured)
        image, states = diffusion.sample(
            noise_in(params, measured), lambda end: data.proximal(end, gamma),
            lambda key: image_noise(key, measured), rng, indices=indices, alpha_bar=alpha_bar,
            weights=partial(step_weights, eta=eta), from_noise=True, trajectory=trajectory,
            record=lambda x: record(expand(x, measured.maps)))
        return expand(image, measured.maps), states, steps

    return Method(partial(init_network, network), loss,
                  reconstructor(rollout, combine=combine, steps=steps, samples=samples))


SPEC = MethodSpec(make, parts={"network": image_unet},
                  test_time=("steps", "eta", "gamma", "cg_iterations", "samples", "network.dtype"))
