"""What methods share: their networks, the scale of a slice, and what is made of a rollout."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flatjax import losses, mri
from flatjax.errors import check_at_least, check_choice
from flatjax.flow.scan import Record, saved_indices
from flatjax.methods.base import Method, Params, Reconstruction
from flatjax.mri import Batch, Measurement
from flatjax.mri.sampling import calibration_mask
from flatjax.nets import SensitivityNet

WEIGHTS = ("per_cascade", "shared")

# Final k-space, the records asked for or None, and the network evaluations: one number, or one
# for each element of the batch.
Rolled = tuple[Array, Array | None, int | Array]
# `(params, rng, measurement, trajectory, record)` to that: the measurement is normalized,
# `trajectory` says which states are saved, see `flow.scan.saved_indices`, and `record` is to be
# applied to their k-space.
Rollout = Callable[[Params, Array, Measurement, bool | int, Record], Rolled]


def init_network(net: nn.Module, rng: Array, batch: Batch, copies: int | None = None, *,
                 images: int = 1, **told: Any) -> Params:
    """Weights of a network on complex images of the batch's size, as `{"net": weights}`.

    With `copies` there are as many independent sets of them, stacked on a leading axis. The network
    takes so many `images`, and beside the time it is `told` other numbers, `[1]`.
    """
    image = jnp.zeros((1, *batch.kspace.shape[-2:]), jnp.complex64)

    def init(key: Array) -> Params:
        return net.init(key, *[image] * images, t=jnp.ones(1), **told)["params"]

    return {"net": init(rng) if copies is None else jax.vmap(init)(jax.random.split(rng, copies))}


def apply_network(net: nn.Module, params: Params, *images: Array, **told: Any) -> Array:
    """What a network makes of images, as `net(*images, t=t)`, with these weights."""
    result: Any = net.apply({"params": params}, *images, **told)  # flax: or a pair
    return result


def with_sensitivities(method: Method, net: SensitivityNet | None) -> Method:
    """The method with coil maps of a network that is trained along with it, if there is one.

    The network sees the fully sampled center of the measurement alone, and the maps that come
    with the measurement are not used; see `nets.SensitivityNet`.
    """
    if net is None:
        return method

    def estimated(params: Params, measurement: Measurement) -> Measurement:
        center = mri.ifft2c(measurement.kspace * calibration_mask(measurement.mask))
        return measurement._replace(maps=apply_network(net, params["sensitivities"], center))

    def init(rng: Array, batch: Batch) -> Params:
        key_maps, key_method = jax.random.split(rng)
        images = jnp.zeros((1, 1, *batch.kspace.shape[-2:]), jnp.complex64)
        return {"sensitivities": net.init(key_maps, images)["params"],
                **method.init(key_method, batch)}

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        measurement = estimated(params, batch.measurement)
        return method.loss(params, rng, batch._replace(measurement=measurement))

    def reconstruct(params: Params, rng: Array, measurement: Measurement, *,
                    trajectory: bool | int = False) -> Reconstruction:
        measurement = estimated(params, measurement)
        result = method.reconstruct(params, rng, measurement, trajectory=trajectory)
        return result._replace(maps=measurement.maps)

    return Method(init, loss, reconstruct)


def project(kspace: Array, measured: Measurement) -> Array:
    """`kspace` with the measured samples put back, `[batch, coil, ky, kx]` complex64."""
    return jnp.where(measured.mask > 0, measured.kspace, kspace)


def normalize_measurement(measurement: Measurement) -> tuple[Measurement, Array]:
    """The measurement divided by each slice's `mri.intensity_scale`, and that scale."""
    scale = mri.intensity_scale(measurement)
    noise = None if measurement.noise is None else measurement.noise / scale[:, 0, 0, 0]
    return measurement._replace(kspace=measurement.kspace / scale, noise=noise), scale


def normalize(batch: Batch) -> Batch:
    """The batch divided by each slice's `mri.intensity_scale`."""
    measured, scale = normalize_measurement(batch.measurement)
    return Batch(measured, batch.kspace / scale, batch.target / scale[:, 0])


def end_terms(kspace: Array, batch: Batch, combine: str) -> dict[str, Callable[[], Array]]:
    """Terms of a loss on the final k-space of a normalized batch, for `losses.total_loss`.

    They are `1 - SSIM` and L1 of the magnitude image, "ssim" and "l1", and L1 of the k-space,
    "kspace".
    """
    image = mri.combine(kspace, batch.measurement.maps, combine)
    image = mri.center_crop(image, batch.target.shape[-2:])
    return {"ssim": lambda: 1 - losses.ssim(prediction=image, target=batch.target),
            "l1": lambda: losses.l1(prediction=image, target=batch.target),
            "kspace": lambda: losses.l1(prediction=kspace, target=batch.kspace)}


def reconstructor(rollout: Rollout, *, combine: str, steps: int, times: Array | None = None,
                  samples: int = 1) -> Callable[..., Reconstruction]:
    """The `reconstruct` of a `Method` from a rollout on normalized k-space.

    Args:
        rollout: see `Rollout`.
        combine: how coils are combined, "sense" or "rss".
        steps: of one rollout.
        times: flow times of its states `[steps + 1]`, if it has such a time.
        samples: drawn for each slice by a rollout that is random. The result is the mean of their
            k-space. They live on the batch axis, sample-major, so that one evaluation of the
            network serves them all.

    Raises:
        InputError: for a value out of range.
    """
    check_choice("combine", combine, mri.COMBINES)
    check_at_least(1, steps=steps, samples=samples)

    def repeated(x: Array) -> Array:
        return jnp.broadcast_to(x, (samples, *x.shape)).reshape(-1, *x.shape[1:])

    def reconstruct(params: Params, rng: Array, measurement: Measurement, *,
                    trajectory: bool | int = False) -> Reconstruction:
        maps = measurement.maps
        measured, scale = normalize_measurement(measurement)
        # An empty slice gets an empty result, the limit of an ever weaker one.
        present = jnp.any(measurement.kspace != 0, axis=(1, 2, 3), keepdims=True)
        unit = jnp.where(present, scale, 0)

        def by_sample(kspace: Array) -> Array:
            return kspace.reshape(samples, *measurement.kspace.shape)

        final, states, nfe = rollout(params, rng, jax.tree.map(repeated, measured), trajectory,
                                     lambda kspace: by_sample(kspace).mean(axis=0))
        drawn = unit * by_sample(final)
        kspace, std = drawn.mean(axis=0), None
        if samples > 1:
            std = jnp.std(mri.combine(drawn, maps, combine), axis=0, ddof=1)
        nfe = jnp.reshape(nfe, (samples, -1)).sum(axis=0) if jnp.ndim(nfe) else nfe * samples
        saved = saved_times = None
        if states is not None:
            states = (unit * states).at[-1].set(kspace)
            saved = saved_indices(steps, trajectory)
            saved_times = None if times is None else times[saved]
        return Reconstruction(image=mri.combine(kspace, maps, combine), kspace=kspace,
                              trajectory=states, times=saved_times, nfe=nfe, std=std, steps=saved)

    return reconstruct


def end_supervised(init: Callable[[Array, Batch], Params],
                   rollout: Callable[[Params, Measurement, bool | int], Rolled],
                   loss: losses.Loss, *, combine: str, steps: int) -> Method:
    """A method that is trained on its result alone, by the terms of `end_terms`.

    Its `rollout` is a `Rollout`, but neither random nor with records other than the k-space.
    """
    def total(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        batch = normalize(batch)
        final, _, _ = rollout(params, batch.measurement, False)
        return losses.total_loss(loss.weights, end_terms(final, batch, combine))

    def deterministic(params: Params, rng: Array, measured: Measurement, trajectory: bool | int,
                      record: Record) -> Rolled:
        return rollout(params, measured, trajectory)

    return Method(init, total, reconstructor(deterministic, combine=combine, steps=steps))
