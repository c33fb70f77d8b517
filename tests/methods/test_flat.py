"""FLAT as a method: what it computes, for every choice in its config."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import flow, losses, mri
from flatjax.errors import InputError
from flatjax.methods import flat
from flatjax.methods.classical import zero_filled
from tests.support.arrays import noisy

SMALL = {"steps": 3, "channels": 2, "pools": 1, "time_channels": 4}


def reconstruct(method, params, measurement):
    return jax.jit(method.reconstruct, static_argnames="trajectory")(
        params, jax.random.key(0), measurement, trajectory=True)


@pytest.mark.parametrize("coils", [1, 3])
def test_an_untrained_network_leaves_the_measurement_alone(make_batch, coils):
    batch = make_batch(coils=coils)
    method = flat.make(**SMALL)
    result = reconstruct(method, method.init(jax.random.key(0), batch), batch.measurement)
    np.testing.assert_allclose(result.kspace, batch.measurement.kspace, atol=1e-5)
    zero = zero_filled.make().reconstruct({}, None, batch.measurement)
    np.testing.assert_allclose(result.image, zero.image, atol=1e-5)
    assert result.trajectory.shape == (4, *batch.kspace.shape)
    assert result.nfe == 3


OPTIONS = [{}, {"weights": "shared"}, {"parameterisation": "endpoint"}, {"solver": "heun"},
           {"solver": "ab2", "sigma": 0.8, "parameterisation": "endpoint"}, {"projection": True},
           {"timesteps": "learned"}, {"step_sizes": "free"}, {"times": (1.0, 0.8, 0.3, 0.0)},
           {"alignment_domain": "kspace", "alignment_average": "integral"}, {"combine": "rss"},
           {"timesteps": "learned", "step_sizes": "free", "w_velocity": 0.0},
           {"dtype": "bfloat16"}, {"remat": True}, {"zero_init": False}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_choice_computes_a_finite_loss_and_gradient(make_batch, options):
    batch = make_batch(coils=2)
    method = flat.make(**SMALL, **options)
    params = noisy(method.init(jax.random.key(0), batch), 0.05)
    (loss, terms), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(
        params, jax.random.key(0), batch)
    weights = {"ssim": 1, "l1": 1, "kspace": 1, "velocity": options.get("w_velocity", 0.1)}
    assert terms.keys() == {name for name, weight in weights.items() if weight}
    assert float(loss) == pytest.approx(sum(weights[k] * float(v) for k, v in terms.items()),
                                        rel=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
    for name in set(params) - {"net"}:  # the first data step has no residual to act on
        assert np.abs(grads[name][1:]).min() > 0


def test_the_cascade_is_an_euler_step_of_the_flow(make_batch):
    """The scan against the two lines of mathematics it stands for, stacked weights."""
    batch = make_batch(coils=2)
    y, mask, maps, _ = batch.measurement
    sigma, times = 0.8, flow.time_grid(3, 0.4)
    method = flat.make(**SMALL, sigma=sigma, alpha=0.4)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    net = flat.NormUNet(channels=2, pools=1, time_channels=4)
    scale = mri.intensity_scale(batch.measurement)
    y = k = y / scale
    for j in range(3):
        own = jax.tree.map(lambda a, j=j: a[j], params["net"])
        v = mri.expand(net.apply({"params": own}, mri.reduce(k, maps),
                                 t=jnp.full(2, times[j], jnp.float32)), maps)
        k = k + (times[j + 1] - times[j]) * (mask * (k - y) / sigma**2 + v)
    result = reconstruct(method, params, batch.measurement)
    np.testing.assert_allclose(result.kspace, scale * k, atol=2e-5)
    assert np.abs(result.kspace - batch.measurement.kspace).max() > 0.1


def test_stacked_weights_that_are_equal_are_shared_ones(make_batch):
    batch = make_batch()
    shared, stacked = flat.make(**SMALL, weights="shared"), flat.make(**SMALL)
    params = noisy(shared.init(jax.random.key(0), batch), 0.1)
    repeated = {"net": jax.tree.map(lambda a: jnp.stack([a] * 3), params["net"])}
    a, b = (reconstruct(m, p, batch.measurement)
            for m, p in ((shared, params), (stacked, repeated)))
    np.testing.assert_allclose(a.trajectory, b.trajectory, atol=1e-6)
    own = stacked.init(jax.random.key(0), batch)["net"]["unet"]["bottom"]["Conv_0"]["kernel"]
    assert np.abs(own[0] - own[1]).max() > 0.1


def test_free_step_sizes_at_the_derived_values_are_flat(make_batch):
    batch = make_batch()
    delta = np.diff(flow.time_grid(3))
    eta, lam = flow.to_unrolled(delta, 3**-0.5)
    derived = flat.make(**SMALL)
    params = noisy(derived.init(jax.random.key(0), batch), 0.1)
    a = reconstruct(derived, params, batch.measurement)
    for options, learned in (({"step_sizes": "free"}, {"eta": eta}),
                             ({"timesteps": "learned"}, {"delta": delta}),
                             ({"step_sizes": "free", "timesteps": "learned"},
                              {"eta": eta, "lam": lam})):
        method = flat.make(**SMALL, **options)
        start = method.init(jax.random.key(0), batch)
        assert start.keys() - {"net"} == learned.keys()
        b = reconstruct(method, params | learned, batch.measurement)
        np.testing.assert_allclose(a.trajectory, b.trajectory, atol=1e-5)


def test_networks_start_at_zero_or_at_random(make_batch):
    batch = make_batch()
    zero, random = (flat.make(**SMALL, zero_init=start).init(jax.random.key(0), batch)["net"]
                    for start in (True, False))
    last = [params["unet"]["last"]["kernel"] for params in (zero, random)]
    assert not last[0].any() and last[1].all()
    for params in (zero, random):
        params["unet"].pop("last")
    jax.tree.map(np.testing.assert_array_equal, zero, random)


def test_rematerialisation_changes_nothing(make_batch):
    batch = make_batch()
    plain, remat = flat.make(**SMALL), flat.make(**SMALL, remat=True)
    params = noisy(plain.init(jax.random.key(0), batch), 0.1)
    a, b = (jax.jit(jax.grad(lambda p, m=m: m.loss(p, None, batch)[0]))(params)
            for m in (plain, remat))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


@pytest.mark.parametrize("coils", [1, 4])
def test_the_endpoint_form_lands_on_its_last_estimate(make_batch, coils):
    """Without a data term the last state is E(E^H k + net), which has no part outside range(E)."""
    batch = make_batch(coils=coils)
    method = flat.make(**SMALL, parameterisation="endpoint", sigma=1e6)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    result = reconstruct(method, params, batch.measurement)
    maps = batch.measurement.maps
    np.testing.assert_allclose(mri.expand(mri.reduce(result.kspace, maps), maps), result.kspace,
                               atol=1e-4)
    before_last = result.trajectory[-2]
    distance = np.abs(mri.expand(mri.reduce(before_last, maps), maps) - before_last).max()
    assert (distance > 1e-2) == (coils > 1)


@pytest.mark.parametrize("projection", [False, True])
def test_the_projection_restores_the_measurement_exactly(make_batch, projection):
    batch = make_batch(coils=2)
    method = flat.make(**SMALL, projection=projection, sigma=1.0)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    result = reconstruct(method, params, batch.measurement)
    y, mask, _, _ = batch.measurement
    residual = np.linalg.norm(mask * result.kspace - y) / np.linalg.norm(y)
    assert residual < 1e-6 if projection else residual > 1e-3
    np.testing.assert_array_equal(result.trajectory[-1], result.kspace)


@pytest.mark.parametrize("factor", [1e-12, 3.7, 1e12])
def test_reconstruction_commutes_with_scaling(make_batch, factor):
    batch = make_batch(coils=2)
    method = flat.make(**SMALL)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    scaled = batch.measurement._replace(
        kspace=(factor * np.asarray(batch.measurement.kspace)).astype(np.complex64))
    a, b = (reconstruct(method, params, m) for m in (batch.measurement, scaled))
    np.testing.assert_allclose(b.image / factor, a.image, rtol=1e-4, atol=1e-4)


def test_an_empty_slice_gives_an_empty_image_and_harms_no_neighbour(make_batch):
    batch = make_batch()
    method = flat.make(**SMALL)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    emptied = jax.tree.map(lambda x: x.at[0].set(0), (batch.measurement.kspace, batch.kspace,
                                                      batch.target))
    half_empty = batch._replace(measurement=batch.measurement._replace(kspace=emptied[0]),
                                kspace=emptied[1], target=emptied[2])
    result = reconstruct(method, params, half_empty.measurement)
    full = reconstruct(method, params, batch.measurement)
    assert np.isfinite(result.image).all()
    np.testing.assert_allclose(result.image[1], full.image[1], rtol=1e-5, atol=1e-6)
    (loss, _), grads = jax.value_and_grad(method.loss, has_aux=True)(params, None, half_empty)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_alignment_is_measured_on_the_normalised_path(make_batch):
    batch = make_batch()
    method = flat.make(**SMALL, w_ssim=0, w_l1=0, w_kspace=0, w_velocity=1)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    loss, _ = method.loss(params, None, batch)
    scale = mri.intensity_scale(batch.measurement)
    result = reconstruct(method, params, batch.measurement)
    times = flow.time_grid(3)
    ideal = np.stack([flow.interpolate(batch.measurement.kspace, batch.kspace, t)
                      for t in times[1:]])
    expected = losses.alignment(*(jax.vmap(lambda k: mri.reduce(k / scale, batch.measurement.maps))
                                  (x) for x in (result.trajectory[1:], ideal)), np.diff(times))
    assert float(loss) == pytest.approx(float(expected.mean()), rel=1e-4)


def test_adaptive_steps_solve_the_flow_of_shared_weights_slice_by_slice(make_batch):
    """As many small ones do, along the trajectory too, and whatever shares the batch."""
    batch = make_batch(coils=2)
    options = SMALL | {"weights": "shared", "sigma": 0.5, "times": (1.0, 0.5, 0.2, 0.0)}
    adaptive = flat.make(**options, solver="adaptive", tolerance=1e-4)
    params = noisy(adaptive.init(jax.random.key(0), batch), 0.2)
    found = reconstruct(adaptive, params, batch.measurement)
    many = flat.make(**options | {"steps": 100, "times": ()}, solver="rk4")
    exact = reconstruct(many, params, batch.measurement)
    np.testing.assert_allclose(found.trajectory, exact.trajectory[np.array([0, 50, 80, 100])],
                               atol=1e-2)
    np.testing.assert_allclose(found.times, (1, 0.5, 0.2, 0), rtol=1e-6)
    np.testing.assert_allclose(found.trajectory[-1], found.kspace, atol=1e-6)
    assert np.abs(found.kspace - batch.measurement.kspace).max() > 0.2
    assert found.nfe.shape == (2,) and (found.nfe < exact.nfe).all() and exact.nfe == 400
    alone = reconstruct(adaptive, params, jax.tree.map(lambda x: x[1:], batch.measurement))
    assert alone.nfe[0] == found.nfe[1]
    np.testing.assert_allclose(alone.kspace[0], found.kspace[1], atol=1e-4)


def test_weights_serve_other_steps_only_if_they_are_shared(make_batch):
    batch = make_batch()
    per_cascade = flat.make(**SMALL)
    params = per_cascade.init(jax.random.key(0), batch)
    with pytest.raises(InputError, match="parameters of 3 steps were given for 5 steps"):
        flat.make(**SMALL | {"steps": 5}).reconstruct(params, None, batch.measurement)
    with pytest.raises(InputError, match="'adaptive', expected a fixed one unless weights"):
        flat.make(**SMALL, solver="adaptive")
    alone = flat.make(**SMALL, solver="adaptive", weights="shared")
    with pytest.raises(InputError, match="fixed one for training"):
        alone.loss(alone.init(jax.random.key(0), batch), None, batch)


@pytest.mark.parametrize("options, match", [
    ({"steps": 0}, "steps is 0"), ({"alpha": -1.0}, "alpha is -1.0"),
    ({"sigma": 0.0}, "sigma is 0.0"), ({"sigma": 0.3}, "expected below 2"),
    ({"solver": "rk9"}, "solver is 'rk9', expected one of ab2, bs3, euler"),
    ({"weights": "tied"}, "per_cascade, shared"),
    ({"parameterisation": "x"}, "velocity, endpoint"), ({"timesteps": "x"}, "schedule, learned"),
    ({"step_sizes": "x"}, "derived, free"), ({"alignment_domain": "x"}, "image, kspace"),
    ({"alignment_average": "x"}, "mean, integral"), ({"dtype": "float16"}, "float32, bfloat16"),
    ({"combine": "x"}, "sense, rss"), ({"channels": 0}, "channels is 0"),
    ({"w_l1": -1.0}, "w_l1 is -1.0"), ({"pools": -1}, "pools is -1"),
    ({"parameterisation": "endpoint", "solver": "heun"}, "divides by t"),
    ({"parameterisation": "endpoint", "solver": "adaptive", "weights": "shared"}, "divides by t"),
    ({"solver": "ab2"}, "expected below 1"), ({"times": (1.0, 0.0)}, "times has 2 entries"),
    ({"tolerance": 0.0}, "tolerance is 0.0"), ({"time_channels": 1}, "time_channels is 1"),
    ({"time_channels": -1}, "time_channels is -1"),
    ({"solver": "heun", "step_sizes": "free"}, "euler")])
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        flat.make(**(SMALL | options))
