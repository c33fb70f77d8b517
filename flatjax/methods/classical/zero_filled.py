"""Zero filling: the measured k-space as it is, the reference that every method must beat."""

import jax.numpy as jnp
from jax import Array

from flatjax.errors import check_choice
from flatjax.losses import l1
from flatjax.methods.base import Method, MethodSpec, Params, Reconstruction
from flatjax.methods.common import saved_steps
from flatjax.mri import COMBINES, Batch, Measurement, center_crop, combine as combine_coils


def make(*, combine: str = "sense") -> Method:
    """Zero filling as a `Method`; it has no parameters and needs no training.

    Args:
        combine: how coils are combined, "sense" or "rss".

    Raises:
        InputError: for another way.
    """
    check_choice("combine", combine, COMBINES)

    def init(rng: Array, batch: Batch) -> Params:
        return {}

    def reconstruct(params: Params, rng: Array, measurement: Measurement, *,
                    trajectory: bool | int = False) -> Reconstruction:
        kspace = measurement.kspace
        return Reconstruction(image=combine_coils(kspace, measurement.maps, combine),
                              kspace=kspace, trajectory=kspace[None] if trajectory else None,
                              nfe=0, **saved_steps(0, None, trajectory))

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        image = reconstruct(params, rng, batch.measurement).image
        error = jnp.mean(l1(center_crop(image, batch.target.shape[-2:]), batch.target))
        return error, {"l1": error}

    return Method(init, loss, reconstruct)


SPEC = MethodSpec(make)
