"""Loss terms: values against independent implementations, gradients, degenerate images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import losses
from flatjax.errors import InputError
from flatjax.evaluation import metrics
from tests.support.arrays import complex_normal


def images(shape=(3, 17, 20), seed=0):
    rng = np.random.default_rng(seed)
    target = rng.random(shape).astype(np.float32)
    return target, (target + 0.2 * rng.normal(size=shape)).astype(np.float32)


def test_ssim_is_the_metric():
    target, prediction = images()
    expected = [metrics.ssim(prediction=p[None], target=t[None])
                for t, p in zip(target, prediction, strict=True)]
    np.testing.assert_allclose(losses.ssim(prediction=prediction, target=target), expected,
                               atol=1e-5)
    np.testing.assert_allclose(losses.ssim(prediction=target, target=target), 1, atol=1e-6)


def test_ssim_gradient_by_finite_differences():
    target, prediction = images((1, 9, 10))
    with jax.enable_x64(True):
        target, prediction = (jnp.asarray(x, jnp.float64) for x in (target, prediction))

        def total(prediction):
            return losses.ssim(prediction=prediction, target=target).sum()

        gradient = jax.grad(total)(prediction)
        rng = np.random.default_rng(1)
        for _ in range(5):
            direction = rng.normal(size=prediction.shape)
            step = 1e-6
            ahead, behind = (total(prediction + s * direction) for s in (step, -step))
            expected = float(ahead - behind) / (2 * step)
            assert float(jnp.vdot(gradient, direction)) == pytest.approx(expected, rel=1e-6)


def test_all_terms_are_finite_on_empty_images():
    zero = jnp.zeros((2, 8, 8))
    states = jnp.zeros((3, 2, 8, 8), jnp.complex64)
    for term in (losses.ssim, losses.l1):
        value, pullback = jax.vjp(lambda x, term=term: term(prediction=x, target=zero), zero)
        np.testing.assert_allclose(value, value[0])
        assert np.isfinite(value).all() and np.isfinite(pullback(jnp.ones(2))[0]).all()
    value, pullback = jax.vjp(lambda x: losses.alignment(
        prediction=x, target=states, delta=jnp.full(3, -1 / 3)), states)
    np.testing.assert_array_equal(value, 0)
    assert np.isfinite(pullback(jnp.ones(2))[0]).all()


def test_differences_of_complex_values_are_moduli():
    rng = np.random.default_rng(0)
    a, b = complex_normal(rng, (2, 4, 5)), complex_normal(rng, (2, 4, 5))
    modulus = np.abs(a - b)
    np.testing.assert_allclose(losses.l1(prediction=a, target=b), modulus.mean(axis=(1, 2)),
                               rtol=1e-5)
    np.testing.assert_allclose(losses.squared_error(prediction=a, target=b),
                               (modulus**2).mean(axis=(1, 2)), rtol=1e-5)


def test_alignment_is_the_difference_of_velocities():
    rng = np.random.default_rng(0)
    states, ideal = complex_normal(rng, (5, 2, 3, 3)), complex_normal(rng, (5, 2, 3, 3))
    delta = np.array([-0.4, -0.3, -0.2, -0.1])
    predicted = (states[1:] - states[:-1]) / delta[:, None, None, None]
    wanted = (ideal[1:] - states[:-1]) / delta[:, None, None, None]
    each = np.abs(predicted - wanted).mean(axis=(2, 3))
    found = partial(losses.alignment, prediction=states[1:], target=ideal[1:], delta=delta)
    np.testing.assert_allclose(found(), each.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found(average="integral"),
                               (np.abs(delta)[:, None] * each).sum(axis=0), rtol=1e-5)
    with pytest.raises(InputError, match="average is 'sum', expected one of mean, integral"):
        found(average="sum")


def test_a_loss_without_terms_is_refused():
    with pytest.raises(InputError, match=r"terms \(ssim, l1\) are all 0, expected one above"):
        losses.image(ssim=0.0, l1=0.0)


def test_total_loss_leaves_terms_of_weight_zero_uncomputed():
    def never():
        raise AssertionError

    total, terms = losses.total_loss({"a": 2.0, "b": 0.0},
                                     {"a": lambda: jnp.asarray([1.0, 3.0]), "b": never})
    assert float(total) == 4.0 and terms.keys() == {"a"} and float(terms["a"]) == 2.0
    with pytest.raises(InputError, match="term of the loss is 'c', expected one of a, b"):
        losses.total_loss({"c": 1.0}, {"a": never, "b": never})


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 8, 8\), target \(8, 8\)"):
        losses.l1(prediction=jnp.zeros((2, 8, 8)), target=jnp.zeros((8, 8)))
    with pytest.raises(ValueError, match="smaller than the SSIM window of 7"):
        losses.ssim(prediction=jnp.zeros((1, 6, 9)), target=jnp.zeros((1, 6, 9)))


def test_a_relative_error_is_that_of_numpy_and_is_safe_at_zero():
    rng = np.random.default_rng(0)
    prediction, target = complex_normal(rng, (2, 3, 4, 5)), complex_normal(rng, (2, 3, 4, 5))
    expected = [sum(np.linalg.norm((p - t).ravel(), n) / np.linalg.norm(t.ravel(), n)
                    for n in (1, 2)) for p, t in zip(prediction, target, strict=True)]
    found = losses.relative_error(prediction=prediction, target=target)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for other in (target, np.zeros_like(target)):
        value, gradient = jax.value_and_grad(lambda x, other=other: losses.relative_error(
            prediction=x * other, target=other).sum())(jnp.float32(1))
        assert value == 0 and np.isfinite(gradient)
