"""A data set and a config small enough to train in a test."""

import jax.numpy as jnp
import numpy as np

from flatjax import config, flow, methods, nets
from flatjax.data import DataSet, Sample, Volume
from flatjax.experiments.grid import changed
from flatjax.methods import Method
from flatjax.mri.host.simulate import host_fft2c
from tests.support.arrays import smooth_image


def make(*, size: int = 16, broken: bool = False) -> DataSet:
    """Blobs; with `broken`, every training sample is NaN."""
    def sample(rng):
        image = smooth_image(rng, (size, size))
        kspace = host_fft2c(image)[None] * (np.nan if broken else 1)
        return Sample(kspace.astype(np.complex64), np.ones_like(kspace), np.abs(image))

    def volume(name, seed):
        return Volume(name, lambda: [sample(np.random.default_rng([seed, i])) for i in range(3)])

    return DataSet(lambda rng, n: [sample(rng) for _ in range(n)], [volume("val", 1)],
                   {"main": [volume("a", 2), volume("b", 3)], "other": [volume("c", 4)]})


TINY = {"schedule": {"steps": 2}, "network": {"channels": 2, "pools": 0, "time_channels": 4}}


def flat(**options):
    """FLAT of two cascades; options as its own."""
    return methods.flat(nets.unet(**TINY["network"]), flow.schedule(**TINY["schedule"]),
                        flow.kspace_space(), **options)


def linear():
    """A method of a scale and an offset, whose step is compiled at once."""
    def init(rng, batch):
        return {"scale": jnp.ones(()), "offset": jnp.zeros(batch.target.shape[1:])}

    def loss(params, rng, batch):
        image = params["scale"] * jnp.abs(batch.measurement.kspace).sum(1) + params["offset"]
        error = jnp.mean((image - batch.target) ** 2)
        return error, {"image": error}

    return Method(init, loss, None)


def experiment(train=None, method=None, **parts):
    """A config of two cascades on blobs: four steps, validated every second one.

    `method` replaces options by their dotted names.
    """
    options = {"steps": 4, "warmup_steps": 1, "validate_every": 2, "log_every": 1, "batch_size": 4}
    whole = config.experiment(
        method=config.method("flat", **TINY),
        data=parts.pop("data", None) or config.data("toy"),
        train=config.training(**(options | (train or {}))), **parts)
    return changed(whole, {f"method.{key}": value for key, value in (method or {}).items()})
