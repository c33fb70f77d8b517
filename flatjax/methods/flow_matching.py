"""Conditional flow matching: a velocity learned on the ideal path, integrated from random starts.

Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023 (arXiv 2210.02747), and Liu et
al., "Flow Straight and Fast", ICLR 2023 (arXiv 2209.03003), on k-space and given a measurement.
Time runs from 1 to 0, as everywhere in flatjax and against those papers:

    k_1 = y + (1 - M) tau E n,    k_t = (1 - t) k_0 + t k_1,    E || v(k_t, t, y) - (k_1 - k_0) ||^2

with n ~ CN(0, I) in the image, so that the noise lies where coil sensitivities can explain it and
`E net` can follow; for a single coil E n is CN(0, I) in k-space. The start has to be random: from
`k_1 = y` the target is `(y - k_t) / (1 - t)`, which a network can read off without learning
anything. With the exact velocity the k_0 reached are samples of p(k_0 | y).

Unlike FLAT, which learns on the states that it has itself reached, this is teacher-forced.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax.errors import InputError
from flatjax.flow import path
from flatjax.flow.diffusion import Predict, Record
from flatjax.flow.schedule import time_grid
from flatjax.flow.solvers import Tableau, integrate, solver as solver_named
from flatjax.methods.base import Method, Params
from flatjax.methods.common import DTYPES, init_network, normalise
from flatjax.methods.sampling import (
    ImageUNet,
    at_time,
    check_options,
    image_noise,
    posterior_reconstructor,
    squared_error,
)
from flatjax.mri import Batch, Measurement, expand, reduce


def random_start(rng: Array, measured: Measurement, tau: float) -> Array:
    """k_1 `[batch, coil, ky, kx]` complex64: y where sampled, noise of scale `tau` elsewhere."""
    kspace, mask, maps = measured
    return kspace + (1 - mask) * tau * expand(image_noise(rng, kspace), maps)


def sample(predict: Predict, start: Array, times: np.ndarray, tableau: Tableau,
           record: Record | None = None) -> tuple[Array, Array | None]:
    """Follow a velocity from t = 1 to t = 0.

    Args:
        predict: `(k, t) -> dk/dt`.
        start: k_1 `[batch, coil, ky, kx]` complex64.
        times: `[steps + 1]`, from 1 to 0.
        tableau: of the solver.
        record: what to keep of every state, or None.

    Returns:
        `(k_0, records or None)`, records `[steps + 1, ...]`.
    """
    final, states = integrate(lambda k, t, _: predict(k, t), start, times, tableau=tableau,
                              trajectory=record is not None)
    return final, None if record is None else jax.vmap(record)(states)


def make(*, steps: int = 12, alpha: float = 0.0, solver: str = "euler", tau: float = 0.1,
         data_consistency: bool = True, samples: int = 1, combine: str = "sense",
         channels: int = 18, pools: int = 4, time_channels: int = 32,
         dtype: str = "float32") -> Method:
    """Conditional flow matching as a `Method`.

    The network sees the images of the state and of the measurement. Steps, schedule and solver
    concern sampling alone: one training serves them all.

    Args:
        steps: of the solver.
        alpha: of the schedule `t_j = (1 - j/K)^(1 + alpha)`; 0 is uniform.
        solver: name in `flow.solvers.SOLVERS`.
        tau: scale of the noise at the start; the default is about the rms of unsampled k-space in
            a brain slice of maximum 1 at R = 4.
        data_consistency: project the end point `k - t v` that every velocity implies on the
            measurement, so that measured samples stay as they are. Without, the velocity may move
            them, as it should if they are noisy; but with several coils `E net` cannot be zero
            there and right elsewhere at once.
        samples: drawn for each slice and averaged.
        combine: how coils are combined for the image, "sense" or "rss".
        channels, pools, time_channels: of the U-Net.
        dtype: of the network's computation, "float32" or "bfloat16"; the physics is complex64.

    Raises:
        InputError: for a value out of range.
    """
    check_options(samples, combine, channels, pools, time_channels, dtype)
    if not tau > 0:
        raise InputError(f"tau is {tau}, expected above 0: without noise at the start the "
                         "velocity is known beforehand and nothing is learned")
    tableau = solver_named(solver)
    times = time_grid(steps, alpha).astype(np.float32)
    net = ImageUNet(channels=channels, pools=pools, time_channels=time_channels,
                    dtype=DTYPES[dtype])

    def init(rng: Array, batch: Batch) -> Params:
        return {"net": init_network(net, rng, batch, images=2)}

    def velocity(params: Params, kspace: Array, t: Array, measured: Measurement,
                 zero_filled: Array) -> Array:
        image = net.apply({"params": params["net"]}, reduce(kspace, measured.maps), zero_filled,
                          t=t)
        predicted = expand(image, measured.maps)
        # Where sampled, the projected end point gives (k - y) / t, and k stays y from the start.
        return (1 - measured.mask) * predicted if data_consistency else predicted

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        measured, kspace, _ = normalise(batch)
        key_time, key_noise = jax.random.split(rng)
        t = jax.random.uniform(key_time, kspace.shape[:1])
        start = random_start(key_noise, measured, tau)
        state = path.interpolate(start, kspace, t[:, None, None, None])
        predicted = velocity(params, state, t, measured, reduce(measured.kspace, measured.maps))
        error = jnp.mean(squared_error(predicted, path.velocity(start, kspace)))
        return error, {"velocity": error}

    def draw(params: Params, rng: Array, measured: Measurement,
             record: Record | None) -> tuple[Array, Array | None]:
        zero_filled = reduce(measured.kspace, measured.maps)

        def predict(kspace: Array, t: Array) -> Array:
            return velocity(params, kspace, at_time(t, kspace), measured, zero_filled)

        return sample(predict, random_start(rng, measured, tau), times, tableau, record)

    return Method(init, loss, posterior_reconstructor(
        draw, samples=samples, combine=combine, nfe=steps * tableau.stages,
        times=jnp.asarray(times)))
