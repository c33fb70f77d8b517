"""The mathematics: path, schedule, Theorem 1, solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from flatjax import flow
from flatjax.errors import InputError
from flatjax.flow.solve import integrate_adaptive
from tests.support.arrays import complex_normal

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
    (4, -1, "alpha is -1, expected above -1"), (4, float("nan"), "alpha is nan"),
    (12, 60.0, "alpha is 60.0, which makes the times .*, expected to fall from 1 to 0"),
    (12, -0.9999999, "each below the one before"), (3, float("inf"), "alpha is inf")])
def test_bad_schedules_are_refused(steps, alpha, match):
    with pytest.raises(InputError, match=match):
        flow.time_grid(steps, alpha)


def test_given_times_replace_the_schedule():
    np.testing.assert_array_equal(flow.time_grid(3, 0.5, (1, 0.6, 0.1, 0)), [1, 0.6, 0.1, 0])


@pytest.mark.parametrize("times, match", [
    ((1, 0.5, 0), "times has 3 entries, expected steps . 1 = 4: set steps to 2"),
    ((1, 0.5, 0.5, 0), "each below"), ((0, 0.3, 0.6, 1), "fall from 1 to 0"),
    ((1, 0.5, 0.2, 0.1), "fall from 1 to 0"), ((1, float("nan"), 0.2, 0), "fall from 1 to 0"),
    ((1, 0.5 + 1e-9, 0.5, 0), "each below the one before, also in float32")])
def test_bad_times_are_refused(times, match):
    with pytest.raises(InputError, match=match):
        flow.time_grid(3, 0.0, times)


def test_unstable_timesteps_are_refused_with_the_numbers():
    delta = np.diff(flow.time_grid(4))
    flow.check_stable(delta, 0.36)
    with pytest.raises(InputError, match=r"\|delta\| / sigma\^2 = 4, expected below 2.*0\.3536"):
        flow.check_stable(delta, 0.25)
    with pytest.raises(InputError, match="= 1, expected below 1: .* or sigma > 0.5"):
        flow.check_stable(np.float32(delta), 0.5, flow.SOLVERS["ab2"].stability)
    for sigma in (0, -1, float("nan")):
        with pytest.raises(InputError, match="expected above 0"):
            flow.check_stable(delta, sigma)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", flow.EXPLICIT)
def test_ideal_velocity_integrates_to_the_target(name, alpha):
    rng = np.random.default_rng(0)
    start, end = complex_normal(rng, (2, 1, 5, 6)), complex_normal(rng, (2, 1, 5, 6))
    times = flow.time_grid(7, alpha)
    final, states, _ = flow.solve(lambda k, t, _: flow.velocity(start, end), start, times,
                                   solver=name, trajectory=True)
    np.testing.assert_allclose(final, end, atol=2e-6)
    ideal = flow.interpolate(start, end, times[:, None, None, None, None])
    np.testing.assert_allclose(states, ideal, atol=2e-6)


def theorem_1_pair(delta, sigma, eta, lam, state, measured, mask, matrices):
    """The Euler step of the flow and the cascade of the unrolled network, same velocity."""
    def v(k, j):
        return jnp.tanh(jnp.real(k)) @ matrices[j] + 1j * jnp.sin(jnp.imag(k))

    euler = unrolled = state
    for j in range(len(delta)):
        euler, _ = flow.SOLVERS["euler"].advance(
            lambda k, t, _, j=j: mask * (k - measured) / sigma[j] ** 2 + v(k, j),
            (euler, ()), (0.0, delta[j], None))
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


def field(z, t, _):
    """Non-linear, time-dependent, complex and not holomorphic; t may be one per element."""
    t = jnp.asarray(t)[..., None]
    return (0.7j - 0.3) * z * jnp.abs(z) + jnp.cos(3 * t) * jnp.conj(z) + jnp.exp(1j * t)


START = np.array([[0.4 + 0.2j, -0.3 + 0.5j], [0.1, 2j]])


def scipys(element, times=(1, 0), method="DOP853", rtol=1e-12, atol=1e-13):
    """The solution for one element of `START` at `times`, `[times, 2]`, and its evaluations."""
    def right_hand_side(t, z):
        return (0.7j - 0.3) * z * np.abs(z) + np.cos(3 * t) * np.conj(z) + np.exp(1j * t)

    found = solve_ivp(right_hand_side, (1, 0), START[element], method=method, rtol=rtol,
                      atol=atol, t_eval=times)
    return found.y.T, found.nfev


@pytest.fixture(scope="module")
def exact():
    return scipys(0)[0][-1]


def measured_order(name, exact, grid):
    """Slope of the error against the number of steps in log-log, float64."""
    with jax.enable_x64(True):
        solve = jax.jit(lambda times: flow.solve(field, jnp.asarray(START[0]), times,
                                                     solver=name)[0])
        steps = np.array([16, 32, 64, 128])
        errors = [float(jnp.abs(solve(grid(n)) - exact).max()) for n in steps]
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "ralston": 2, "rk4": 4, "ab2": 2, "bs3": 3}


@pytest.mark.parametrize("name", ORDERS)
def test_solvers_have_their_order_and_agree_with_scipy(name, exact):
    assert set(flow.EXPLICIT) == ORDERS.keys() == flow.SOLVERS.keys() - {"imex"}
    assert flow.SOLVERS[name].order == ORDERS[name]
    assert measured_order(name, exact, flow.time_grid) == pytest.approx(ORDERS[name], abs=0.15)


def uneven(steps):
    """Steps that alternate between lengths of 1 to 3."""
    times = np.cumsum(np.append(0, np.tile([1.0, 3.0], steps // 2)))
    return 1 - times / times[-1]


@pytest.mark.parametrize("grid", [lambda n: flow.time_grid(n, 1.0), uneven])
def test_adams_bashforth_keeps_its_order_on_uneven_steps(exact, grid):
    assert measured_order("ab2", exact, grid) == pytest.approx(2, abs=0.15)


def test_adams_bashforth_is_exact_for_a_slope_linear_in_time():
    """After its first step, which is Euler's, on any grid."""
    times = np.array([1.0, 0.8, 0.75, 0.3, 0.0])
    start = {"a": jnp.zeros(2, jnp.complex64)}
    _, states, _ = flow.solve(lambda z, t, _: {"a": t * jnp.ones(2)}, start, times,
                               solver="ab2", trajectory=True)
    expected = (times[1:] ** 2 - times[1] ** 2) / 2 + (times[1] - times[0]) * times[0]
    np.testing.assert_allclose(states["a"][1:, 0], expected, atol=1e-6)


@pytest.mark.parametrize("name", flow.EXPLICIT)
def test_the_nodes_are_the_times_at_which_the_field_is_evaluated(name):
    seen = []

    def watched(z, t, _):
        jax.debug.callback(lambda value: seen.append(float(value)), t, ordered=True)
        return -z

    scheme = flow.SOLVERS[name]
    flow.solve(watched, jnp.ones(1), np.array([1.0, 0.5, 0.25]), solver=scheme)
    jax.effects_barrier()
    expected = [t + c * d for t, d in ((1.0, -0.5), (0.5, -0.25)) for c in scheme.nodes]
    np.testing.assert_allclose(seen, expected, rtol=1e-6)
    assert len(seen) == 2 * scheme.evaluations


@pytest.mark.parametrize("name", flow.EXPLICIT)
def test_solvers_are_stable_up_to_their_bound(name):
    """200 steps of length z on y' = -y, just inside the bound and just outside."""
    scheme = flow.SOLVERS[name]

    def grown(z):
        final, *_ = flow.solve(lambda y, t, _: -y, jnp.ones(1), z * np.arange(201),
                                  solver=scheme)
        return abs(float(final[0]))

    assert grown(0.98 * scheme.stability) < 0.2
    assert grown(1.02 * scheme.stability) > 5


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_adaptive_steps_are_scipys(tolerance):
    """The same pair, control and first step: equal results and evaluations, element by element."""
    times = flow.time_grid(5, 0.5)
    with jax.enable_x64(True):
        final, states, evaluations = jax.jit(lambda state: integrate_adaptive(
            field, state, times, tolerance=tolerance, trajectory=True))(START)
    for element in range(2):
        theirs, count = scipys(element, method="RK23", rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(final[element], theirs[-1], atol=1e-11)
        assert evaluations[element] == count
        between, _ = scipys(element, times)
        np.testing.assert_allclose(states[:, element], between, atol=10 * tolerance)
        np.testing.assert_allclose(states[-1, element], final[element], rtol=1e-13)


def test_an_element_takes_the_same_adaptive_steps_in_any_batch():
    solve = jax.jit(lambda start: integrate_adaptive(field, start, (1.0, 0.0)))
    with jax.enable_x64(True):
        together, _, counts = solve(START)
        for element in range(2):
            alone, _, count = solve(START[element:element + 1])
            np.testing.assert_allclose(alone[0], together[element], rtol=1e-12)
            assert counts[element] == count[0]
    assert counts[0] != counts[1]


def test_adaptive_steps_run_forwards_and_on_pytrees():
    """Back from where the other direction ended; real and complex leaves share the control."""
    def pair(state, t, _):
        return {"z": field(state["z"], t, None), "x": jnp.cos(t)}

    with jax.enable_x64(True):
        start = {"z": jnp.asarray(START), "x": jnp.zeros(2)}
        there, _, _ = integrate_adaptive(pair, start, (1.0, 0.0), tolerance=1e-8)
        back, _, _ = integrate_adaptive(pair, there, (0.0, 1.0), tolerance=1e-8)
        np.testing.assert_allclose(there["x"], -np.sin(1), atol=1e-7)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), back, start)


def test_adaptive_steps_have_a_forward_derivative():
    def end(scale):
        return integrate_adaptive(lambda z, t, _: scale * field(z, t, None),
                                  jnp.asarray(START), (1.0, 0.0), tolerance=1e-9)[0]

    with jax.enable_x64(True):
        _, tangent = jax.jvp(end, (1.0,), (1.0,))
        difference = (end(1 + 1e-4) - end(1 - 1e-4)) / 2e-4
    np.testing.assert_allclose(tangent, difference, atol=1e-5)


def test_running_out_of_steps_shows_and_harms_no_neighbor():
    def stiff(z, t, _):
        return jnp.asarray([[1.0], [1e4]]) * z

    final, states, counts = integrate_adaptive(stiff, jnp.ones((2, 3)) + 0j, (1.0, 0.0),
                                                    max_steps=50, trajectory=True)
    np.testing.assert_allclose(final[0], np.exp(-1), rtol=5e-3)
    assert np.isnan(final[1]).all() and np.isnan(states[-1, 1]).all()
    assert np.isfinite(states[0]).all() and counts[1] == 2 + 3 * 50
    broken, _, counts = integrate_adaptive(lambda z, t, _: z / 0, jnp.ones((1, 1)), (1.0, 0.0))
    assert np.isnan(broken).all() and counts[0] < 10


@pytest.mark.parametrize("name", ["heun", "ab2"])
@pytest.mark.parametrize("remat", [False, True])
def test_scan_equals_a_python_loop_over_per_step_arguments(remat, name):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(6, 4, 4)).astype(np.float32) / 4
    state, times = complex_normal(rng, (2, 4)), flow.time_grid(6, 0.7)

    def field(k, t, w):
        return jnp.tanh(jnp.real(k) @ w) + 1j * t * k

    def scanned(w):
        final, states, _ = flow.solve(field, state, times, solver=name, args=w,
                                       trajectory=True, remat=remat)
        return jnp.sum(jnp.abs(final) ** 2), states

    def looped(w):
        scheme, states = flow.SOLVERS[name], [jnp.asarray(state)]
        memory = scheme.start(states[0], jnp.float32(times[1] - times[0]))
        for j in range(6):
            reached, memory = scheme.advance(
                field, (states[-1], memory), (times[j], times[j + 1] - times[j], w[j]))
            states.append(reached)
        return jnp.sum(jnp.abs(states[-1]) ** 2), jnp.stack(states)

    (_, a), ga = jax.value_and_grad(scanned, has_aux=True)(weights)
    (_, b), gb = jax.value_and_grad(looped, has_aux=True)(weights)
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ga, gb, rtol=1e-4, atol=1e-5)


def test_parameters_of_another_number_of_steps_are_refused():
    with pytest.raises(InputError, match="parameters of 12 steps were given for 6 steps"):
        flow.solve(lambda z, t, w: w * z, jnp.ones(3), flow.time_grid(6),
                       solver="euler", args=jnp.ones((12, 3)))
