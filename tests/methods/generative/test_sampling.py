"""What holds for every generative method, and what they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import mri
from flatjax.errors import InputError
from flatjax.methods.generative import sampling
from flatjax.nets import ImageUNet
from tests.support.arrays import complex_normal, noisy
from tests.support.build import build

SMALL = {"network__channels": 2, "network__pools": 1, "network__time_channels": 4}
EVALUATIONS = {"flow_matching": 3, "mc_ddpm": 3, "score_sde": 6, "dds": 3}


def steps_of(name, steps=3):
    return {"schedule__steps" if name == "flow_matching" else "steps": steps}


every_method = pytest.mark.parametrize("name", EVALUATIONS)


def reconstruct(method, params, measurement, seed=0, trajectory=True):
    return jax.jit(method.reconstruct, static_argnames="trajectory")(
        params, jax.random.key(seed), measurement, trajectory=trajectory)


def trained(name, batch, **options):
    method = build(name, **(SMALL | steps_of(name) | options))
    return method, noisy(jax.jit(method.init)(jax.random.key(0), batch), 0.05)


@every_method
def test_loss_and_gradient_are_finite_and_reach_every_weight(make_batch, name):
    batch = make_batch(coils=2, shape=(13, 18))
    method, params = trained(name, batch)
    gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))
    (loss, terms), grads = gradient(params, jax.random.key(0), batch)
    assert float(loss) == pytest.approx(float(*terms.values())) and loss > 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    assert float(gradient(params, jax.random.key(1), batch)[0][0]) != float(loss)


@every_method
def test_a_result_is_the_end_of_its_trajectory(make_batch, name):
    batch = make_batch(coils=3)
    method, params = trained(name, batch, samples=4)
    result = reconstruct(method, params, batch.measurement)
    assert result.trajectory.shape == (4, *batch.kspace.shape)
    np.testing.assert_allclose(result.trajectory[-1], result.kspace, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(result.image, mri.combine(result.kspace, batch.measurement.maps),
                               atol=1e-5)
    assert (result.times is not None) == (name == "flow_matching")
    assert result.nfe == 4 * EVALUATIONS[name]
    assert result.std.shape == result.image.shape and result.std.max() > 1e-3
    assert trained(name, batch)[0].reconstruct(params, jax.random.key(0),
                                               batch.measurement).std is None
    other = reconstruct(method, params, batch.measurement, seed=1)
    assert np.abs(other.kspace - result.kspace).max() > 1e-3


@every_method
def test_a_thinned_trajectory_is_a_part_of_the_whole(make_batch, name):
    batch = make_batch(coils=2)
    method, params = trained(name, batch, **steps_of(name, 7), samples=2)
    whole, part = (reconstruct(method, params, batch.measurement, trajectory=trajectory)
                   for trajectory in (True, 3))
    np.testing.assert_array_equal(whole.steps, np.arange(8))
    np.testing.assert_array_equal(part.steps, [0, 3, 7])
    np.testing.assert_allclose(part.trajectory, whole.trajectory[part.steps], rtol=1e-4, atol=1e-5)
    if whole.times is not None:
        np.testing.assert_array_equal(part.times, whole.times[part.steps])
    np.testing.assert_allclose(part.image, whole.image, rtol=1e-4, atol=1e-5)


@every_method
def test_reconstruction_commutes_with_scaling_slice_by_slice(make_batch, name):
    batch = make_batch(coils=2)
    method, params = trained(name, batch, samples=3)
    factors = np.array([1e-12, 1e12])[:, None, None, None]
    scaled = batch.measurement._replace(
        kspace=(factors * np.asarray(batch.measurement.kspace)).astype(np.complex64))
    a, b = (reconstruct(method, params, m, trajectory=False)
            for m in (batch.measurement, scaled))
    assert a.trajectory is None and a.times is None
    assert a.std.shape == a.image.shape and a.std.max() > 1e-3
    np.testing.assert_allclose(b.std / factors[:, 0], a.std, rtol=1e-3, atol=1e-3 * a.std.max())
    np.testing.assert_allclose(b.kspace / factors, a.kspace, rtol=1e-3,
                               atol=1e-3 * np.abs(a.kspace).max())


@every_method
def test_an_empty_slice_gives_an_empty_image_and_harms_no_neighbor(make_batch, name):
    batch = make_batch()
    method, params = trained(name, batch, samples=3)
    emptied = jax.tree.map(lambda x: x.at[0].set(0), (batch.measurement.kspace, batch.kspace,
                                                      batch.target))
    half_empty = batch._replace(measurement=batch.measurement._replace(kspace=emptied[0]),
                                kspace=emptied[1], target=emptied[2])
    result = reconstruct(method, params, half_empty.measurement)
    full = reconstruct(method, params, batch.measurement)
    np.testing.assert_array_equal(result.image[0], 0)
    np.testing.assert_allclose(result.image[1], full.image[1], rtol=1e-4, atol=1e-5)
    (loss, _), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(
        params, jax.random.key(0), half_empty)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@every_method
def test_an_untrained_network_stays_finite(make_batch, name):
    batch = make_batch(coils=2)
    method = build(name, **SMALL | steps_of(name), network__dtype="bfloat16", combine="rss")
    result = reconstruct(method, jax.jit(method.init)(jax.random.key(0), batch),
                         batch.measurement)
    assert np.isfinite(result.image).all() and np.isfinite(result.trajectory).all()
    assert result.std is None
    np.testing.assert_allclose(result.image, mri.rss(mri.ifft2c(result.kspace)), rtol=1e-4,
                               atol=1e-5)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"samples": 0}, "samples is 0, expected at least 1"),
        ({"network__channels": 0}, "channels is 0"),
        ({"network__pools": -1}, "pools is -1"),
        ({"network__time_channels": 1}, "time_channels is 1"),
        ({"combine": "x"}, "sense, rss"),
        ({"network__dtype": "float16"}, "float32, bfloat16"),
    ],
)
@every_method
def test_bad_choices_are_refused(name, options, match):
    with pytest.raises(InputError, match=match):
        build(name, **(SMALL | steps_of(name) | options))


@pytest.mark.parametrize("combine", ["sense", "rss"])
def test_the_summary_is_the_mean_and_the_spread_of_the_samples(make_batch, combine):
    measurement = make_batch(coils=3).measurement
    kspace = complex_normal(np.random.default_rng(0), (5, 2, 3, 24, 26))
    image, mean, std = sampling.posterior_summary(jnp.asarray(kspace), measurement.maps, combine)
    np.testing.assert_allclose(mean, kspace.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(image, mri.combine(kspace.mean(axis=0), measurement.maps, combine),
                               atol=1e-5)
    magnitudes = np.stack([mri.combine(one, measurement.maps, combine) for one in kspace])
    np.testing.assert_allclose(std, magnitudes.std(axis=0, ddof=1), rtol=1e-4, atol=1e-5)
    alone = sampling.posterior_summary(jnp.asarray(kspace[:1]), measurement.maps, combine)
    assert alone[2] is None


@pytest.mark.parametrize("shape", [(16, 16), (13, 18), (5, 4), (1, 1)])
def test_the_network_takes_any_size_and_keeps_intensities(shape):
    images = complex_normal(np.random.default_rng(0), (2, 2, *shape))
    net = ImageUNet(channels=2, pools=2, time_channels=4)
    params = net.init(jax.random.key(0), *images, t=jnp.ones(2))
    np.testing.assert_array_equal(net.apply(params, *images, t=jnp.ones(2)), 0)
    out = net.apply(noisy(params), *images, t=jnp.asarray([0.1, 0.9]))
    assert out.shape == (2, *shape) and out.dtype == jnp.complex64 and np.isfinite(out).all()
    if shape != (1, 1):  # one pixel is all mean, which the normalization takes away
        difference = net.apply(noisy(params), images[0], 3 * images[1], t=jnp.asarray([0.1, 0.9]))
        assert np.abs(out - difference).max() > 1e-2
