"""DDS: a diffusion learned without measurements, with a few CG iterations in every step.

Chung, Lee, Ye, "Decomposed Diffusion Sampler for Accelerating Large-Scale Inverse Problems", ICLR
2024 (arXiv 2303.05754). A network predicts the noise n in the complex image x_t, or a velocity that
amounts to it. From step t to t'

    x_0 = (x_t - sqrt(1 - alpha_bar_t) n) / sqrt(alpha_bar_t)        Tweedie's mean
    (I + gamma A^H A) u = x_0 + gamma A^H y                          by CG from x_0
    x_t' = sqrt(alpha_bar_t') u + sqrt(1 - alpha_bar_t') (eta z + sqrt(1 - eta^2) n)

with no noise at the last step. The state is the combined image; coils enter through A = M E.

Approximate by construction: u is a compromise between Tweedie's mean and the data and no sample
given both, and a share eta of the noise is renewed however short the step, so that the samples'
spread is too small. Exact, at `eta = 0` and as steps become many, are sampling without
a measurement, and entries of a single coil's k-space that the prior holds to be independent of
the measured ones. Measured samples approach y without being set to it.
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
    diffuse,
    learned,
    linear_alpha_bar,
    noise_from,
    timestep_subset,
)
from flatjax.flow.scan import Record, identity, scan_steps
from flatjax.flow.space import image_space
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

TOTAL = 1000


def proximal(image: Array, measured: Measurement, gamma: float, iterations: int) -> Array:
    """Solve `(I + gamma A^H A) u = x + gamma A^H y` by conjugate gradients started at x.

    Args:
        image: x `[batch, y, x]` complex64.
        measured: y, M and the maps of A.
        gamma: weight of the data, at least 0.
        iterations: of CG, at most.

    Returns:
        u, shaped like `image`.
    """
    return image_space(cg_iterations=iterations).data_consistency(measured).proximal(image, gamma)


def sample(predict: Predict, consistent: Callable[[Array], Array], draw: Draw, rng: Array, *,
           indices: np.ndarray, alpha_bar: np.ndarray, eta: float,
           trajectory: bool | int = False, record: Record = identity) -> tuple[Array, Array | None]:
    """Sample x_0 by DDS steps.

    Args:
        predict: `(x_t, t / T) -> noise`.
        consistent: data consistency of an estimate of x_0.
        draw: `key -> noise`, shaped like x_t.
        rng: key.
        indices: diffusion steps `[steps + 1]`, from `timestep_subset`.
        alpha_bar: of all diffusion steps `[T + 1]`.
        eta: share of the noise that every step renews, in [0, 1].
        trajectory, record: which states are kept, and what of them, see `scan_steps`.

    Returns:
        `(x_0, records or None)`, records `[saved, ...]`.
    """
    left, reached = alpha_bar[indices[:-1]], alpha_bar[indices[1:]]
    columns = (indices[:-1] / (len(alpha_bar) - 1), np.sqrt(left), np.sqrt(1 - left),
               np.sqrt(reached), np.sqrt((1 - reached) * (1 - eta**2)),
               np.sqrt(1 - reached) * eta)
    keys = jax.random.split(rng, len(indices))

    def advance(state: Array, x: tuple[Array, ...]) -> Array:
        key, t, signal, spread, to_end, to_noise, fresh = x
        noise = predict(state, t)
        end = consistent((state - spread * noise) / signal)
        return to_end * end + to_noise * noise + fresh * draw(key)

    xs = (keys[1:], *(jnp.asarray(column, jnp.float32) for column in columns))
    return scan_steps(advance, draw(keys[0]), xs, trajectory=trajectory, record=record)


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
        prediction: what the network learns: the "noise", as in the paper, or the "velocity", from
            which the noise follows, see `diffusion.learned`. It needs far less training.
        samples: drawn for each slice and averaged.
        combine: how coils are combined for the image, "sense" or "rss".

    Raises:
        InputError: for a value out of range.
    """
    check_choice("prediction", prediction, PREDICTIONS)
    check_at_least(1, cg_iterations=cg_iterations)
    check_choice("combine", combine, COMBINES)
    check_at_least(1, samples=samples)
    check_eta(eta)
    if not gamma > 0:
        raise InputError(f"gamma is {gamma}, expected above 0: at 0 the measurement is ignored")
    indices = timestep_subset(TOTAL, steps)
    alpha_bar = linear_alpha_bar(TOTAL)
    levels = jnp.asarray(alpha_bar, jnp.float32)

    def init(rng: Array, batch: Batch) -> Params:
        return {"net": init_network(network, rng, batch)}

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        measured, kspace, _ = normalize(batch)
        image = reduce(kspace, measured.maps)
        key_time, key_noise = jax.random.split(rng)
        index = jax.random.randint(key_time, image.shape[:1], 1, TOTAL + 1)
        noise = image_noise(key_noise, kspace)
        level = levels[index][:, None, None]
        predicted = apply_network(network, params["net"], diffuse(image, noise, level),
                                  t=index / TOTAL)
        error = jnp.mean(squared_error(predicted, learned(prediction, image, noise, level)))
        return error, {prediction: error}

    def draw(params: Params, rng: Array, measured: Measurement,
             trajectory: bool | int, record: Record) -> Rolled:
        def predict(image: Array, t: Array) -> Array:
            predicted = apply_network(network, params["net"], image, t=at_time(t, image))
            level = levels[jnp.round(TOTAL * t).astype(int)]
            return noise_from(prediction, predicted, image, level)

        image, states = sample(
            predict, lambda end: proximal(end, measured, gamma, cg_iterations),
            lambda key: image_noise(key, measured.kspace), rng, indices=indices,
            alpha_bar=alpha_bar, eta=eta,
            trajectory=trajectory, record=lambda x: record(expand(x, measured.maps)))
        return expand(image, measured.maps), states, steps

    return Method(init, loss, posterior_reconstructor(draw, samples=samples, combine=combine,
                                                      steps=steps))


SPEC = MethodSpec(make, parts={"network": image_unet},
                  test_time=("steps", "eta", "gamma", "cg_iterations", "samples", "network.dtype"))
