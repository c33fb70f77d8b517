"""Conditional flow matching: a velocity learned on the ideal path, integrated from random starts.

Lipman et al., "Flow Matching for Generative Modeling", ICLR 2023 (arXiv 2210.02747), and Liu et
al., "Flow Straight and Fast", ICLR 2023 (arXiv 2209.03003), on k-space and given a measurement.
Time runs from 1 to 0, as everywhere in flatjax and against those papers:

    k_1 = y + (1 - M) tau E n,    k_t = (1 - t) k_0 + t k_1,    E || v(k_t, t, y) - (k_1 - k_0) ||^2

with n ~ CN(0, I) in the image, so that the noise lies where coil sensitivities can explain it and
`E net` can follow; for a single coil E n is CN(0, I) in k-space. The start has to be random: from
`k_1 = y` the target is `(y - k_t) / (1 - t)`, which a network can read off without learning
anything. With the exact velocity the k_0 reached are samples of p(k_0 | y).

With data consistency measured samples stay what they are, noise included, and so they do on the
path of the training, whose end has them in place of the noise-free ones.

Unlike FLAT, which learns on the states that it has itself reached, this is teacher-forced.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from flatjax import flow
from flatjax.errors import InputError, check_above
from flatjax.flow.divergence import rademacher, transport
from flatjax.flow.scan import Record
from flatjax.flow.schedule import schedule
from flatjax.flow.solve import check_solver, solve
from flatjax.flow.solvers import VectorField
from flatjax.losses import squared_error
from flatjax.methods import common
from flatjax.methods.base import Method, MethodSpec, Params
from flatjax.methods.generative.denoiser import image_noise
from flatjax.mri import Batch, Measurement, expand, reduce
from flatjax.nets import image_unet


def random_start(rng: Array, measured: Measurement, tau: float) -> Array:
    """k_1 `[batch, coil, ky, kx]` complex64: y where sampled, noise of scale `tau` elsewhere."""
    kspace, mask, maps, _ = measured
    return kspace + (1 - mask) * tau * expand(image_noise(rng, measured), maps)


def make(network: nn.Module, schedule: np.ndarray, *, solver: str = "euler",
         tolerance: float = 1e-3, tau: float = 0.1, data_consistency: bool = True,
         samples: int = 1, combine: str = "sense") -> Method:
    """Conditional flow matching as a `Method`.

    Schedule and solver concern sampling alone: one training serves them all. For one coil the
    method has a `log_density`.

    Args:
        network: from the images of state and measurement, and the time, to an image, as
            `nets.image_unet`.
        schedule: the times of the solver's steps, from `flow.schedule`.
        solver, tolerance: see `flat.make`; a solver for any field, which "imex" is not.
        tau: scale of the noise at the start; the default is about the rms of unsampled k-space in
            a brain slice of maximum 1 at R = 4.
        data_consistency: project the end point `k - t v` that every velocity implies on the
            measurement, so that measured samples stay as they are. Without, the velocity may move
            them, as it should if they are noisy.
        samples, combine: see `common.reconstructor`.
    """
    check_above(0, tau=tau)  # without noise at the start the velocity is known beforehand
    check_solver(solver, tolerance=tolerance, split=False)  # its field has no stiff part
    integrate = partial(solve, solver=solver, tolerance=tolerance)
    def velocity(params: Params, measured: Measurement) -> VectorField:
        maps = measured.maps
        zero_filled = reduce(measured.kspace, maps)

        def field(kspace: Array, t: Array, _: None) -> Array:
            image = common.apply_network(network, params["net"], reduce(kspace, maps), zero_filled,
                                         t=jnp.broadcast_to(t, kspace.shape[:1]))
            predicted = expand(image, maps)
            # Where sampled, the projected end point gives (k - y) / t, and k stays y from the
            # start.
            return (1 - measured.mask) * predicted if data_consistency else predicted

        return field

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        measured, kspace, _ = common.normalize(batch)
        key_time, key_noise = jax.random.split(rng)
        t = jax.random.uniform(key_time, kspace.shape[:1], jnp.float32)
        start = random_start(key_noise, measured, tau)
        end = common.project(kspace, measured) if data_consistency else kspace
        state = flow.interpolate(start, end, t[:, None, None, None])
        error = jnp.mean(squared_error(prediction=velocity(params, measured)(state, t, None),
                                       target=flow.velocity(start, end)))
        return error, {"velocity": error}

    def rollout(params: Params, rng: Array, measured: Measurement, trajectory: bool | int,
                record: Record) -> common.Rolled:
        return integrate(velocity(params, measured), random_start(rng, measured, tau), schedule,
                         trajectory=trajectory, record=record)

    def log_density(params: Params, rng: Array, measurement: Measurement, kspace: Array, *,
                    probes: int = 1) -> Array:
        """See `Method`: of the unsampled entries of one coil's k-space, `[batch, 1, ky, kx]`.

        From t = 0 to t = 1 by the method's solver, with the divergence estimated by `probes`.

        Raises:
            InputError: for several coils, or without data consistency: the start has no density.
        """
        if kspace.shape[1] != 1:
            raise InputError(f"k-space of {kspace.shape[1]} coils has no density that is known, "
                             "expected 1 coil: noise starts in the range of the coil maps")
        if not data_consistency:
            raise InputError("data_consistency is False, expected True for a density: where the "
                             "start is the measurement it has none")
        measured, scale = common.normalize_measurement(measurement)
        free = jnp.broadcast_to(1 - measured.mask, kspace.shape)
        count = jnp.sum(free, axis=(1, 2, 3))
        start, change = transport(
            velocity(params, measured), measured.kspace + free * kspace / scale, schedule[::-1],
            free * rademacher(rng, (probes, *kspace.shape)), integrate)
        noise = jnp.sum(jnp.abs(free * start) ** 2, axis=(1, 2, 3)) / tau**2
        # The density of CN(0, tau^2) entries, then that of entries `scale` times as large.
        return (change - noise - count * jnp.log(jnp.pi * tau**2)
                - 2 * count * jnp.log(scale[:, 0, 0, 0]))

    reconstruct = common.reconstructor(rollout, combine=combine, steps=len(schedule) - 1,
                                       times=jnp.asarray(schedule), samples=samples)
    return Method(partial(common.init_network, network, images=2), loss, reconstruct, log_density)


SPEC = MethodSpec(make, parts={"network": image_unet, "schedule": schedule},
                  test_time=("schedule", "solver", "tolerance", "samples", "network.dtype"))
