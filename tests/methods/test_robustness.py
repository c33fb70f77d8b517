"""Slices that surprise: results stay finite and scale with the data, for every method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax.methods import METHODS
from flatjax.mri import Batch, Measurement, combine, expand
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.simulate import birdcage_maps
from flatjax.nets import ImageUNet
from tests.support.arrays import smooth_image
from tests.support.build import build

NET = {"network__channels": 2, "network__pools": 1}
TOLD = {"network__time_channels": 4, **NET}
OPTIONS = {
    "cg_sense": {"cg_iterations": 4},
    "compressed_sensing": {"levels": 2},
    "dds": {"steps": 3, **TOLD},
    "flat": {"schedule__steps": 2, **TOLD},
    "flow_matching": {"schedule__steps": 2, **TOLD},
    "mc_ddpm": {"steps": 3, **TOLD},
    "modl": {"steps": 2, "space__cg_iterations": 3, **NET},
    "score_sde": {"steps": 3, **TOLD},
    "unet": NET,
    "vanilla": {"steps": 2, **TOLD},
    "varnet": {"steps": 2, **NET},
    "zero_filled": {},
}
CASES = ("usual", "empty", "one bright pixel", "real", "constant", "every sample", "the center",
         "one sample")


def hard_batch(shape=(15, 22), coils=2):
    """A slice for each of `CASES`."""
    rng = np.random.default_rng(0)
    usual = smooth_image(rng, shape)
    pixel = np.zeros(shape, np.complex64)
    pixel[shape[0] // 3, shape[1] // 2] = 100
    images = jnp.stack([usual, 0 * usual, pixel, np.abs(usual).astype(np.complex64),
                        np.ones_like(usual), usual, usual, usual])
    drawn = make_mask("random", shape, 3, 0.2, 0)
    center = np.zeros(shape, np.float32)
    center[:, shape[1] // 2 - 1:shape[1] // 2 + 2] = 1
    one = np.zeros(shape, np.float32)
    one[shape[0] // 2, shape[1] // 2] = 1
    masks = [np.broadcast_to(drawn, shape)] * 5 + [np.ones(shape, np.float32), center, one]
    maps = jnp.broadcast_to(birdcage_maps(coils, shape), (len(images), coils, *shape))
    kspace, mask = expand(images, maps), jnp.asarray(np.stack(masks))[:, None]
    return Batch(Measurement(mask * kspace, mask, maps), kspace, combine(kspace, maps))


def weights(method, batch):
    """Weights that are not those a network starts from, with which many do nothing."""
    params = jax.jit(method.init)(jax.random.key(0), batch)
    keys = jax.random.split(jax.random.key(1), len(jax.tree.leaves(params)))
    keys = jax.tree.unflatten(jax.tree.structure(params), keys)
    return jax.tree.map(lambda x, key: x + 0.1 * jax.random.normal(key, x.shape), params, keys)


def scaled(batch, factor):
    return batch.measurement._replace(kspace=factor * batch.measurement.kspace)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_finite_and_scales_with_the_data(name):
    method, batch = build(name, **OPTIONS.get(name, {})), hard_batch()
    params = weights(method, batch)
    reconstruct = jax.jit(lambda measurement: method.reconstruct(
        params, jax.random.key(2), measurement)[:2])
    image, kspace = reconstruct(batch.measurement)
    for case, *results in zip(CASES, image, kspace, strict=True):
        assert all(np.isfinite(one).all() for one in results), case
    peak = np.abs(image).max(axis=(1, 2), keepdims=True)
    for factor in (np.float32(1e-12), np.float32(1e12)):
        again, _ = reconstruct(scaled(batch, factor))
        error = np.abs(again / factor - image) / np.where(peak > 0, peak, 1)
        for case, one in zip(CASES, error, strict=True):
            assert one.max() < 1e-4, (case, factor)


IMEX = {"space__name": "image", "solver": "imex"}


@pytest.mark.parametrize("name, more", [
    *((name, {}) for name in METHODS), ("flat", IMEX | {"likelihood__name": "noise"}),
    ("flow_matching", {"solver": "adaptive"}), ("varnet", {"sensitivities__name": "learned"})])
def test_where_jax_enables_64_bits_every_method_keeps_to_32(name, more):
    method = build(name, **OPTIONS.get(name, {}) | more)
    batch, key = hard_batch(), jax.random.key(0)
    with jax.enable_x64(True):
        params = jax.jit(method.init)(key, batch)
        calls = ((jax.value_and_grad(method.loss, has_aux=True), params, key, batch),
                 (method.reconstruct, params, key, batch.measurement))
        results = [jax.jit(function)(*arguments) for function, *arguments in calls]
        programs = [str(jax.make_jaxpr(function)(*arguments)) for function, *arguments in calls]
    assert results[1].image.dtype == np.float32 and results[1].kspace.dtype == np.complex64
    for leaf in jax.tree.leaves((params, results[0])):
        assert leaf.dtype == np.float32 and np.isfinite(leaf).all()
    assert not any("c128[" in program for program in programs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flat", "varnet"])
def test_gradients_of_such_slices_are_finite(name):
    method, batch = build(name, **OPTIONS.get(name, {})), hard_batch()
    loss = jax.jit(jax.value_and_grad(lambda params: method.loss(params, jax.random.key(0),
                                                                 batch)[0]))
    value, grads = loss(weights(method, batch))
    assert np.isfinite(value) and all(np.isfinite(one).all() for one in jax.tree.leaves(grads))


@pytest.mark.slow
@pytest.mark.parametrize("shape, coils", [((1, 1), 1), ((1, 9), 3), ((37, 2), 1), ((16, 15), 64),
                                          ((1021, 1531), 1), ((641, 371), 15)])
def test_images_of_any_size_and_number_of_coils(shape, coils):
    rng = np.random.default_rng(0)
    maps = jnp.broadcast_to(birdcage_maps(coils, shape), (1, coils, *shape))
    kspace = expand(jnp.asarray(rng.standard_normal((1, *shape)), jnp.complex64), maps)
    measured = Measurement(kspace, jnp.ones((1, 1, *shape)), maps)
    batch = Batch(measured, kspace, combine(kspace, maps))
    for name in ("flat", "varnet"):
        method = build(name, **OPTIONS[name])
        params = weights(method, batch)
        image = jax.jit(method.reconstruct)(params, jax.random.key(0), measured).image
        assert image.shape == (1, *shape) and np.isfinite(image).all()


@pytest.mark.parametrize("name", ["flat", "unet"])
def test_after_the_projection_the_measured_samples_are_those_measured(name):
    batch = hard_batch()
    measured = batch.measurement
    residuals = []
    for projection in (False, True):
        method = build(name, **OPTIONS[name], projection=projection)
        kspace = jax.jit(method.reconstruct)(weights(method, batch), jax.random.key(0),
                                             measured).kspace
        difference = jnp.abs(measured.mask * kspace - measured.kspace).max(axis=(1, 2, 3))
        residuals.append(difference / (jnp.abs(measured.kspace).max(axis=(1, 2, 3)) + 1e-9))
    assert residuals[0][0] > 1e-3 and residuals[1].max() < 1e-6


def test_the_network_of_fastmri_takes_channels_that_are_constant():
    """The original divides 0 by 0 there."""
    net = ImageUNet(channels=2, pools=1, norm="fastmri")
    usual = smooth_image(np.random.default_rng(0), (16, 16))
    images = jnp.stack([usual, usual.real.astype(np.complex64), 0 * usual, 0 * usual + (2 - 1j)])
    params = net.init(jax.random.key(0), images)
    out = net.apply(params, images)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(out[1].imag, 0)
    np.testing.assert_array_equal(out[2], 0)
    np.testing.assert_array_equal(out[3], images[3])
    grads = jax.grad(lambda x: jnp.abs(net.apply(params, x)).sum())(images + 0)
    assert np.isfinite(grads[0]).all()
