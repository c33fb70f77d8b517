"""DDS against Gaussian priors: what is exact by theory, and the steps themselves."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import flow, mri
from flatjax.errors import InputError
from flatjax.flow import diffusion
from flatjax.methods.generative import dds
from tests.support import gaussian
from tests.support.arrays import complex_normal, noisy
from tests.support.build import build

SMALL = {"steps": 3, "network__channels": 2, "network__pools": 1, "network__time_channels": 4}
COUNT = 1200
ALPHA_BAR = diffusion.linear_alpha_bar(1000)


def level(t):
    return jnp.asarray(ALPHA_BAR, jnp.float32)[jnp.round(1000 * t).astype(int)]


def white(key):
    return jax.random.normal(key, (COUNT, *gaussian.SHAPE), jnp.complex64)


def sample(predict, correct, draw, steps, eta):
    return diffusion.sample(predict, correct, draw, jax.random.key(0), from_noise=True,
                            indices=diffusion.timestep_subset(1000, steps), alpha_bar=ALPHA_BAR,
                            weights=partial(dds.step_weights, eta=eta))[0]


def samples(law, consistent, steps, eta):
    """States drawn with the exact noise, by a sampler that need not know their domain."""
    return np.asarray(jax.jit(lambda: sample(
        lambda state, t: gaussian.exact(law, "noise", state, level(t)), consistent, white, steps,
        eta))())


def proximal(image, measured, gamma, iterations):
    space = flow.image_space(cg_iterations=iterations)
    return space.data_consistency(measured).proximal(image, gamma)


def with_data(y, gamma):
    """`proximal` for states in k-space."""
    measured = gaussian.measurement(y, COUNT)
    return lambda k: mri.fft2c(proximal(mri.ifft2c(k), measured, gamma, 5))


def test_without_a_measurement_the_prior_is_sampled():
    law = gaussian.prior()
    gaussian.assert_law(samples(law, lambda state: state, 300, 0.0), law)


def test_entries_independent_of_the_measured_ones_are_sampled_right():
    law = gaussian.prior(independent=True)
    y, rest = gaussian.measure(law)
    kspace = samples(law, with_data(y, 5.0), 150, 0.0)
    gaussian.assert_law(kspace, rest, where=~gaussian.SAMPLED, errors=6)
    np.testing.assert_allclose(kspace * gaussian.MASK[0], np.repeat(y[0], COUNT, 0), atol=1e-2)


@pytest.mark.parametrize("steps, eta, gamma", [(10, 0.85, 5.0), (10, 0.85, 0.5), (6, 0.0, 1.0),
                                               (8, 1.0, 2.0)])
def test_a_run_is_the_recursion_it_stands_for(steps, eta, gamma):
    """Few steps on a correlated prior: mean and covariance of the affine maps, in float64."""
    law, one = gaussian.prior(), np.eye(16)
    y, _ = gaussian.measure(law)
    alpha_bar = np.r_[1, np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))]
    indices = 1000 * np.arange(steps, -1, -1) // steps
    data = np.diag(1 / (1 + gamma * gaussian.SAMPLED))
    maps = []
    for now, after in zip(alpha_bar[indices], alpha_bar[indices[1:]], strict=False):
        signal, spread = np.sqrt(now), np.sqrt(1 - now)
        noise = spread * np.linalg.inv(now * law.covariance + (1 - now) * one)
        shift = -signal * noise @ law.mean
        end = data @ (one - spread * noise) / signal
        end_shift = data @ (gamma * y.ravel() - spread * shift / signal)
        kept = np.sqrt((1 - after) * (1 - eta**2))
        maps.append((np.sqrt(after) * end + kept * noise,
                     np.sqrt(after) * end_shift + kept * shift, eta**2 * (1 - after) * one))
    kspace = samples(law, with_data(y, gamma), steps, eta)
    gaussian.assert_law(kspace, gaussian.affine_law(maps, 1.0))


def test_the_renewed_noise_narrows_the_spread():
    """The documented approximation: fresh noise at every step, however short."""
    law = gaussian.prior()
    flat = samples(law, lambda state: state, 200, 0.85).reshape(COUNT, -1)
    assert (flat.var(axis=0) / np.diag(law.covariance).real).mean() < 0.85


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("gamma", [0.7, 5.0])
def test_data_consistency_solves_its_normal_equations(make_batch, coils, gamma):
    batch = make_batch(coils=coils, shape=(6, 8))
    y, mask, maps, _ = batch.measurement
    image = jnp.asarray(complex_normal(np.random.default_rng(0), (2, 6, 8)))
    unit = jnp.eye(48, dtype=jnp.complex64).reshape(48, 6, 8)

    def error(iterations):
        solved = np.asarray(proximal(image, batch.measurement, gamma, iterations))
        return max(np.linalg.norm(solved[i].ravel() - dense[i]) for i in range(2))

    dense = []
    for i in range(2):
        columns = np.asarray(mri.forward(unit, mask[i:i + 1], maps[i:i + 1])).reshape(48, -1)
        matrix = columns.astype(complex).T
        right = np.ravel(image[i]) + gamma * matrix.conj().T @ np.ravel(y[i])
        dense.append(np.linalg.solve(np.eye(48) + gamma * matrix.conj().T @ matrix, right))
    first = max(np.linalg.norm(np.ravel(image[i]) - dense[i]) for i in range(2))
    assert error(1) < first
    assert error(2 if coils == 1 else 40) < 1e-4 * first
    assert error(5) < 0.05 * first


def test_a_full_measurement_of_great_weight_is_returned(make_batch):
    batch = make_batch(coils=3)
    full = batch.measurement._replace(kspace=batch.kspace,
                                      mask=jnp.ones_like(batch.measurement.mask))
    method = build("dds", **SMALL, gamma=1e5)
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    result = jax.jit(method.reconstruct)(params, jax.random.key(0), full)
    np.testing.assert_allclose(result.kspace, batch.kspace, atol=2e-3)


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_without_eta_only_the_start_is_random(eta):
    def run(later):
        draws = iter([white, later])  # the scan's body is traced once
        return sample(lambda x, t: 0.9 * x, lambda end: end, lambda key: next(draws)(key), 10,
                      eta)

    same = np.array_equal(run(white), run(lambda key: 3 * white(key)))
    assert same == (eta == 0)


def in_place_of_the_network(law, scale, kind):
    net = gaussian.Exact(lambda image, t: gaussian.to_image(
        lambda k: gaussian.exact(law.scaled(1 / scale), kind, k, level(t)))(image))
    return net


@pytest.mark.parametrize("kind", diffusion.PREDICTIONS)
def test_the_exact_prediction_has_the_lowest_loss(kind):
    law = gaussian.prior()
    y, _ = gaussian.measure(law)
    scale = gaussian.scale(y)
    net = in_place_of_the_network(law, scale, kind)
    kspace = law.samples(np.random.default_rng(4), COUNT)
    gain, loss = gaussian.best_gain(dds.make(net, prediction=kind), gaussian.batch(kspace, y))
    assert gain == pytest.approx(1, abs=0.03)
    expected = gaussian.remaining_error(law.scaled(1 / scale), kind, ALPHA_BAR[1:])
    assert loss == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", diffusion.PREDICTIONS)
def test_reconstruction_samples_independent_entries_and_counts_evaluations(kind):
    law = gaussian.prior(independent=True)
    y, rest = gaussian.measure(law)
    net = in_place_of_the_network(law, gaussian.scale(y), kind)
    method = dds.make(net, steps=80, eta=0.0, samples=2, prediction=kind)
    result = jax.jit(method.reconstruct)({"net": {"gain": jnp.ones(())}}, jax.random.key(1),
                                         gaussian.measurement(y, COUNT))
    jax.effects_barrier()
    assert net.images == result.nfe * COUNT
    assert result.nfe == 2 * 80
    gaussian.assert_law(result.kspace - y, gaussian.Law(rest.mean, rest.covariance / 2),
                        where=~gaussian.SAMPLED)
    np.testing.assert_allclose((result.kspace - y) * gaussian.MASK, 0, atol=5e-2)


@pytest.mark.parametrize("options, match", [
    ({"steps": 0}, "steps is 0"), ({"steps": 1001}, "expected from 1 to 1000"),
    ({"eta": -0.1}, "eta is -0.1"), ({"eta": 1.5}, "eta is 1.5"),
    ({"gamma": 0.0}, "gamma is 0.0"), ({"cg_iterations": 0}, "cg_iterations is 0"),
    ({"prediction": "x"}, "velocity, noise")])
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("dds", **(SMALL | options))
