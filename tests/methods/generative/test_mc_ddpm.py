"""MC-DDPM against a Gaussian prior, whose noise prediction is known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import mri
from flatjax.errors import InputError
from flatjax.flow import diffusion
from flatjax.methods.generative import mc_ddpm
from tests.support import gaussian
from tests.support.arrays import noisy
from tests.support.build import build

SMALL = {"steps": 3, "network__channels": 2, "network__pools": 1, "network__time_channels": 4}
COUNT = 1200
ALPHA_BAR = diffusion.cosine_alpha_bar(1000)


def level(t):
    return jnp.asarray(ALPHA_BAR, jnp.float32)[jnp.round(1000 * t).astype(int)]


def white(key):
    return jax.random.normal(key, (COUNT, 1, *gaussian.SHAPE), jnp.complex64) * (1 - gaussian.MASK)


def sample(law, draw, steps, eta):
    """States drawn with the exact noise."""
    return diffusion.sample(
        lambda r, t: gaussian.exact(law, "noise", r, level(t)), lambda end: end, draw,
        jax.random.key(0), indices=diffusion.timestep_subset(1000, steps), alpha_bar=ALPHA_BAR,
        weights=partial(diffusion.posterior_weights, eta=eta))[0]


@pytest.mark.parametrize("eta, steps", [(1.0, 300), (0.5, 250), (0.0, 150)])
def test_the_exact_noise_samples_the_posterior(eta, steps):
    _, law = gaussian.measure(gaussian.prior())
    rest = jax.jit(lambda: sample(law, white, steps, eta))()
    gaussian.assert_law(rest, law)
    np.testing.assert_allclose(rest * gaussian.MASK, 0, atol=1e-12)


def in_place_of_the_network(law, scale, tau, kind):
    """The exact prediction from the images that the network is given, in units of tau."""
    own = law.scaled(1 / (scale * tau))
    net = gaussian.Exact(lambda image, zero_filled, t: gaussian.to_image(
        lambda r: gaussian.exact(own, kind, r, level(t)))((image - zero_filled) / tau))
    return net


@pytest.mark.parametrize("options", [
    {"prediction": "noise", "steps": 80},
    {"prediction": "velocity", "steps": 120, "sampler": "ddpm"}], ids=str)
def test_reconstruction_averages_posterior_samples_and_counts_evaluations(options):
    """Slices with one measurement are draws; the mean of two samples has half their variance."""
    y, law = gaussian.measure(gaussian.prior())
    measured = gaussian.measurement(y, COUNT)
    net = in_place_of_the_network(law, gaussian.scale(y), 0.5, options["prediction"])
    method = mc_ddpm.make(net, samples=2, tau=0.5, **options)
    result = jax.jit(method.reconstruct)({"net": {"gain": jnp.ones(())}}, jax.random.key(1),
                                         measured)
    jax.effects_barrier()
    assert net.images == result.nfe * COUNT
    assert result.nfe == 2 * options["steps"]
    gaussian.assert_law(result.kspace - y, gaussian.Law(law.mean, law.covariance / 2))


@pytest.mark.parametrize("kind", diffusion.PREDICTIONS)
def test_the_exact_prediction_has_the_lowest_loss(kind):
    y, law = gaussian.measure(gaussian.prior())
    scale = gaussian.scale(y)
    net = in_place_of_the_network(law, scale, 0.4, kind)
    kspace = y + law.samples(np.random.default_rng(4), COUNT)
    gain, loss = gaussian.best_gain(mc_ddpm.make(net, tau=0.4, prediction=kind),
                                    gaussian.batch(kspace, y))
    assert gain == pytest.approx(1, abs=0.03)
    own = law.scaled(1 / (scale * 0.4))
    assert loss == pytest.approx(gaussian.remaining_error(own, kind, ALPHA_BAR[1:]), rel=0.05)


def test_implicit_steps_at_eta_one_are_the_ancestral_ones(make_batch):
    batch = make_batch(coils=2)
    ddpm, ddim, plain = (build("mc_ddpm", **SMALL, **options) for options in (
        {"sampler": "ddpm"}, {"sampler": "ddim", "eta": 1.0}, {}))
    params = noisy(ddpm.init(jax.random.key(0), batch), 0.1)
    a, b, c = (jax.jit(method.reconstruct)(params, jax.random.key(1), batch.measurement).kspace
               for method in (ddpm, ddim, plain))
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert np.abs(a - c).max() > 1e-2


@pytest.mark.parametrize("eta", [0.0, 0.3])
def test_without_eta_only_the_start_is_random(eta):
    """Whatever the later draws are, eta = 0 ignores them."""
    _, law = gaussian.measure(gaussian.prior())

    def run(later):
        draws = iter([white, later])  # the scan's body is traced once
        return sample(law, lambda key: next(draws)(key), 10, eta)

    same = np.array_equal(run(white), run(lambda key: 3 * white(key)))
    assert same == (eta == 0)


@pytest.mark.parametrize("coils", [1, 3])
def test_measured_samples_stay_as_they_are(make_batch, coils):
    batch = make_batch(coils=coils)
    y, mask, maps, _ = batch.measurement
    method = build("mc_ddpm", **SMALL, samples=2, sampler="ddpm")
    params = noisy(method.init(jax.random.key(0), batch), 0.1)
    result = jax.jit(partial(method.reconstruct, trajectory=True))(
        params, jax.random.key(1), batch.measurement)
    for state in result.trajectory:
        np.testing.assert_allclose(mask * state, y, rtol=1e-5, atol=1e-6)
        assert np.abs((1 - mask) * state).max() > 1e-3


def test_an_estimate_out_of_range_is_clipped_and_no_other(make_batch):
    """An untrained network predicts no noise, so that the first estimate is noise / 5e-5."""
    batch = make_batch()
    bounded, free = (
        build("mc_ddpm", **SMALL, prediction="noise", clip=clip) for clip in (0.5, 1e9)
    )
    params = bounded.init(jax.random.key(0), batch)
    scale = mri.intensity_scale(batch.measurement)
    y, mask, maps, _ = batch.measurement

    def pixels(method):
        kspace = jax.jit(method.reconstruct)(params, jax.random.key(1), batch.measurement).kspace
        return np.abs(mri.ifft2c((kspace - y) / scale))

    assert 0.25 < pixels(bounded).max() < 1 and pixels(free).max() > 100
    image = np.array([3 + 4j, 0.1j, 0, -1], np.complex64)
    np.testing.assert_allclose(mc_ddpm.clip_magnitude(image, 0.5), [0.3 + 0.4j, 0.1j, 0, -0.5],
                               rtol=1e-6)


@pytest.mark.parametrize("options, match", [
    ({"steps": 0}, "steps is 0"), ({"steps": 1001}, "steps is 1001, expected from 1 to 1000"),
    ({"sampler": "plms"}, "sampler is 'plms', expected one of ddpm, ddim"),
    ({"eta": -0.1}, "eta is -0.1"), ({"eta": 1.5}, "eta is 1.5"), ({"tau": 0.0}, "tau is 0.0"),
    ({"clip": 0.0}, "clip is 0.0"), ({"prediction": "x"}, "velocity, noise")])
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("mc_ddpm", **(SMALL | options))
