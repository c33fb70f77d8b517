"""Compressed sensing against sigpy's, its wavelets against PyWavelets', and its one parameter."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import mri
from flatjax.errors import InputError
from flatjax.methods import zero_filled
from flatjax.methods.classical import compressed_sensing
from flatjax.mri import Measurement, wavelets
from tests.golden.make_golden import (
    SPARSE_COILS,
    SPARSE_LAM,
    WAVELET_SHAPES,
    complex_image,
    sparse_problem,
)
from tests.support.build import build
from tests.support.checks import KEY, check_contract, check_gradient, reconstruct

with np.load(Path(__file__).parents[2] / "golden" / "sigpy_wavelet.npz") as _FILE:
    GOLDEN = dict(_FILE)


def measured(name):
    image, kspace, mask, maps = sparse_problem(name)
    return image, Measurement(kspace[None], mask[None, None], maps[None])


def relative(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


@pytest.mark.parametrize("shape", WAVELET_SHAPES)
def test_coefficients_are_pywavelets(shape):
    coefficients = wavelets.forward(jnp.asarray(complex_image(shape)), 3)
    assert relative(coefficients, GOLDEN["coefficients_{}_{}".format(*shape)]) < 1e-6


@pytest.mark.parametrize("shape, levels", [((32, 48), 4), ((16, 8), 3), ((37, 50), 3), ((9, 9), 0)])
def test_the_inverse_is_the_adjoint(shape, levels):
    image = jnp.asarray(complex_image((2, *shape)))
    coefficients = wavelets.forward(image, levels)
    other = jnp.asarray(complex_image(coefficients.shape)) + 1
    np.testing.assert_allclose(wavelets.inverse(coefficients, shape, levels), image, atol=1e-5)
    assert np.vdot(coefficients, other) == pytest.approx(
        np.vdot(image, wavelets.inverse(other, shape, levels)), rel=1e-4)
    assert coefficients.shape[1:] == wavelets.padded_shape(shape, levels)
    assert relative(jnp.linalg.norm(coefficients), jnp.linalg.norm(image)) < 1e-6


@pytest.mark.parametrize("name", SPARSE_COILS)
def test_reconstruction_is_sigpys(name):
    """On the scale of the data, as sigpy has it: ours is relative to the zero-filled maximum."""
    image, measurement = measured(name)
    scale = float(mri.intensity_scale(measurement).squeeze())
    method = compressed_sensing.make(steps=40, levels=3, lam=SPARSE_LAM / scale)
    result = reconstruct(method, method.init(KEY, None), measurement)
    found = mri.reduce(result.kspace, measurement.maps)[0]
    assert relative(found, GOLDEN[name]) < 1e-4
    # sigpy's own app pads where we wrap around, a redundant transform that small images gain by.
    app, zero = GOLDEN[f"{name}_app"], mri.reduce(measurement.kspace, measurement.maps)[0]
    assert relative(found, image) < 1.2 * relative(app, image) < relative(zero, image)
    np.testing.assert_allclose(result.image[0], np.abs(found), atol=1e-5)
    assert result.nfe == 0 and result.trajectory.shape[0] == 41
    # the same numbers, which XLA may round differently where it fuses them with others
    np.testing.assert_allclose(result.trajectory[-1], result.kspace, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.trajectory[0], measurement.kspace, atol=1e-6)


def test_the_proximal_operator_minimises():
    """No small step from `prox(v)` lowers `1/2 ||x - v||^2 + threshold ||W x||_1`."""
    image = jnp.asarray(complex_image((1, 16, 24)))

    def objective(x):
        return (0.5 * jnp.sum(jnp.abs(x - image) ** 2)
                + 0.7 * jnp.sum(jnp.abs(wavelets.forward(x, 2))))

    best = compressed_sensing.sparser(image, 0.7, 2)
    for seed in range(8):
        step = 1e-1 * jax.random.normal(jax.random.key(seed), image.shape, jnp.complex64)
        assert objective(best + step) > objective(best) and objective(best - step) > objective(best)


def test_the_weight_of_sparsity_is_learned(make_batch):
    """Its gradient is that of finite differences, and leads from both sides to a better weight."""
    batch = make_batch(coils=2)
    method = compressed_sensing.make(steps=8, levels=2)
    loss = jax.jit(lambda log_lam: method.loss({"log_lam": log_lam}, KEY, batch)[0])
    slope = jax.grad(loss)
    for lam in (1e-3, 3e-2):
        at = jnp.log(lam)
        numeric = float(loss(at + 0.02) - loss(at - 0.02)) / 0.04
        assert float(slope(at)) == pytest.approx(numeric, rel=0.05)
    assert slope(jnp.log(1.0)) > 0


def test_what_every_method_keeps(make_batch):
    batch = make_batch(coils=2)
    method = compressed_sensing.make(steps=4, levels=2, lam=0.02)
    check_gradient(method, batch, ("ssim", "l1"))
    check_contract(method, batch)


def test_without_sparsity_it_is_zero_filling(make_batch):
    batch = make_batch()
    method = compressed_sensing.make(steps=3, levels=0, lam=1e-8)
    result = reconstruct(method, method.init(KEY, batch), batch.measurement)
    expected = zero_filled().reconstruct({}, KEY, batch.measurement).image
    np.testing.assert_allclose(result.image, expected, atol=1e-5)


def test_levels_end_at_a_pixel():
    assert wavelets.forward(jnp.ones((1, 16, 24)), 4).shape == (1, 16, 32)
    with pytest.raises(InputError, match="levels is 5, expected at most 4 for images of 16 x 24"):
        wavelets.forward(jnp.ones((1, 16, 24)), 5)


@pytest.mark.parametrize("options", [{"steps": 0}, {"levels": -1}, {"lam": 0.0},
                                     {"combine": "sos"}])
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        build("compressed_sensing", **options)
