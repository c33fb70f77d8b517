"""What holds for every generative method, and what they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import mri
from flatjax.errors import InputError
from flatjax.methods.common import reconstructor
from flatjax.nets import ImageUNet
from tests.support.arrays import complex_normal, noisy
from tests.support.build import build

SMALL = {"network__channels": 2, "network__pools": 1, "network__time_channels": 4}
STEPS, SAMPLES = 4, 3
EVALUATIONS = {"flow_matching": STEPS, "mc_ddpm": STEPS, "score_sde": 2 * STEPS, "dds": STEPS}
every_method = pytest.mark.parametrize("name", EVALUATIONS)


def steps_of(name, steps=STEPS):
    return {"schedule__steps" if name == "flow_matching" else "steps": steps}


class Trained:
    """A small method away from its initial weights, its functions compiled once."""

    def __init__(self, name, batch):
        self.name, self.batch = name, batch
        self.options = SMALL | steps_of(name)
        method = build(name, **self.options, samples=SAMPLES)
        self.params = noisy(jax.jit(method.init)(jax.random.key(0), batch), 0.05)
        self._reconstruct = jax.jit(method.reconstruct, static_argnames="trajectory")
        self._gradient = jax.jit(jax.value_and_grad(method.loss, has_aux=True))

    def reconstruct(self, measurement, trajectory=False, seed=0):
        return self._reconstruct(self.params, jax.random.key(seed), measurement,
                                 trajectory=trajectory)

    def gradient(self, batch, seed=0):
        return self._gradient(self.params, jax.random.key(seed), batch)


@pytest.fixture(scope="module", params=EVALUATIONS)
def trained(request, make_batch):
    return Trained(request.param, make_batch(coils=2, shape=(13, 18)))


def test_loss_and_gradient_are_finite_and_reach_every_weight(trained):
    (loss, terms), grads = trained.gradient(trained.batch)
    assert float(loss) == pytest.approx(float(*terms.values())) and loss > 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    assert float(trained.gradient(trained.batch, seed=1)[0][0]) != float(loss)


def test_a_result_is_the_end_of_its_trajectory(trained):
    batch = trained.batch
    result = trained.reconstruct(batch.measurement, True)
    assert result.trajectory.shape == (STEPS + 1, *batch.kspace.shape)
    np.testing.assert_array_equal(result.trajectory[-1], result.kspace)
    np.testing.assert_allclose(result.image, mri.combine(result.kspace, batch.measurement.maps),
                               atol=1e-5)
    assert (result.times is not None) == (trained.name == "flow_matching")
    assert result.nfe == SAMPLES * EVALUATIONS[trained.name]
    assert result.std.shape == result.image.shape and result.std.max() > 1e-3
    alone = build(trained.name, **trained.options)
    assert jax.eval_shape(alone.reconstruct, trained.params, jax.random.key(0),
                          batch.measurement).std is None
    other = trained.reconstruct(batch.measurement, True, seed=1)
    assert np.abs(other.kspace - result.kspace).max() > 1e-3


def test_a_thinned_trajectory_is_a_part_of_the_whole(trained):
    whole, part = (trained.reconstruct(trained.batch.measurement, trajectory)
                   for trajectory in (True, 3))
    np.testing.assert_array_equal(whole.steps, np.arange(STEPS + 1))
    np.testing.assert_array_equal(part.steps, [0, 2, 4])
    np.testing.assert_allclose(part.trajectory, whole.trajectory[part.steps], rtol=1e-4, atol=1e-5)
    if whole.times is not None:
        np.testing.assert_array_equal(part.times, whole.times[part.steps])
    np.testing.assert_allclose(part.image, whole.image, rtol=1e-4, atol=1e-5)


def test_reconstruction_commutes_with_scaling_slice_by_slice(trained):
    measurement = trained.batch.measurement
    factors = np.array([1e-12, 1e12])[:, None, None, None]
    scaled = measurement._replace(
        kspace=(factors * np.asarray(measurement.kspace)).astype(np.complex64))
    a, b = (trained.reconstruct(m) for m in (measurement, scaled))
    assert a.trajectory is None and a.times is None and a.steps is None
    np.testing.assert_allclose(b.std / factors[:, 0], a.std, rtol=1e-3, atol=1e-3 * a.std.max())
    np.testing.assert_allclose(b.kspace / factors, a.kspace, rtol=1e-3,
                               atol=1e-3 * np.abs(a.kspace).max())


def test_an_empty_slice_gives_an_empty_image_and_harms_no_neighbor(trained):
    batch = trained.batch
    kspace, whole, target = jax.tree.map(lambda x: x.at[0].set(0), (
        batch.measurement.kspace, batch.kspace, batch.target))
    half_empty = batch._replace(measurement=batch.measurement._replace(kspace=kspace),
                                kspace=whole, target=target)
    result = trained.reconstruct(half_empty.measurement)
    full = trained.reconstruct(batch.measurement)
    np.testing.assert_array_equal(result.image[0], 0)
    np.testing.assert_allclose(result.image[1], full.image[1], rtol=1e-4, atol=1e-5)
    (loss, _), grads = trained.gradient(half_empty)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


@every_method
def test_an_untrained_network_stays_finite(make_batch, name):
    batch = make_batch(coils=2, shape=(13, 18))
    method = build(name, **SMALL, **steps_of(name, 2), network__dtype="bfloat16", combine="rss")
    params = jax.jit(method.init)(jax.random.key(0), batch)
    result = jax.jit(method.reconstruct)(params, jax.random.key(0), batch.measurement)
    assert np.isfinite(result.kspace).all()
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
    scale = mri.intensity_scale(measurement)

    def rollout(params, rng, measured, trajectory, record):
        np.testing.assert_allclose(measured.kspace.reshape(kspace.shape)[3],
                                   measurement.kspace / scale, rtol=1e-6)
        return jnp.asarray(kspace / scale).reshape(measured.kspace.shape), None, np.arange(10)

    result = reconstructor(rollout, combine=combine, steps=1, samples=5)(None, None, measurement)
    image, mean, std = result.image, result.kspace, result.std
    np.testing.assert_array_equal(result.nfe, [20, 25])
    np.testing.assert_allclose(mean, kspace.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(image, mri.combine(kspace.mean(axis=0), measurement.maps, combine),
                               atol=1e-5)
    magnitudes = np.stack([mri.combine(one, measurement.maps, combine) for one in kspace])
    np.testing.assert_allclose(std, magnitudes.std(axis=0, ddof=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(13, 18), (5, 4), (1, 1)])
def test_the_network_takes_any_size_and_keeps_intensities(shape):
    images = complex_normal(np.random.default_rng(0), (2, 2, *shape))
    net = ImageUNet(channels=2, pools=2, time_channels=4, norm="none")
    params = net.init(jax.random.key(0), *images, t=jnp.ones(2))
    np.testing.assert_array_equal(net.apply(params, *images, t=jnp.ones(2)), 0)
    out = net.apply(noisy(params), *images, t=jnp.asarray([0.1, 0.9]))
    assert out.shape == (2, *shape) and out.dtype == jnp.complex64 and np.isfinite(out).all()
    if shape != (1, 1):  # one pixel is all mean, which the normalization takes away
        difference = net.apply(noisy(params), images[0], 3 * images[1], t=jnp.asarray([0.1, 0.9]))
        assert np.abs(out - difference).max() > 1e-2
