"""A network that learns the noise in a noisy state, as MC-DDPM, score SDE and DDS have one.

They differ in what the state is, in how its noise level follows the time, and in how they sample.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flatjax.errors import check_choice
from flatjax.flow.diffusion import PREDICTIONS, Predict, diffuse, learned, noise_from
from flatjax.flow.solvers import per_element
from flatjax.losses import squared_error
from flatjax.methods.base import Params
from flatjax.methods.common import apply_network, normalize
from flatjax.mri import Batch, Measurement, reduce

# `(params, measurement)` to what a network predicts of states `[batch, ...]` at times `[batch]`.
Bind = Callable[[Params, Measurement], Predict]


class Levels(NamedTuple):
    """Noise levels of a variance-preserving diffusion.

    Attributes:
        alpha_bar: of times in [0, 1].
        draw: `(rng, count) -> [count]`, times to train on.
    """

    alpha_bar: Callable[[Array], Array]
    draw: Callable[[Array, int], Array]


def discrete_levels(alpha_bar: np.ndarray) -> Levels:
    """The levels of diffusion steps 0 to T, `[T + 1]`; step t has the time t / T."""
    total, table = len(alpha_bar) - 1, jnp.asarray(alpha_bar, jnp.float32)
    return Levels(lambda t: table[jnp.round(total * t).astype(int)],
                  lambda rng, count: jnp.float32(
                      jax.random.randint(rng, (count,), 1, total + 1)) / total)


def image_noise(rng: Array, measured: Measurement) -> Array:
    """CN(0, I) in the image `[batch, y, x]`."""
    batch, _, *size = measured.kspace.shape
    return jax.random.normal(rng, (batch, *size), jnp.complex64)


def image_network(network: nn.Module) -> Bind:
    """A network that sees the state alone, an image."""
    return lambda params, measured: (
        lambda image, t: apply_network(network, params["net"], image, t=t))


def denoiser(bind: Bind, levels: Levels, prediction: str, *,
             end: Callable[[Array, Measurement], Array] | None = None,
             noise: Callable[[Array, Measurement], Array] = image_noise,
             ) -> tuple[Callable[..., tuple[Array, dict[str, Array]]], Bind]:
    """The loss by which a network learns the noise, and the noise that it then finds.

    Args:
        bind: the network on states of a measurement.
        levels: of the noise.
        prediction: what the network learns: the "noise", as in the methods' papers, or the
            "velocity", from which the noise follows, see `diffusion.learned`. It needs far less
            training.
        end: `(kspace, measurement) -> x_0`, the state without noise; None for the combined image.
        noise: `(rng, measurement) -> n`, shaped like it.

    Returns:
        `(loss, find)`: the `loss` of a `Method`, and `(params, measurement) -> ((x_t, t) -> n)`
        with a scalar t.
    """
    check_choice("prediction", prediction, PREDICTIONS)

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        measured, kspace, _ = normalize(batch)
        key_time, key_noise = jax.random.split(rng)
        t = levels.draw(key_time, len(kspace))
        clean = end(kspace, measured) if end else reduce(kspace, measured.maps)
        added = noise(key_noise, measured)
        level = per_element(levels.alpha_bar(t), clean)
        predicted = bind(params, measured)(diffuse(clean, added, level), t)
        error = jnp.mean(squared_error(prediction=predicted,
                                       target=learned(prediction, clean, added, level)))
        return error, {prediction: error}

    def find(params: Params, measured: Measurement) -> Predict:
        predict = bind(params, measured)

        def noise_in(state: Array, t: Array) -> Array:
            predicted = predict(state, jnp.broadcast_to(t, state.shape[:1]))
            return noise_from(prediction, predicted, state, levels.alpha_bar(t))

        return noise_in

    return loss, find
