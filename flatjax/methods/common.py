"""What trained methods share: checks of their options, scale, the loss on the result."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from flatjax import losses
from flatjax.errors import InputError
from flatjax.methods.base import Method, Params, Reconstruction
from flatjax.mri import (
    Batch,
    Measurement,
    center_crop,
    combine as combine_coils,
    intensity_scale,
)

WEIGHTS = ("per_cascade", "shared")
DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}

# `(params, measurement, trajectory) -> (k-space, states or None)`, all on the scale of an image
# with maximum 1.
Rollout = Callable[[Params, Measurement, bool], tuple[Array, Array | None]]


def check_choice(name: str, value: Any, choices: Iterable[Any]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        InputError: naming both.
    """
    if value not in choices:
        raise InputError(f"{name} is {value!r}, expected one of {', '.join(map(str, choices))}")


def check_at_least(least: float, **values: float) -> None:
    """Refuse values, given by their names, below `least`.

    Raises:
        InputError: naming the first one.
    """
    for name, value in values.items():
        if not value >= least:
            raise InputError(f"{name} is {value}, expected at least {least}")


def init_network(net: nn.Module, rng: Array, batch: Batch, copies: int | None = None, *,
                 images: int = 1) -> Params:
    """Weights of a network on complex images of the batch's size.

    Args:
        net: from images (and a time, if it takes one) to one image.
        rng: key.
        batch: for its shape.
        images: number of images that it takes.
        copies: number of independent sets of weights, stacked on a leading axis; None for one
            set without that axis.
    """
    image = jnp.zeros((1, *batch.kspace.shape[-2:]), jnp.complex64)

    def init(key: Array) -> Params:
        return net.init(key, *[image] * images, t=jnp.ones(1))["params"]

    return init(rng) if copies is None else jax.vmap(init)(jax.random.split(rng, copies))


def project(kspace: Array, measured: Measurement) -> Array:
    """`kspace` with the measured samples put back, `[batch, coil, ky, kx]` complex64."""
    return jnp.where(measured.mask > 0, measured.kspace, kspace)


def normalise_measurement(measurement: Measurement) -> tuple[Measurement, Array]:
    """The measurement divided by each slice's `mri.intensity_scale`, and that scale."""
    scale = intensity_scale(measurement)
    return measurement._replace(kspace=measurement.kspace / scale), scale


def normalise(batch: Batch) -> Batch:
    """The batch divided by each slice's `mri.intensity_scale`."""
    measured, scale = normalise_measurement(batch.measurement)
    return Batch(measured, batch.kspace / scale, batch.target / scale[:, 0])


def end_terms(kspace: Array, batch: Batch, combine: str) -> dict[str, Callable[[], Array]]:
    """Terms of a loss on the final k-space, for `losses.weighted_sum`.

    Args:
        kspace: the result `[batch, coil, ky, kx]` complex64, on the scale of `batch`.
        batch: from `normalise`.
        combine: how coils are combined, "sense" or "rss".

    Returns:
        "ssim": `1 - SSIM` and "l1": L1 of the magnitude image; "kspace": L1 of the k-space.
    """
    image = center_crop(combine_coils(kspace, batch.measurement.maps, combine),
                        batch.target.shape[-2:])
    return {"ssim": lambda: 1 - losses.ssim(image, batch.target),
            "l1": lambda: losses.l1(image, batch.target),
            "kspace": lambda: losses.l1(kspace, batch.kspace)}


def reconstructor(rollout: Rollout, *, combine: str, nfe: int,
                  times: Array | None = None) -> Callable[..., Reconstruction]:
    """The `reconstruct` of a `Method` from a rollout on normalised k-space.

    Args:
        rollout: see `Rollout`.
        combine: how coils are combined, "sense" or "rss".
        nfe: network evaluations of one rollout.
        times: flow times of its states, if it has such a time.
    """
    def reconstruct(params: Params, rng: Array, measurement: Measurement, *,
                    trajectory: bool = False) -> Reconstruction:
        measured, scale = normalise_measurement(measurement)
        final, states = rollout(params, measured, trajectory)
        final = scale * final
        return Reconstruction(image=combine_coils(final, measurement.maps, combine), kspace=final,
                              trajectory=None if states is None else scale * states,
                              times=times if trajectory else None, nfe=nfe)

    return reconstruct


def end_supervised(init: Callable[[Array, Batch], Params], rollout: Rollout,
                   weights: dict[str, float], *, combine: str, nfe: int) -> Method:
    """A method that is trained on its result alone.

    Args:
        init: of the `Method`.
        rollout: see `Rollout`.
        weights: of the terms "ssim", "l1" and "kspace" of `end_terms`.
        combine: how coils are combined, "sense" or "rss".
        nfe: network evaluations of one rollout.
    """
    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        batch = normalise(batch)
        final, _ = rollout(params, batch.measurement, False)
        return losses.weighted_sum(weights, end_terms(final, batch, combine))

    return Method(init, loss, reconstructor(rollout, combine=combine, nfe=nfe))
