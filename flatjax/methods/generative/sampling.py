"""What the generative methods share: the way from samples to a result.

They draw `samples` reconstructions of every slice. These live on the batch axis, sample-major, so
that one evaluation of the network serves them all.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from flatjax.flow.scan import Record
from flatjax.methods.base import Params, Reconstruction
from flatjax.methods.common import (
    Rolled,
    normalize_measurement,
    result_unit,
    saved_steps,
)
from flatjax.mri import Measurement, combine as combine_coils

# `(params, rng, measurement, trajectory, record)` to k-space, records or None, and evaluations of
# the network, where the measurement is normalized and repeated, `trajectory` says which states are
# kept, see `flow.scan.saved_indices`, and `record` is to be applied to their k-space.
Sampler = Callable[[Params, Array, Measurement, bool | int, Record], Rolled]


def image_noise(rng: Array, kspace: Array) -> Array:
    """CN(0, I) in the image `[batch, y, x]` that belongs to k-space `[batch, coil, ky, kx]`."""
    return jax.random.normal(rng, (kspace.shape[0], *kspace.shape[2:]), jnp.complex64)


def squared_error(prediction: Array, target: Array) -> Array:
    """Mean squared modulus of the difference: `[batch, ...]` complex to `[batch]` float32."""
    difference = prediction - target
    return jnp.mean(jnp.real(difference) ** 2 + jnp.imag(difference) ** 2,
                    axis=tuple(range(1, difference.ndim)))


def at_time(t: Array, state: Array) -> Array:
    """A scalar time as one per element of the batch, as networks take it: `[batch]`."""
    return jnp.broadcast_to(t, state.shape[:1])


def repeat(measurement: Measurement, samples: int) -> Measurement:
    """Every slice `samples` times: arrays `[batch, ...]` to `[samples * batch, ...]`."""
    def tiled(x: Array) -> Array:
        return jnp.broadcast_to(x[None], (samples, *x.shape)).reshape(-1, *x.shape[1:])

    return jax.tree.map(tiled, measurement)


def posterior_summary(kspace: Array, maps: Array,
                      combine: str) -> tuple[Array, Array, Array | None]:
    """Mean and spread of several reconstructions of each slice.

    Args:
        kspace: `[samples, batch, coil, ky, kx]` complex64.
        maps: coil sensitivities `[batch, coil, y, x]` complex64.
        combine: how coils are combined, "sense" or "rss".

    Returns:
        `(image, kspace, std)`: mean k-space `[batch, coil, ky, kx]` complex64 and its magnitude
        image `[batch, y, x]` float32; and the sample standard deviation (n - 1) of the samples'
        magnitude images `[batch, y, x]` float32, None for a single sample.
    """
    mean = kspace.mean(axis=0)
    image = combine_coils(mean, maps, combine)
    if kspace.shape[0] == 1:
        return image, mean, None
    return image, mean, jnp.std(combine_coils(kspace, maps, combine), axis=0, ddof=1)


def posterior_reconstructor(draw: Sampler, *, samples: int, combine: str, steps: int,
                            times: Array | None = None) -> Callable[..., Reconstruction]:
    """The `reconstruct` of a `Method` that averages samples of normalized k-space.

    Args:
        draw: see `Sampler`.
        samples: drawn for each slice.
        combine: how coils are combined, "sense" or "rss".
        steps: of one sample.
        times: flow times of its states `[steps + 1]`, if it has such a time.
    """
    def reconstruct(params: Params, rng: Array, measurement: Measurement, *,
                    trajectory: bool | int = False) -> Reconstruction:
        normalized, scale = normalize_measurement(measurement)
        measured = repeat(normalized, samples)

        def by_sample(kspace: Array) -> Array:
            return kspace.reshape(samples, *measurement.kspace.shape)

        def record(kspace: Array) -> Array:
            return by_sample(kspace).mean(axis=0)

        final, states, nfe = draw(params, rng, measured, trajectory, record)
        unit = result_unit(measurement, scale)
        image, kspace, std = posterior_summary(unit * by_sample(final), measurement.maps, combine)
        return Reconstruction(image=image, kspace=kspace,
                              trajectory=None if states is None else unit * states,
                              nfe=jnp.reshape(nfe, (samples, -1)).sum(axis=0)
                              if jnp.ndim(nfe) else nfe * samples,
                              std=std, **saved_steps(steps, times, trajectory))

    return reconstruct
