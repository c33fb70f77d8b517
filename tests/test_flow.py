"""The mathematics: path, schedule, Theorem 1, solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import complex_normal

from flatjax import flow
from flatjax.errors import InputError

ALPHAS = [-0.5, 0.0, 0.3, 1.0, 2.5]


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("steps", [1, 2, 7, 12])
def test_timesteps_fall_from_one_to_zero_and_sum_to_minus_one(steps, alpha):
    times = flow.time_grid(steps, alpha)
    delta = np.diff(times)
    assert times[0] == 1 and times[-1] == 0 and len(times) == steps + 1
    assert (delta < 0).all()
    assert delta.sum() == pytest.approx(-1, abs=1e-12)
    if alpha > 0:
        assert (np.diff(np.abs(delta)) < 0).all()
    if alpha == 0:
        np.testing.assert_allclose(delta, -1 / steps, rtol=1e-12)


@pytest.mark.parametrize("steps, alpha, match", [
    (0, 0, "steps is 0, expected at least 1"), (-2, 0, "steps is -2"),
    (4, -1, "alpha is -1, expected above -1"), (4, float("nan"), "alpha is nan")])
def test_bad_schedules_are_refused(steps, alpha, match):
    with pytest.raises(InputError, match=match):
        flow.time_grid(steps, alpha)


def test_unstable_timesteps_are_refused_with_the_numbers():
    delta = np.diff(flow.time_grid(4))
    flow.check_stable(delta, 0.36)
    with pytest.raises(InputError, match=r"\|delta\| / sigma\^2 = 4, expected below 2.*0\.3536"):
        flow.check_stable(delta, 0.25)
    for sigma in (0, -1, float("nan")):
        with pytest.raises(InputError, match="expected above 0"):
            flow.check_stable(delta, sigma)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", sorted(flow.SOLVERS))
def test_ideal_velocity_integrates_to_the_target(name, alpha):
    rng = np.random.default_rng(0)
    start, end = complex_normal(rng, (2, 1, 5, 6)), complex_normal(rng, (2, 1, 5, 6))
    times = flow.time_grid(7, alpha)
    final, states = flow.integrate(lambda k, t, _: flow.velocity(start, end), start, times,
                                   tableau=flow.solver(name), trajectory=True)
    np.testing.assert_allclose(final, end, atol=2e-6)
    ideal = flow.interpolate(start, end, times[:, None, None, None, None])
    np.testing.assert_allclose(states, ideal, atol=2e-6)


def theorem_1_pair(delta, sigma, eta, lam, state, measured, mask, matrices):
    """The Euler step of the flow and the cascade of the unrolled network, same velocity."""
    def v(k, j):
        return jnp.tanh(jnp.real(k)) @ matrices[j] + 1j * jnp.sin(jnp.imag(k))

    euler = unrolled = state
    for j in range(len(delta)):
        euler = flow.step(
            flow.solver("euler"),
            lambda k, t, _, j=j: mask * (k - measured) / sigma[j] ** 2 + v(k, j),
            euler, 0.0, delta[j])
        unrolled = unrolled - eta[j] * mask * (unrolled - measured) + lam[j] * -v(unrolled, j)
    return euler, unrolled


@pytest.mark.parametrize("seed", range(3))
def test_theorem_1_both_ways_at_random_parameters(seed):
    rng = np.random.default_rng(seed)
    state, measured = complex_normal(rng, (1, 2, 6, 6)), complex_normal(rng, (1, 2, 6, 6))
    mask = (rng.random((1, 1, 1, 6)) < 0.5).astype(np.float32)
    matrices = rng.normal(size=(5, 6, 6)).astype(np.float32) / 6
    sigma = np.full(5, rng.uniform(0.5, 2))
    delta = np.diff(flow.time_grid(5, rng.uniform(-0.5, 1)))
    euler, unrolled = theorem_1_pair(delta, sigma, *flow.to_unrolled(delta, sigma), state,
                                     measured, mask, matrices)
    np.testing.assert_allclose(euler, unrolled, rtol=1e-5, atol=1e-5)
    eta, lam = rng.uniform(0.1, 1, 5), rng.uniform(0.1, 1, 5)
    euler, unrolled = theorem_1_pair(*flow.to_flow(eta, lam), eta, lam, state, measured, mask,
                                     matrices)
    np.testing.assert_allclose(euler, unrolled, rtol=1e-5, atol=1e-5)


def test_the_parameter_map_is_its_own_inverse():
    rng = np.random.default_rng(0)
    delta, sigma = -rng.uniform(0.01, 1, 9), rng.uniform(0.2, 2, 9)
    back = flow.to_flow(*flow.to_unrolled(delta, sigma))
    np.testing.assert_allclose(back[0], delta, rtol=1e-5)
    np.testing.assert_allclose(back[1], sigma, rtol=1e-5)
    assert np.isnan(flow.to_flow(1.0, -0.5)[1])


def measured_order(name):
    """Slope of the error in log-log on a non-linear, time-dependent complex problem, float64."""
    def field(z, t, _):
        return (0.7j - 0.3) * z * jnp.abs(z) + jnp.cos(3 * t) * jnp.conj(z) + jnp.exp(1j * t)

    with jax.enable_x64(True):
        start = jnp.asarray([0.4 + 0.2j, -0.3 + 0.5j], jnp.complex128)

        def solve(tableau, steps):
            return flow.integrate(field, start, flow.time_grid(steps), tableau=tableau)[0]

        exact = solve(flow.solver("rk4"), 4096)
        steps = np.array([16, 32, 64, 128])
        errors = [float(jnp.abs(solve(flow.solver(name), n) - exact).max()) for n in steps]
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize("name", sorted(flow.SOLVERS))
def test_solvers_have_their_order(name):
    assert measured_order(name) == pytest.approx(flow.SOLVERS[name].order, abs=0.15)


def test_solver_agrees_with_scipy():
    from scipy.integrate import solve_ivp

    def field(t, z):
        return (0.7j - 0.3) * z * np.abs(z) + np.cos(3 * t)

    with jax.enable_x64(True):
        start = np.array([0.4 + 0.2j])
        ours, _ = flow.integrate(lambda z, t, _: (0.7j - 0.3) * z * jnp.abs(z) + jnp.cos(3 * t),
                                 jnp.asarray(start), flow.time_grid(200),
                                 tableau=flow.solver("rk4"))
    theirs = solve_ivp(field, (1, 0), start, rtol=1e-10, atol=1e-12).y[:, -1]
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("remat", [False, True])
def test_scan_equals_a_python_loop_over_per_step_arguments(remat):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 4, 4)).astype(np.float32) / 4
    state, times = complex_normal(rng, (2, 4)), flow.time_grid(6, 0.7)

    def field(k, t, w):
        return jnp.tanh(jnp.real(k) @ w) + 1j * t * k

    def scanned(w):
        final, states = flow.integrate(field, state, times, tableau=flow.solver("heun"), args=w,
                                       trajectory=True, remat=remat)
        return jnp.sum(jnp.abs(final) ** 2), states

    def looped(w):
        states = [jnp.asarray(state)]
        for j in range(6):
            states.append(flow.step(flow.solver("heun"), field, states[-1], times[j],
                                    times[j + 1] - times[j], w[j]))
        return jnp.sum(jnp.abs(states[-1]) ** 2), jnp.stack(states)

    (_, a), ga = jax.value_and_grad(scanned, has_aux=True)(weights)
    (_, b), gb = jax.value_and_grad(looped, has_aux=True)(weights)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ga, gb, rtol=1e-4, atol=1e-5)


def test_unknown_solver_lists_those_there_are():
    with pytest.raises(InputError, match="solver is 'rk5', expected one of euler, heun"):
        flow.solver("rk5")
