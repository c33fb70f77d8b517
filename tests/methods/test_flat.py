"""FLAT as a method: what it computes, for every choice in its config."""

import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import flow, losses, mri, nets
from flatjax.errors import InputError
from flatjax.methods import flat, zero_filled
from flatjax.nets import ImageUNet
from tests.support.arrays import noisy
from tests.support.build import build
from tests.support.checks import check_remat

SMALL = {
    "schedule__steps": 3,
    "network__channels": 2,
    "network__pools": 1,
    "network__time_channels": 4,
}


def reconstruct(method, params, measurement):
    return jax.jit(method.reconstruct, static_argnames="trajectory")(
        params, jax.random.key(0), measurement, trajectory=True)


@pytest.mark.parametrize("coils", [1, 3])
def test_an_untrained_network_leaves_the_measurement_alone(make_batch, coils):
    batch = make_batch(coils=coils)
    method = build("flat", **SMALL)
    result = reconstruct(method, method.init(jax.random.key(0), batch), batch.measurement)
    np.testing.assert_allclose(result.kspace, batch.measurement.kspace, atol=1e-5)
    zero = zero_filled().reconstruct({}, None, batch.measurement)
    np.testing.assert_allclose(result.image, zero.image, atol=1e-5)
    assert result.trajectory.shape == (4, *batch.kspace.shape)
    assert result.nfe == 3


OPTIONS = [
    {"weights": "shared", "solver": "ab2", "likelihood__sigma": 0.8,
     "parameterization": "endpoint"},
    {"solver": "heun", "projection": True, "combine": "rss"},
    {"schedule__times": (1.0, 0.8, 0.3, 0.0), "loss__domain": "kspace",
     "loss__average": "integral", "network__zero_init": False},
    {"loss__velocity": 0.0, "network__dtype": "bfloat16", "remat": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_choice_computes_a_finite_loss_and_gradient(make_batch, options):
    batch = make_batch(coils=2)
    method = build("flat", **SMALL, **options)
    params = noisy(method.init(jax.random.key(0), batch), 0.05)
    (loss, terms), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(
        params, jax.random.key(0), batch)
    weights = {"ssim": 1, "l1": 1, "kspace": 1, "velocity": options.get("loss__velocity", 0.1)}
    assert terms.keys() == {name for name, weight in weights.items() if weight}
    assert float(loss) == pytest.approx(sum(weights[k] * float(v) for k, v in terms.items()),
                                        rel=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path


def test_the_cascade_is_an_euler_step_of_the_flow(make_batch):
    """The scan against the two lines of mathematics it stands for, stacked weights."""
    batch = make_batch(coils=2)
    y, mask, maps, _ = batch.measurement
    sigma, times = 0.8, flow.time_grid(3, 0.4)
    method = build("flat", **SMALL, likelihood__sigma=sigma, schedule__alpha=0.4)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    net = ImageUNet(channels=2, pools=1, time_channels=4)
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
    shared, stacked = build("flat", **SMALL, weights="shared"), build("flat", **SMALL)
    params = noisy(shared.init(jax.random.key(0), batch), 0.1)
    repeated = {"net": jax.tree.map(lambda a: jnp.stack([a] * 3), params["net"])}
    a, b = (reconstruct(m, p, batch.measurement)
            for m, p in ((shared, params), (stacked, repeated)))
    np.testing.assert_allclose(a.trajectory, b.trajectory, atol=1e-6)
    own = stacked.init(jax.random.key(0), batch)["net"]["unet"]["bottom"]["Conv_0"]["kernel"]
    assert np.abs(own[0] - own[1]).max() > 0.1


def test_parts_that_are_handed_over_are_those_of_the_config(make_batch):
    batch = make_batch(coils=2)
    options = {"weights": "shared", "parameterization": "endpoint"}
    own = flat(nets.unet(channels=2, pools=1, time_channels=4), flow.schedule(steps=3),
               flow.image_space(cg_iterations=2), solver="imex",
               likelihood=flow.noise_sigma(sigma=0.2), loss=losses.flat(velocity=0.3), **options)
    named = build("flat", **SMALL, **options, space__name="image", space__cg_iterations=2,
                  solver="imex", likelihood__name="noise", likelihood__sigma=0.2,
                  loss__velocity=0.3)
    params = noisy(own.init(jax.random.key(0), batch), 0.1)
    a, b = (method.loss(params, jax.random.key(1), batch)[0] for method in (own, named))
    assert float(a) == float(b)


def test_few_frames_lie_between_a_rollout_and_its_field(make_batch):
    """Those of flatjax alone: solve, the scan, its step, and the solver."""
    batch, frames = make_batch(), []

    class Watched(ImageUNet):
        def apply(self, *args, **kwargs):
            names = [frame.name for frame in traceback.extract_stack()
                     if "/flatjax/" in frame.filename]
            frames.append(names[names.index("rollout") + 1:names.index("__call__")])
            return super().apply(*args, **kwargs)

    method = flat(Watched(channels=2, pools=1, time_channels=4), flow.schedule(steps=3),
                  flow.kspace_space())
    method.reconstruct(method.init(jax.random.key(0), batch), None, batch.measurement)
    assert frames and all(len(one) <= 4 for one in frames), frames


def test_networks_start_at_zero_or_at_random(make_batch):
    batch = make_batch()
    zero, random = (
        build("flat", **SMALL, network__zero_init=start).init(jax.random.key(0), batch)["net"]
        for start in (True, False)
    )
    last = [params["unet"]["last"]["kernel"] for params in (zero, random)]
    assert not last[0].any() and last[1].all()
    for params in (zero, random):
        params["unet"].pop("last")
    jax.tree.map(np.testing.assert_array_equal, zero, random)


def test_rematerialization_changes_memory_alone(make_batch):
    check_remat(lambda **options: build("flat", **SMALL, **options), make_batch())


@pytest.mark.parametrize("coils", [1, 4])
def test_the_endpoint_form_lands_on_its_last_estimate(make_batch, coils):
    """Without a data term the last state is E(E^H k + net), which has no part outside range(E)."""
    batch = make_batch(coils=coils)
    method = build("flat", **SMALL, parameterization="endpoint", likelihood__sigma=1e6)
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
    method = build("flat", **SMALL, projection=projection, likelihood__sigma=1.0)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    result = reconstruct(method, params, batch.measurement)
    y, mask, _, _ = batch.measurement
    residual = np.linalg.norm(mask * result.kspace - y) / np.linalg.norm(y)
    assert residual < 1e-6 if projection else residual > 1e-3
    np.testing.assert_array_equal(result.trajectory[-1], result.kspace)


def test_reconstruction_commutes_with_scaling(make_batch):
    batch = make_batch(coils=2)
    method = build("flat", **SMALL)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    image = reconstruct(method, params, batch.measurement).image
    for factor in (1e-12, 1e12):
        scaled = batch.measurement._replace(
            kspace=(factor * np.asarray(batch.measurement.kspace)).astype(np.complex64))
        found = reconstruct(method, params, scaled).image / factor
        np.testing.assert_allclose(found, image, rtol=1e-4, atol=1e-4)


def test_an_empty_slice_gives_an_empty_image_and_harms_no_neighbor(make_batch):
    batch = make_batch()
    method = build("flat", **SMALL)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    emptied = jax.tree.map(lambda x: x.at[0].set(0), (batch.measurement.kspace, batch.kspace,
                                                      batch.target))
    half_empty = batch._replace(measurement=batch.measurement._replace(kspace=emptied[0]),
                                kspace=emptied[1], target=emptied[2])
    result = reconstruct(method, params, half_empty.measurement)
    full = reconstruct(method, params, batch.measurement)
    assert np.isfinite(result.image).all()
    np.testing.assert_allclose(result.image[1], full.image[1], rtol=1e-5, atol=1e-6)
    (loss, _), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(params, None,
                                                                              half_empty)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_alignment_is_measured_on_the_normalized_path(make_batch):
    batch = make_batch()
    method = build("flat", **SMALL, loss__ssim=0, loss__l1=0, loss__kspace=0, loss__velocity=1)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    loss, _ = method.loss(params, None, batch)
    scale = mri.intensity_scale(batch.measurement)
    result = reconstruct(method, params, batch.measurement)
    times = flow.time_grid(3)
    ideal = np.stack([flow.interpolate(batch.measurement.kspace, batch.kspace, t)
                      for t in times[1:]])
    reached, ideal = (jax.vmap(lambda k: mri.reduce(k / scale, batch.measurement.maps))(x)
                      for x in (result.trajectory[1:], ideal))
    expected = losses.alignment(prediction=reached, target=ideal, delta=np.diff(times))
    assert float(loss) == pytest.approx(float(expected.mean()), rel=1e-4)


def test_adaptive_steps_solve_the_flow_of_shared_weights_slice_by_slice(make_batch):
    """As many small ones do, along the trajectory too, and whatever shares the batch."""
    batch = make_batch(coils=2)
    options = SMALL | {
        "weights": "shared",
        "likelihood__sigma": 0.5,
        "schedule__times": (1.0, 0.5, 0.2, 0.0),
    }
    adaptive = build("flat", **options, solver="adaptive", tolerance=1e-4)
    params = noisy(adaptive.init(jax.random.key(0), batch), 0.2)
    found = reconstruct(adaptive, params, batch.measurement)
    many = build("flat", **options | {"schedule__steps": 100, "schedule__times": ()}, solver="rk4")
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
    per_cascade = build("flat", **SMALL)
    params = per_cascade.init(jax.random.key(0), batch)
    with pytest.raises(InputError, match="parameters of 3 steps were given for 5 steps"):
        build("flat", **SMALL | {"schedule__steps": 5}).reconstruct(params, None, batch.measurement)
    with pytest.raises(InputError, match="'adaptive', expected a fixed one unless weights"):
        build("flat", **SMALL, solver="adaptive")
    alone = build("flat", **SMALL, solver="adaptive", weights="shared")
    with pytest.raises(InputError, match="fixed one for training"):
        alone.loss(alone.init(jax.random.key(0), batch), None, batch)


@pytest.mark.parametrize(
    "options, match",
    [
        ({"schedule__steps": 0}, "steps is 0"),
        ({"schedule__alpha": -1.0}, "alpha is -1.0"),
        ({"likelihood__sigma": 0.0}, "sigma is 0.0"),
        ({"likelihood__sigma": 0.3}, "expected below 2"),
        ({"solver": "rk9"}, "solver is 'rk9', expected one of ab2, bs3, euler"),
        ({"weights": "tied"}, "per_cascade, shared"),
        ({"parameterization": "x"}, "velocity, endpoint"),
        ({"loss__domain": "x"}, "image, kspace"),
        ({"loss__average": "x"}, "mean, integral"),
        ({"network__dtype": "float16"}, "float32, bfloat16"),
        ({"combine": "x"}, "sense, rss"),
        ({"network__channels": 0}, "channels is 0"),
        ({"loss__l1": -1.0}, "l1 is -1.0"),
        ({"network__pools": -1}, "pools is -1"),
        ({"parameterization": "endpoint", "solver": "heun"}, "divides by t"),
        (
            {"parameterization": "endpoint", "solver": "adaptive", "weights": "shared"},
            "divides by t",
        ),
        ({"solver": "ab2"}, "expected below 1"),
        ({"schedule__times": (1.0, 0.0)}, "times has 2 entries"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"network__time_channels": 1}, "time_channels is 1"),
        ({"network__time_channels": -1}, "time_channels is -1"),
    ],
)
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("flat", **(SMALL | options))
