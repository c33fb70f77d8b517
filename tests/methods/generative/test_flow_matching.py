"""Conditional flow matching against a Gaussian prior, whose velocity is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import flow, mri
from flatjax.errors import InputError
from flatjax.methods.generative import flow_matching
from flatjax.nets import ImageUNet
from tests.support import gaussian
from tests.support.arrays import noisy
from tests.support.build import build
from tests.support.gaussian import exact_velocity, in_place_of_the_network

SMALL = {
    "schedule__steps": 3,
    "network__channels": 2,
    "network__pools": 1,
    "network__time_channels": 4,
}
COUNT = 1500


@pytest.mark.parametrize("solver, steps, tau", [("euler", 120, 0.7), ("heun", 20, 0.7),
                                                ("ab2", 40, 0.7), ("rk4", 12, 1.5)])
def test_the_exact_velocity_samples_the_posterior(solver, steps, tau):
    y, law = gaussian.measure(gaussian.prior())
    measured = gaussian.measurement(y, COUNT)
    velocity = exact_velocity(law, tau)

    @jax.jit
    def draw(key):
        return flow.solve(
            lambda k, t, _: velocity(k * (1 - measured.mask), t),
            flow_matching.random_start(key, measured, tau),
            flow.time_grid(steps).astype(np.float32), solver=solver)[0]

    kspace = np.asarray(draw(jax.random.key(0)))
    gaussian.assert_law(kspace * (1 - gaussian.MASK), law)
    np.testing.assert_array_equal(kspace * gaussian.MASK, np.repeat(y, COUNT, 0))


@pytest.mark.parametrize("solver, steps", [("euler", 60), ("rk4", 12)])
def test_reconstruction_averages_posterior_samples_and_counts_evaluations(solver, steps):
    """Slices with one measurement are draws; the mean of two samples has half their variance."""
    y, law = gaussian.measure(gaussian.prior())
    measured = gaussian.measurement(y, COUNT)
    net = in_place_of_the_network(law, gaussian.scale(y), 0.5)
    method = flow_matching.make(net, flow.schedule(steps=steps), solver=solver, samples=2, tau=0.5)
    result = jax.jit(method.reconstruct)({"net": {"gain": jnp.ones(())}}, jax.random.key(1),
                                         measured)
    jax.effects_barrier()
    assert net.images == result.nfe * COUNT
    assert result.nfe == 2 * steps * flow.SOLVERS[solver].evaluations
    gaussian.assert_law(result.kspace - y, gaussian.Law(law.mean, law.covariance / 2))


def test_adaptive_steps_sample_the_posterior_and_count_their_own_evaluations():
    y, law = gaussian.measure(gaussian.prior())
    net = in_place_of_the_network(law, gaussian.scale(y), 0.5)
    method = flow_matching.make(net, flow.schedule(), solver="adaptive", samples=2, tau=0.5)
    result = jax.jit(method.reconstruct)({"net": {"gain": jnp.ones(())}}, jax.random.key(1),
                                         gaussian.measurement(y, COUNT))
    jax.effects_barrier()
    gaussian.assert_law(result.kspace - y, gaussian.Law(law.mean, law.covariance / 2))
    assert result.nfe.shape == (COUNT,) and len(np.unique(result.nfe)) > 1
    assert net.images * 0.5 < result.nfe.sum() < net.images


def test_the_exact_velocity_has_the_lowest_loss():
    y, law = gaussian.measure(gaussian.prior())
    scale = gaussian.scale(y)
    tau = 0.6
    net = in_place_of_the_network(law, scale, tau)
    kspace = y + law.samples(np.random.default_rng(4), COUNT)
    gain, loss = gaussian.best_gain(
        flow_matching.make(net, flow.schedule(), tau=tau), gaussian.batch(kspace, y)
    )
    assert gain == pytest.approx(1, abs=0.03)
    values = np.maximum(np.linalg.eigvalsh(law.scaled(1 / scale).covariance), 0)
    t = (np.arange(1000) + 0.5)[:, None] / 1000
    expected = np.mean(tau**2 * values / ((1 - t) ** 2 * values + (t * tau) ** 2))
    assert loss == pytest.approx(expected, rel=0.05)


def test_the_start_is_the_measurement_and_noise_that_the_coils_can_explain(make_batch):
    measured = make_batch(coils=3, batch=1).measurement
    start = flow_matching.random_start(jax.random.key(0), measured, 0.3)
    np.testing.assert_array_equal(start * measured.mask, measured.kspace)
    noise = mri.expand(jax.random.normal(jax.random.key(0), (1, 24, 26), jnp.complex64),
                       measured.maps)
    np.testing.assert_allclose(start - measured.kspace, 0.3 * (1 - measured.mask) * noise,
                               atol=1e-6)


@pytest.mark.parametrize("coils", [1, 3])
def test_data_consistency_is_the_projection_of_every_implied_end_point(make_batch, coils):
    batch = make_batch(coils=coils)
    y, mask, maps, _ = batch.measurement
    method = build("flow_matching", **SMALL)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    result = jax.jit(partial(method.reconstruct, trajectory=True))(
        params, jax.random.key(1), batch.measurement)
    scale = mri.intensity_scale(batch.measurement)
    y = y / scale
    net = ImageUNet(channels=2, pools=1, time_channels=4, norm="none")
    k = flow_matching.random_start(jax.random.key(1), batch.measurement._replace(kspace=y), 0.1)
    times = flow.time_grid(3)
    for t, reached in zip(times, times[1:], strict=False):
        v = mri.expand(net.apply({"params": params["net"]}, mri.reduce(k, maps),
                                 mri.reduce(y, maps), t=jnp.full(2, t, jnp.float32)), maps)
        end = jnp.where(mask > 0, y, k - t * v)
        k = k + (reached - t) * (k - end) / t
    np.testing.assert_allclose(result.kspace, scale * k, atol=2e-5)
    np.testing.assert_allclose(mask * result.kspace, batch.measurement.kspace, atol=1e-6)
    free = build("flow_matching", **SMALL, data_consistency=False)
    moved = jax.jit(free.reconstruct)(params, jax.random.key(1), batch.measurement).kspace
    assert np.abs(mask * moved - batch.measurement.kspace).max() > 1e-2


def test_measured_samples_keep_their_noise_on_the_way_that_is_learned(make_batch, monkeypatch):
    """As in sampling: a path to the noise-free ones would tell what they are."""
    batch = make_batch()
    measured = batch.measurement
    noise = 0.3 * jax.random.normal(jax.random.key(5), batch.kspace.shape, jnp.complex64)
    measured = measured._replace(kspace=measured.mask * (batch.kspace + noise))
    seen = []

    def network(net, params, image, zero_filled, t):
        seen.append(measured.mask * mri.fft2c(image / measured.maps[:, 0])[:, None])
        return image

    monkeypatch.setattr(flow_matching.common, "apply_network", network)
    for consistent in (True, False):
        build("flow_matching", **SMALL, data_consistency=consistent).loss(
            {"net": {}}, jax.random.key(0), batch._replace(measurement=measured))
    expected = measured.kspace / mri.intensity_scale(measured)
    np.testing.assert_allclose(seen[0], expected, atol=1e-5)
    assert np.abs(seen[1] - expected).max() > 0.01


def test_more_steps_than_the_training_knew_are_another_make(make_batch):
    """The solver, its steps and the schedule change nothing about parameters or loss."""
    batch = make_batch()
    a, b = (
        build("flow_matching", **SMALL),
        build(
            "flow_matching",
            **SMALL | {"schedule__steps": 9},
            solver="heun",
            schedule__alpha=0.5,
            samples=3,
        ),
    )
    params = noisy(a.init(jax.random.key(0), batch), 0.1)
    key = jax.random.key(2)
    assert float(a.loss(params, key, batch)[0]) == float(b.loss(params, key, batch)[0])
    assert b.reconstruct(params, key, batch.measurement).nfe == 9 * 2 * 3


def test_times_are_those_of_the_flow(make_batch):
    batch = make_batch()
    method = build("flow_matching", **SMALL, schedule__alpha=0.5)
    params = method.init(jax.random.key(0), batch)
    result = jax.jit(partial(method.reconstruct, trajectory=True))(
        params, jax.random.key(0), batch.measurement)
    np.testing.assert_allclose(result.times, flow.time_grid(3, 0.5), rtol=1e-6)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"schedule__steps": 0}, "steps is 0"),
        ({"schedule__alpha": -1.0}, "alpha is -1.0"),
        ({"solver": "rk9"}, "solver is 'rk9', .*, adaptive"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"schedule__times": (1.0, 0.5)}, "times has 2 entries"),
        ({"tau": 0.0}, "tau is 0.0, expected above 0"),
        ({"tau": float("nan")}, "tau is nan"),
    ],
)
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("flow_matching", **(SMALL | options))
