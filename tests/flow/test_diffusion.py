"""Diffusion mathematics: schedules, steps between noise levels, against the papers' formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax.errors import InputError
from flatjax.flow import diffusion
from tests.support.arrays import complex_normal

SCHEDULES = [diffusion.cosine_alpha_bar, diffusion.linear_alpha_bar]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("total", [1, 10, 1000])
def test_signal_falls_from_one(schedule, total):
    alpha_bar = schedule(total)
    assert alpha_bar.shape == (total + 1,) and alpha_bar[0] == 1
    assert (np.diff(alpha_bar) < 0).all() and alpha_bar[-1] > 0
    if total == 1000:
        assert alpha_bar[-1] < 1e-4


def test_the_schedules_are_the_papers():
    cosine, linear = (schedule(1000) for schedule in SCHEDULES)
    t = np.arange(1, 900)
    f = np.cos((np.r_[0, t] / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine[t], f[1:] / f[0], rtol=1e-9)
    assert cosine[1000] / cosine[999] == pytest.approx(0.001)
    assert linear[1] == pytest.approx(1 - 1e-4, rel=1e-12)
    assert linear[1000] / linear[999] == pytest.approx(0.98)
    assert linear[500] == pytest.approx(0.07858724, rel=1e-6)


def test_sigma_runs_from_its_smallest_to_its_largest():
    sigma = diffusion.geometric_sigma(jnp.asarray([0.0, 0.5, 1.0]), 0.01, 378.0)
    np.testing.assert_allclose(sigma, [0.01, np.sqrt(3.78), 378.0], rtol=1e-5)


@pytest.mark.parametrize("total, steps", [(1000, 1), (1000, 7), (1000, 999), (1000, 1000), (3, 2)])
def test_respacing_visits_distinct_levels_evenly(total, steps):
    indices = diffusion.timestep_subset(total, steps)
    assert indices[0] == total and indices[-1] == 0 and len(indices) == steps + 1
    gaps = -np.diff(indices)
    assert gaps.min() >= 1 and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_more_levels_than_there_are_is_refused(steps):
    with pytest.raises(InputError, match=f"steps is {steps}, expected from 1 to 1000"):
        diffusion.timestep_subset(1000, steps)


def test_ancestral_steps_are_ho_et_als_posterior():
    """Their equation 7, with the betas written out."""
    alpha_bar = diffusion.linear_alpha_bar(1000)
    beta = np.linspace(1e-4, 0.02, 1000)
    t = np.arange(2, 1001)
    end, state, std = diffusion.posterior_weights(alpha_bar[t], alpha_bar[t - 1], eta=1.0)
    before = np.cumprod(1 - beta)[t - 2]
    after = np.cumprod(1 - beta)[t - 1]
    np.testing.assert_allclose(end, np.sqrt(before) * beta[t - 1] / (1 - after), rtol=1e-6)
    np.testing.assert_allclose(state, np.sqrt(1 - beta[t - 1]) * (1 - before) / (1 - after),
                               rtol=1e-6)
    np.testing.assert_allclose(std**2, (1 - before) / (1 - after) * beta[t - 1], rtol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_every_step_has_the_marginals_of_the_diffusion(eta):
    """From x_t = signal x_0 + spread n, the weights give x_t' the right signal and noise."""
    alpha_bar = diffusion.cosine_alpha_bar(1000)
    left, reached = alpha_bar[[1000, 700, 300, 5]], alpha_bar[[900, 300, 299, 0]]
    end, state, std = diffusion.posterior_weights(left, reached, eta)
    np.testing.assert_allclose(end + state * np.sqrt(left), np.sqrt(reached), atol=1e-12)
    np.testing.assert_allclose(state**2 * (1 - left) + std**2, 1 - reached, atol=1e-12)
    ancestral = diffusion.posterior_weights(left, reached, 1.0)[2]
    np.testing.assert_allclose(std, eta * ancestral)
    assert (ancestral[:3] > 0).all()
    assert end[-1] == 1 and state[-1] == 0 and std[-1] == 0


@pytest.mark.parametrize("eta", [-0.1, 1.1, float("nan")])
def test_shares_of_noise_outside_the_unit_interval_are_refused(eta):
    with pytest.raises(InputError, match="eta is .*, expected in"):
        diffusion.check_eta(eta)


@pytest.mark.parametrize("kind", diffusion.PREDICTIONS)
def test_the_noise_follows_from_what_is_learned(kind):
    rng = np.random.default_rng(0)
    end, noise = complex_normal(rng, (3, 4, 5)), complex_normal(rng, (3, 4, 5))
    level = jnp.asarray([0.99, 0.4, 1e-3])[:, None, None]
    state = diffusion.diffuse(end, noise, level)
    found = diffusion.noise_from(kind, diffusion.learned(kind, end, noise, level), state, level)
    np.testing.assert_allclose(found, noise, atol=1e-5)


def test_diffused_noise_has_unit_power():
    noise = jax.random.normal(jax.random.key(0), (20000,), jnp.complex64)
    state = diffusion.diffuse(jnp.full(20000, 2 + 1j, jnp.complex64), noise, 0.36)
    assert np.mean(state) == pytest.approx(0.6 * (2 + 1j), abs=0.03)
    assert np.var(np.asarray(state)) == pytest.approx(0.64, rel=0.03)
