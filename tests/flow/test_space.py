"""State spaces: the data term's gradient and proximal map against dense linear algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import flow, mri
from flatjax.errors import InputError
from flatjax.nets import ImageUNet
from tests.support.arrays import complex_normal, noisy
from tests.support.build import build

SPACES = {"kspace": flow.kspace_space(), "image": flow.image_space(cg_iterations=80)}


def problem(dtype=np.complex128, coils=3, shape=(6, 5)):
    """A measurement whose maps and mask are arbitrary, and a state of each space."""
    rng = np.random.default_rng(3)
    maps = complex_normal(rng, (2, coils, *shape), dtype)
    maps /= np.sqrt(np.sum(np.abs(maps) ** 2, axis=1, keepdims=True))
    mask = (rng.random((2, 1, *shape)) < 0.4).astype(maps.real.dtype)
    measured = mri.Measurement(mask * complex_normal(rng, maps.shape, dtype), mask, maps)
    return measured, {"kspace": complex_normal(rng, maps.shape, dtype),
                      "image": complex_normal(rng, (2, *shape), dtype)}


def forward_model(name, measured):
    if name == "kspace":
        return lambda state: measured.mask * state
    return lambda state: mri.forward(state, measured.mask, measured.maps)


@pytest.mark.parametrize("shape", [(6, 5), (4, 4), (7, 3)])
def test_the_normal_operator_is_the_adjoint_of_the_forward_model_times_it(shape):
    with jax.enable_x64(True):
        measured, states = problem(shape=shape)
        _, mask, maps, _ = measured
        both = mri.adjoint(mri.forward(states["image"], mask, maps), mask, maps)
        np.testing.assert_allclose(mri.normal(states["image"], mask, maps), both, atol=1e-12)


@pytest.mark.parametrize("name", SPACES)
def test_the_gradient_is_that_of_half_the_squared_residual(name):
    with jax.enable_x64(True):
        measured, states = problem()
        apply = forward_model(name, measured)

        def residual(state):
            return 0.5 * jnp.sum(jnp.abs(apply(state) - measured.kspace) ** 2)

        data = SPACES[name].data_consistency(measured)
        np.testing.assert_allclose(data.gradient(states[name]),
                                   jnp.conj(jax.grad(residual)(states[name])), atol=1e-12)


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("c", [0.3, 50.0, np.array([0.01, 7.0])], ids=str)
def test_the_proximal_map_is_a_dense_solve(name, c):
    with jax.enable_x64(True):
        measured, states = problem()
        state, apply = states[name], forward_model(name, measured)
        size = state[0].size
        units = np.eye(size).reshape(size, *state.shape[1:])
        ours = SPACES[name].data_consistency(measured).proximal(state, c)
        for slice_ in range(2):
            columns = [np.asarray(apply(np.broadcast_to(unit, state.shape)))[slice_].ravel()
                       for unit in units]
            a, y = np.stack(columns, axis=1), measured.kspace[slice_].ravel()
            weight = np.broadcast_to(c, 2)[slice_]
            exact = np.linalg.solve(np.eye(size) + weight * a.conj().T @ a,
                                    state[slice_].ravel() + weight * a.conj().T @ y)
            np.testing.assert_allclose(ours[slice_].ravel(), exact, atol=1e-5 * np.abs(exact).max())


@pytest.mark.parametrize("name", SPACES)
def test_a_weight_of_zero_changes_nothing_and_a_large_one_keeps_the_measurement(name):
    with jax.enable_x64(True):
        measured, states = problem()
        apply, data = forward_model(name, measured), SPACES[name].data_consistency(measured)
        np.testing.assert_array_equal(data.proximal(states[name], 0.0), states[name])
        consistent = measured._replace(kspace=apply(states[name]))
        start = SPACES[name].state(consistent.kspace, consistent.maps)
        near = SPACES[name].data_consistency(consistent).proximal(start, 1e8)
        np.testing.assert_allclose(apply(near), consistent.kspace, atol=1e-6)


@pytest.mark.parametrize("name", SPACES)
def test_lifting_an_image_is_the_adjoint_of_looking_at_a_state(name):
    with jax.enable_x64(True):
        measured, states = problem()
        image = states["image"]
        seen = SPACES[name].image(states[name], measured.maps)
        lifted = SPACES[name].lift(image, measured.maps)
        assert np.vdot(image, seen) == pytest.approx(np.vdot(lifted, states[name]), rel=1e-12)


def test_fewer_than_one_iteration_is_refused():
    with pytest.raises(InputError, match="cg_iterations is 0, expected at least 1"):
        flow.image_space(cg_iterations=0)


STIFF = 400.0


def solution_error(steps, solver="imex"):
    """Of a stiff, non-linear, complex problem with the solution exp(i t) / (1 + t)."""
    def exact(t):
        return jnp.exp(1j * t) / (1 + t)

    def slope(t):
        return (1j - 1 / (1 + t)) * exact(t)

    def smooth(state, t, args):  # f(t, x(t)) = x'(t), and it bends in x
        return slope(t) + STIFF * exact(t) + (state**2 - exact(t) ** 2)

    def stiff(state, args):
        return -STIFF * state

    def resolvent(state, delta, args):
        return state / (1 + delta * STIFF)

    times = np.linspace(0, 1, steps + 1)
    final, *_ = flow.solve(flow.SplitField(smooth, stiff, resolvent), exact(times[0])[None],
                              times, solver=solver)
    return float(jnp.abs(final - exact(times[-1]))[0])


def test_implicit_explicit_euler_is_of_first_order_where_explicit_euler_blows_up():
    with jax.enable_x64(True):
        errors = [solution_error(steps) for steps in (40, 80, 160, 320)]
        slopes = np.log2(np.divide(errors[:-1], errors[1:]))
        np.testing.assert_allclose(slopes, 1.0, atol=0.25)
        assert errors[0] < 0.05
        assert not solution_error(40, "euler") < 1e6


def test_the_implicit_explicit_solver_refuses_a_field_of_one_part():
    with pytest.raises(TypeError, match="needs a SplitField"):
        flow.solve(lambda state, t, args: state, jnp.ones(1), [0.0, 1.0],
                       solver="imex")


SMALL = {
    "schedule__steps": 3,
    "network__channels": 2,
    "network__pools": 1,
    "network__time_channels": 4,
    "space__name": "image",
    "solver": "imex",
}


def test_a_cascade_in_image_space_is_modls_step(make_batch):
    """(A^H A + lam)^-1 (A^H y + lam D(x)) with D(x) = x + delta v and lam = sigma^2 / |delta|.

    The network sees images whose phase is turned to 45 degrees.
    """
    batch = make_batch(coils=3)
    _, mask, maps, _ = batch.measurement
    method = build("flat", **SMALL, likelihood__sigma=0.5, space__cg_iterations=60)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    net = ImageUNet(channels=2, pools=1, time_channels=4)
    scale = mri.intensity_scale(batch.measurement)[:, 0]
    x = start = mri.zero_filled(batch.measurement) / scale
    turn = np.exp(1j * (np.pi / 4 - np.angle(np.sum(start * np.abs(start), axis=(1, 2)))))
    turn = turn.astype(np.complex64)[:, None, None]
    times, lam = flow.time_grid(3), 3 * 0.5**2
    for j in range(3):
        own = jax.tree.map(lambda a, j=j: a[j], params["net"])
        predicted = net.apply({"params": own}, turn * x, t=jnp.full(2, times[j], jnp.float32))
        x = x - jnp.conj(turn) * predicted / 3
        right = start + lam * x
        # Richardson's iteration: slow, and nothing like conjugate gradients
        x = jax.lax.fori_loop(0, 400, lambda _, x, right=right: x + (
            right - mri.normal(x, mask, maps) - lam * x) / (1 + lam), x)
    result = jax.jit(method.reconstruct)(params, jax.random.key(0), batch.measurement)
    np.testing.assert_allclose(mri.reduce(result.kspace, maps), scale * x, atol=2e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"likelihood__name": "learned", "projection": True},
        {"likelihood__name": "noise", "remat": True},
        {"weights": "shared", "parameterization": "endpoint"},
    ],
    ids=str,
)
def test_every_choice_of_an_implicit_flow_learns(make_batch, options):
    batch = make_batch(coils=2)
    method = build("flat", **SMALL, **options)
    params = noisy(method.init(jax.random.key(0), batch), 0.05)
    (_, terms), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(
        params, jax.random.key(0), batch)
    assert set(terms) == {"ssim", "l1", "kspace", "velocity"}
    for name, leaf in grads.items():
        for one in jax.tree.leaves(leaf):
            assert np.isfinite(one).all() and np.abs(one).max() > 0, name


def test_one_set_of_weights_serves_any_number_of_coils(make_batch):
    method = build("flat", **SMALL)
    params = noisy(method.init(jax.random.key(0), make_batch(coils=1)), 0.05)
    for coils in (1, 2, 5):
        measured = make_batch(coils=coils).measurement
        result = jax.jit(method.reconstruct)(params, jax.random.key(0), measured)
        assert np.isfinite(result.image).all()


def test_the_global_phase_of_a_scan_does_not_matter(make_batch):
    measured = make_batch(coils=2).measurement
    method = build("flat", **SMALL)
    params = noisy(method.init(jax.random.key(0), make_batch(coils=2)), 0.1)
    reconstruct = jax.jit(method.reconstruct)
    plain = reconstruct(params, jax.random.key(0), measured)
    for angle in (0.7, 3.0):
        phasor = np.complex64(np.exp(1j * angle))
        turned = reconstruct(params, jax.random.key(0),
                             measured._replace(kspace=phasor * measured.kspace))
        np.testing.assert_allclose(turned.kspace, phasor * plain.kspace,
                                   atol=2e-4 * np.abs(plain.kspace).max())


def test_less_noise_draws_the_result_to_the_measurement(make_batch):
    measured = make_batch(coils=2).measurement
    method = build("flat", **SMALL, likelihood__name="noise", space__cg_iterations=30)
    params = noisy(method.init(jax.random.key(0), make_batch(coils=2)), 0.1)

    def residual(noise):
        told = measured._replace(noise=jnp.full(2, noise))
        kspace = jax.jit(method.reconstruct)(params, jax.random.key(0), told).kspace
        return np.linalg.norm(measured.mask * (kspace - measured.kspace))

    assert residual(0.001) < 0.5 * residual(0.01) < 0.25 * residual(0.3)


def test_the_factor_of_the_noise_counts_once_in_training_too(make_batch):
    """Twice the noise told is the noise of a measurement that has twice as much."""
    batch = make_batch(coils=2)
    options = SMALL | {"likelihood__name": "noise", "likelihood__jitter": 1.5}
    plain, doubled = (build("flat", **options, likelihood__factor=factor) for factor in (1.0, 2.0))
    params = noisy(plain.init(jax.random.key(0), batch), 0.1)

    def results(method, noise):
        known = batch._replace(measurement=batch.measurement._replace(noise=jnp.full(2, noise)))
        return (jax.jit(method.loss)(params, jax.random.key(1), known)[0],
                jax.jit(method.reconstruct)(params, None, known.measurement).kspace)

    expected, same, other = (results(*case) for case in (
        (plain, 0.02), (doubled, 0.01), (doubled, 0.02)))
    for a, b, c in zip(expected, same, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert np.abs(a - c).max() > 1e-3


@pytest.mark.parametrize("options, match", [
    ({"solver": "euler", "likelihood__name": "noise"}, "expected the solver 'imex'"),
    ({"likelihood__sigma": 0.0}, "sigma is 0.0, expected above 0"),
    ({"likelihood__name": "noise", "network__time_channels": 0}, "time_channels is 0"),
    ({"loss__domain": "kspace"}, "expected 'image'"),
    ({"solver": "euler", "likelihood__sigma": 0.1}, "the solver would diverge"),
    ({"likelihood__name": "noise", "likelihood__factor": 0.0}, "factor is 0.0"),
    ({"space__name": "pixels"}, "space.name is 'pixels'")])
def test_what_an_implicit_flow_cannot_do_is_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("flat", **SMALL | options)


@pytest.mark.parametrize("noise", [0.0005, 0.01, 0.1])
def test_the_noise_level_is_found_in_the_outermost_samples(noise):
    rng = np.random.default_rng(0)
    image = np.zeros((1, 64, 64), np.complex64)
    image[:, 12:50, 16:44] = 1
    image = np.asarray(mri.ifft2c(mri.fft2c(image) * np.hanning(64) * np.hanning(64)[:, None]))
    maps = np.full((1, 4, 64, 64), 0.5, np.complex64)
    mask = (rng.random((1, 1, 1, 64)) < 0.4).astype(np.float32)
    kspace = np.asarray(mri.expand(image, maps)) + noise * np.sqrt(0.5) * complex_normal(
        rng, maps.shape)
    found = float(mri.noise_level(mask * kspace, mask)[0])
    assert found == pytest.approx(noise, rel=0.1)
    silent = np.concatenate([kspace, np.zeros_like(kspace)], axis=1)  # coils that are not there
    assert float(mri.noise_level(mask * silent, mask)[0]) == pytest.approx(found, rel=1e-5)


def test_an_empty_measurement_has_no_noise():
    assert float(mri.noise_level(jnp.zeros((1, 2, 8, 8), jnp.complex64),
                                 jnp.ones((1, 1, 1, 8)))[0]) == 0
