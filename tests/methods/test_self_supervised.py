"""Splits of measured samples, and the loss that needs nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import losses, mri
from flatjax.errors import InputError
from flatjax.methods import check_split, self_supervised, zero_filled
from flatjax.methods.self_supervised import split
from flatjax.mri import Measurement
from flatjax.mri.host.masks import make_mask
from flatjax.mri.sampling import LARGEST_BOX, calibration_mask, distance_from_center
from tests.support.arrays import complex_normal, noisy
from tests.support.build import build, shrunk

KEY = jax.random.key(3)
SHAPE = (44, 40)


def measured(kind="poisson", shape=SHAPE, acceleration=3, center=0.1, coils=2):
    masks = np.stack([make_mask(kind, shape, acceleration, center, seed) for seed in range(3)])
    kspace = complex_normal(np.random.default_rng(0), (3, coils, *shape)) * masks[:, None]
    return Measurement(kspace, masks[:, None], np.ones_like(kspace))


@pytest.mark.parametrize("density", ["gaussian", "uniform"])
@pytest.mark.parametrize("kind", ["poisson", "random"])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.75])
def test_theta_and_lambda_share_nothing_miss_nothing_and_leave_the_center_to_theta(
        kind, share, density):
    full = measured(kind)
    theta, held = jax.jit(split, static_argnames="density")(KEY, full, share, density=density)
    mask = np.broadcast_to(full.mask, held.shape)
    np.testing.assert_array_equal(theta.mask + held, mask)
    assert {*np.unique(theta.mask)} == {*np.unique(held)} == {0, 1}
    np.testing.assert_array_equal(theta.kspace, theta.mask * full.kspace)
    center = calibration_mask(mask, LARGEST_BOX)
    assert (center.sum(axis=(1, 2, 3)) >= 4).all() and not np.any(held * center)
    outside = (mask * ~center).sum(axis=(1, 2, 3))
    np.testing.assert_array_equal(held.sum(axis=(1, 2, 3)), np.round(share * outside))


def test_slices_and_keys_have_splits_of_their_own_and_a_key_its_own_alone():
    mask = np.tile(measured().mask[:1], (2, 1, 1, 1))
    full = Measurement(np.ones((2, 1, *SHAPE), np.complex64) * mask, mask, None)
    first, again, other = (split(key, full)[1] for key in (KEY, KEY, jax.random.key(4)))
    np.testing.assert_array_equal(first, again)
    assert np.any(first[0] != first[1]) and np.any(first != other)


def test_a_gaussian_draw_follows_its_density():
    """Of few points of many, the numbers are nearly those of independent draws."""
    mask = np.ones((60, 1, *SHAPE), np.float32)
    mask[..., SHAPE[0] // 2, SHAPE[1] // 2] = 0  # so there is no fully sampled center
    full = Measurement(mask.astype(np.complex64), mask, None)
    distance = distance_from_center(SHAPE)
    weights = {"uniform": np.ones(SHAPE), "gaussian": np.exp(-distance**2 / (2 * 0.5**2))}
    for density, weight in weights.items():
        found = np.asarray(split(KEY, full, 0.03, density)[1]).mean(axis=(0, 1))
        near = distance < 0.5
        assert found[near].sum() / found.sum() == pytest.approx(
            weight[near].sum() / weight.sum(), abs=0.03), density


@pytest.mark.parametrize("splits", [1, 3])
def test_the_loss_is_that_of_numpy(make_batch, splits):
    batch = make_batch(coils=2)
    method = self_supervised(zero_filled(), share=0.3, splits=splits, density="uniform")
    loss, terms = jax.jit(method.loss)({}, KEY, batch)
    unit, _ = jax.random.split(KEY)
    repeated = jax.tree.map(lambda x: jnp.repeat(x, splits, axis=0), batch.measurement)
    theta, held = jax.device_get(split(unit, repeated, 0.3, "uniform"))
    assert len(held) == 2 * splits
    errors = []
    for lam, full, given in zip(held, repeated.kspace, theta.kspace, strict=True):
        points = np.broadcast_to(lam > 0, full.shape)
        u, v = np.asarray(full)[points], np.asarray(given)[points]
        assert u.size and not v.any()  # zero filling predicts 0 there
        errors.append(sum(np.linalg.norm(u - v, ord=n) / np.linalg.norm(u, ord=n) for n in (1, 2)))
    assert float(loss) == pytest.approx(np.mean(errors), rel=1e-5)
    assert float(terms["heldout"]) == float(loss)


@pytest.mark.parametrize(("name", "options"), [
    ("flat", {}), ("flat", {"space.name": "image", "solver": "imex"}), ("modl", {}),
    ("varnet", {"network.name": "plain"})], ids=["flat", "imex", "modl", "varnet"])
def test_every_method_learns_from_lambda_what_it_makes_of_theta(make_batch, name, options):
    method = build(name, **{"network__channels": 2, "network__pools": 1,
                            "schedule__steps" if name == "flat" else "steps": 2}
                   | {key.replace(".", "__"): value for key, value in options.items()})
    batch = make_batch(coils=2)
    params = noisy(jax.jit(method.init)(KEY, batch), 0.1)
    unit, draw = jax.random.split(KEY)
    theta, held = split(unit, batch.measurement, 0.4)

    def by_hand(params):
        kspace = held * method.reconstruct(params, draw, theta).kspace
        full = held * batch.measurement.kspace
        return jnp.mean(losses.relative_error(prediction=kspace, target=full))

    learner = self_supervised(method)
    (loss, _), grads = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))(params, KEY, batch)
    expected, expected_grads = jax.jit(jax.value_and_grad(by_hand))(params)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    norm = sum(float(jnp.linalg.norm(leaf)) for leaf in jax.tree.leaves(expected_grads))
    apart = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a - b)), grads, expected_grads)
    assert sum(jax.tree.leaves(apart)) < 0.02 * norm > 0


def test_nothing_that_was_not_measured_is_looked_at(make_batch):
    batch = make_batch(coils=2)
    learner = self_supervised(shrunk("flat"))
    params = noisy(jax.jit(learner.init)(KEY, batch), 0.1)
    step = jax.jit(jax.value_and_grad(learner.loss, has_aux=True))
    blind = batch._replace(kspace=jnp.full_like(batch.kspace, jnp.nan),
                           target=jnp.full_like(batch.target, jnp.nan))
    found, expected = step(params, KEY, blind), step(params, KEY, batch)
    assert np.isfinite(expected[0][0])
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_lambda_does_not_reach_the_method():
    """With other samples on Lambda, all that a method is given stays the same."""
    full = measured()
    theta, held = split(KEY, full)
    moved = split(KEY, full._replace(kspace=full.kspace * (1 + 5 * held)))[0]
    jax.tree.map(np.testing.assert_array_equal, theta, moved)
    assert float(mri.intensity_scale(theta)[0, 0, 0, 0]) == float(
        mri.intensity_scale(moved)[0, 0, 0, 0])


@pytest.mark.parametrize(("options", "message"), [
    ({"share": 0.0}, "split_share is 0.0, expected above 0 and below 1"),
    ({"share": 1.0}, "split_share is 1.0, expected"), ({"splits": 0}, "splits is 0"),
    ({"density": "radial"}, "split_density is 'radial', expected one of gaussian, uniform")])
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        self_supervised(zero_filled(), **options)


@pytest.mark.parametrize(("mask", "share", "message"), [
    (np.ones(SHAPE), 0.4, "k-space is fully sampled, or without gaps, expected undersampled"),
    (np.arange(40)[None] > 12, 0.4, "fully sampled, or without gaps"),
    (np.eye(44, 40), 0.4, None),
    (np.eye(44, 40), 0.001, "40 samples lie outside .*expected enough to hold a share of 0.001"),
    (np.eye(44, 40), 0.999, "samples lie outside of the fully sampled center")])
def test_what_cannot_be_split_is_one_line(mask, share, message):
    mask = mask.astype(np.float32)[None, None]
    measurement = Measurement(np.ones((1, 2, *SHAPE), np.complex64) * mask, mask, None)
    if message is None:
        check_split(measurement, share)
        return
    with pytest.raises(InputError, match=message) as caught:
        check_split(measurement, share)
    assert "\n" not in str(caught.value)
