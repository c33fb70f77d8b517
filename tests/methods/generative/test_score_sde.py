"""Score-MRI against Gaussian priors: what is exact by theory, and the steps themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import mri
from flatjax.errors import InputError
from flatjax.flow import diffusion
from flatjax.methods.generative import score_sde
from tests.support import gaussian
from tests.support.arrays import complex_normal, noisy
from tests.support.build import build

SMALL = {"steps": 3, "network__channels": 2, "network__pools": 1, "network__time_channels": 4}
COUNT = 1200
LEVELS = {"sigma_min": 0.01, "sigma_max": 20.0}


def samples(law, consistent, steps, snr):
    """States drawn with the exact score, by a sampler that need not know their domain."""
    def score(state, t):
        sigma = diffusion.geometric_sigma(t, 0.01, 20.0)
        return -gaussian.estimates(law, state, 1.0, sigma)[1] / sigma

    def run(key):
        start = 20.0 * jax.random.normal(key, (COUNT, *gaussian.SHAPE), jnp.complex64)
        return score_sde.sample(score, consistent, start, jax.random.fold_in(key, 1), steps=steps,
                                snr=snr, **LEVELS)[0]

    return np.asarray(jax.jit(run)(jax.random.key(0)))


def replacing(y):
    """`replace_measured` for states in k-space."""
    measured = gaussian.measurement(y, COUNT)
    return lambda k: mri.fft2c(score_sde.replace_measured(mri.ifft2c(k), measured))


def test_without_a_measurement_the_prior_is_sampled():
    law = gaussian.prior()
    gaussian.assert_law(samples(law, lambda state: state, 250, 0.0), law)


def test_few_steps_leave_no_noise_behind():
    """Whose variance is more than the prior's if a step adds all the variance that it removes."""
    law = gaussian.prior()
    for snr in (0.0, 0.16):
        flat = samples(law, lambda state: state, 12, snr).reshape(COUNT, -1)
        ratio = flat.var(axis=0) / np.diag(law.covariance).real
        assert 0.5 < ratio.mean() < 1
        assert np.abs(flat.mean(0) - law.mean).max() < 0.1


def test_the_corrector_widens_the_spread_a_little():
    law = gaussian.prior()
    flat = samples(law, lambda state: state, 150, 0.16).reshape(COUNT, -1)
    ratio = flat.var(axis=0) / np.diag(law.covariance).real
    assert 1.02 < ratio.mean() < 1.15
    assert np.abs(flat.mean(0) - law.mean).max() < 0.1


def test_entries_independent_of_the_measured_ones_are_sampled_right():
    law = gaussian.prior(independent=True)
    y, rest = gaussian.measure(law)
    kspace = samples(law, lambda k: jnp.where(gaussian.MASK[0] > 0, y[0], k), 200, 0.0)
    gaussian.assert_law(kspace, rest, where=~gaussian.SAMPLED)
    np.testing.assert_array_equal(kspace * gaussian.MASK[0], np.repeat(y[0], COUNT, 0))


def test_the_predictor_is_the_recursion_it_stands_for():
    """Few steps on a correlated prior: mean and covariance of the affine maps, in float64."""
    law, steps, keep = gaussian.prior(), 12, np.diag(1.0 - gaussian.SAMPLED)
    y, _ = gaussian.measure(law)
    sigma = np.append(0.01 * 2000 ** np.linspace(1, 0, steps), 0)
    maps = [(keep, y.ravel(), 0)]  # the first replacement comes before the first predictor
    for now, after in zip(sigma, sigma[1:], strict=False):
        pull = (now**2 - after**2) * np.linalg.inv(law.covariance + now**2 * np.eye(16))
        added = (now**2 - after**2) * (after / now) ** 2 * keep
        maps.append((keep @ (np.eye(16) - pull), keep @ pull @ law.mean + y.ravel(), added))
    kspace = samples(law, replacing(y), steps, 0.0)
    gaussian.assert_law(kspace, gaussian.affine_law(maps, 20.0))


def test_a_step_is_corrector_and_predictor_each_with_the_data_replaced():
    """On a field that mixes all entries, so that what is replaced when decides the result."""
    rng = np.random.default_rng(0)
    start, known = (jnp.asarray(complex_normal(rng, (2, 4, 4))) for _ in range(2))

    def consistent(x):
        return jnp.where(gaussian.MASK[0] > 0, known, x)

    def score(x, t):
        return -jnp.roll(x, 1, axis=-1) / (1 + t)

    key, x = jax.random.key(1), start
    sigma = [2.0, 0.2, 0.0]
    for own, t, now, after in zip(jax.random.split(key, 2), [1.0, 0.0], sigma, sigma[1:],
                                  strict=False):
        first, second = jax.random.normal(own, (2, 2, 4, 4), jnp.complex64)
        x = consistent(score_sde.langevin(x, score(x, t), first, 0.16))
        mean = x + (now**2 - after**2) * score(x, t)
        x = consistent(mean + np.sqrt(now**2 - after**2) * after / now * second)
    found, states = score_sde.sample(score, consistent, start, key, steps=2, sigma_min=0.2,
                                     sigma_max=2.0, snr=0.16, trajectory=True)
    np.testing.assert_allclose(found, x, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(states[0], start)


def test_the_result_is_free_of_the_last_levels_noise():
    """A prior of a single image: its k-space comes out, without noise of sigma_min."""
    law = gaussian.Law(gaussian.prior().mean, np.zeros((16, 16)))
    kspace = samples(law, lambda state: state, 40, 0.16)
    np.testing.assert_allclose(kspace.reshape(COUNT, -1), np.tile(law.mean, (COUNT, 1)), atol=1e-4)


def test_a_langevin_step_has_the_ratio_of_its_name_and_rests_without_a_score():
    rng = np.random.default_rng(0)
    state, score, noise = (jnp.asarray(complex_normal(rng, (3, 4, 5))) for _ in range(3))
    score = score.at[2].set(0)
    drift = score_sde.langevin(state, score, 1e-20 * noise, 0.3)
    np.testing.assert_allclose(drift, state, atol=1e-6)
    moved = np.asarray(score_sde.langevin(state, score, noise, 0.3) - state)
    np.testing.assert_array_equal(moved[2], 0)
    for i in range(2):
        step = 2 * (0.3 * np.linalg.norm(noise[i]) / np.linalg.norm(score[i])) ** 2
        np.testing.assert_allclose(moved[i], step * score[i] + np.sqrt(2 * step) * noise[i],
                                   rtol=1e-4, atol=1e-5)
        assert np.linalg.norm(step * score[i]) == pytest.approx(
            0.3 * np.linalg.norm(np.sqrt(2 * step) * noise[i]), rel=1e-5)


@pytest.mark.parametrize("coils", [1, 4])
def test_replacement_never_lengthens_the_residual(make_batch, coils):
    batch = make_batch(coils=coils)
    measured = batch.measurement._replace(maps=batch.measurement.maps.at[..., :3].set(0))
    y, mask, maps, _ = measured
    image = jnp.asarray(complex_normal(np.random.default_rng(0), (2, 24, 26)))

    def residual(x):
        return np.linalg.norm((y - mri.forward(x, mask, maps)).reshape(2, -1), axis=1)

    replaced = score_sde.replace_measured(image, measured)
    assert (residual(replaced) < residual(image)).all()
    np.testing.assert_array_equal(replaced[..., :3], image[..., :3])
    if coils == 1:
        kept = score_sde.replace_measured(image, batch.measurement)
        np.testing.assert_allclose(mask * mri.fft2c(kept)[:, None], y, atol=1e-5)
        np.testing.assert_allclose((1 - mask) * mri.fft2c(kept)[:, None],
                                   (1 - mask) * mri.fft2c(image)[:, None], atol=1e-5)


@pytest.mark.parametrize("coils", [1, 3])
def test_a_full_measurement_is_returned(make_batch, coils):
    batch = make_batch(coils=coils)
    full = batch.measurement._replace(kspace=batch.kspace,
                                      mask=jnp.ones_like(batch.measurement.mask))
    method = build("score_sde", **SMALL, samples=2)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    result = jax.jit(method.reconstruct)(params, jax.random.key(0), full)
    np.testing.assert_allclose(result.kspace, batch.kspace, atol=1e-3)


def in_place_of_the_network(law, scale, kind):
    def alpha_bar(t):
        return 1 / (1 + diffusion.geometric_sigma(t, 0.01, 20.0) ** 2)

    net = gaussian.Exact(lambda image, t: gaussian.to_image(
        lambda k: gaussian.exact(law.scaled(1 / scale), kind, k, alpha_bar(t)))(image))
    return net, alpha_bar


@pytest.mark.parametrize("kind", diffusion.PREDICTIONS)
def test_the_exact_prediction_has_the_lowest_loss(kind):
    law = gaussian.prior()
    y, _ = gaussian.measure(law)
    scale = gaussian.scale(y)
    net, alpha_bar = in_place_of_the_network(law, scale, kind)
    kspace = law.samples(np.random.default_rng(4), COUNT)
    gain, loss = gaussian.best_gain(score_sde.make(net, prediction=kind, **LEVELS),
                                    gaussian.batch(kspace, y))
    assert gain == pytest.approx(1, abs=0.03)
    levels = np.asarray(alpha_bar((np.arange(1000) + 0.5) / 1000))
    assert loss == pytest.approx(gaussian.remaining_error(law.scaled(1 / scale), kind, levels),
                                 rel=0.05)


@pytest.mark.parametrize("kind", diffusion.PREDICTIONS)
def test_reconstruction_samples_independent_entries_and_counts_evaluations(kind):
    law = gaussian.prior(independent=True)
    y, rest = gaussian.measure(law)
    net, _ = in_place_of_the_network(law, gaussian.scale(y), kind)
    method = score_sde.make(net, steps=100, snr=1e-6, samples=2, prediction=kind, **LEVELS)
    result = jax.jit(method.reconstruct)({"net": {"gain": jnp.ones(())}}, jax.random.key(1),
                                         gaussian.measurement(y, COUNT))
    jax.effects_barrier()
    assert net.images == result.nfe * COUNT
    assert result.nfe == 2 * 2 * 100
    gaussian.assert_law(result.kspace - y, gaussian.Law(rest.mean, rest.covariance / 2),
                        errors=6)


@pytest.mark.parametrize("options, match", [
    ({"steps": 0}, "steps is 0"), ({"snr": 0.0}, "snr is 0.0"),
    ({"sigma_min": 0.0}, "sigma_min is 0.0"), ({"sigma_min": 1e-4}, "at least 0.001"),
    ({"sigma_max": 0.005}, "sigma_max 0.005"),
    ({"prediction": "x"}, "velocity, noise")])
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("score_sde", **(SMALL | options))
