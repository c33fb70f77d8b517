"""Zero filling: the measured k-space as it is, the reference that every method must beat."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax import mri
from flatjax.errors import check_choice
from flatjax.losses import l1
from flatjax.methods.base import Method, MethodSpec, Params, Reconstruction
from flatjax.mri import Batch, Measurement


def make(*, combine: str = "sense") -> Method:
    """Zero filling as a `Method`; it has no parameters and needs no training.

    Args:
        combine: how coils are combined, "sense" or "rss".
    """
    check_choice("combine", combine, mri.COMBINES)

    def init(rng: Array, batch: Batch) -> Params:
        return {}

    def reconstruct(params: Params, rng: Array, measurement: Measurement, *,
                    trajectory: bool | int = False) -> Reconstruction:
        kspace = measurement.kspace
        return Reconstruction(image=mri.combine(kspace, measurement.maps, combine),
                              kspace=kspace, trajectory=kspace[None] if trajectory else None,
                              times=None, nfe=0, steps=np.arange(1) if trajectory else None)

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        image = reconstruct(params, rng, batch.measurement).image
        image = mri.center_crop(image, batch.target.shape[-2:])
        error = jnp.mean(l1(prediction=image, target=batch.target))
        return error, {"l1": error}

    return Method(init, loss, reconstruct)


SPEC = MethodSpec(make)
