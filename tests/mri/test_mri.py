"""The physics: transforms, coils, forward model, simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import mri
from flatjax.mri.host import simulate
from tests.support.arrays import complex_normal

SHAPES = [(8, 8), (7, 9), (8, 5), (1, 6)]


def dot_test(operator, adjoint, rng, domain, codomain, tolerance=1e-5):
    """<A x, y> == <x, A^H y> for random x and y."""
    x, y = complex_normal(rng, domain), complex_normal(rng, codomain)
    ax, ahy = operator(x), adjoint(y)
    assert ax.shape == codomain and ahy.shape == domain
    assert ax.dtype == ahy.dtype == jnp.complex64
    left, right = np.vdot(y, ax), np.vdot(ahy, x)
    assert abs(left - right) <= tolerance * np.linalg.norm(ax) * np.linalg.norm(y)


@pytest.mark.parametrize("shape", SHAPES)
def test_fourier_is_numpys_centered_orthonormal_transform(shape):
    rng = np.random.default_rng(0)
    x = complex_normal(rng, (2, *shape))
    expected = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(x, axes=(1, 2)), axes=(1, 2),
                                           norm="ortho"), axes=(1, 2))
    np.testing.assert_allclose(mri.fft2c(x), expected, atol=1e-5)
    np.testing.assert_allclose(mri.ifft2c(mri.fft2c(x)), x, atol=1e-5)
    dot_test(mri.fft2c, mri.ifft2c, rng, (2, *shape), (2, *shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_origin_is_at_half_the_size(shape):
    origin = tuple(n // 2 for n in shape)
    delta = jnp.zeros(shape, jnp.complex64).at[origin].set(1)
    flat = np.full(shape, 1 / np.sqrt(np.prod(shape)))
    np.testing.assert_allclose(mri.fft2c(delta), flat, atol=1e-6)
    np.testing.assert_allclose(mri.fft2c(flat.astype(np.complex64)), delta, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("coils", [1, 3])
def test_operators_and_adjoints_agree(shape, coils):
    rng = np.random.default_rng(1)
    image, kspace = (2, *shape), (2, coils, *shape)
    maps = complex_normal(rng, kspace)
    for mask_shape in [(2, 1, 1, shape[1]), (2, 1, *shape)]:
        mask = (rng.random(mask_shape) < 0.5).astype(np.float32)
        dot_test(lambda x: mri.expand(x, maps), lambda k: mri.reduce(k, maps), rng, image, kspace)
        dot_test(lambda x, m=mask: mri.forward(x, m, maps),
                 lambda k, m=mask: mri.adjoint(k, m, maps), rng, image, kspace)


@pytest.mark.parametrize("coils", [1, 2, 8])
@pytest.mark.parametrize("shape", [(12, 12), (11, 14)])
def test_birdcage_maps_are_normalized_and_reduce_inverts_expand(coils, shape):
    maps = simulate.birdcage_maps(coils, shape)
    assert maps.shape == (coils, *shape) and maps.dtype == np.complex64
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=0), 1, rtol=1e-5)
    image = complex_normal(np.random.default_rng(0), (1, *shape))
    np.testing.assert_allclose(mri.reduce(mri.expand(image, maps[None]), maps[None]), image,
                               atol=1e-5)
    if coils > 1:
        brightest = np.abs(maps).reshape(coils, -1).argmax(axis=1)
        assert len(set(brightest)) == coils


def test_combine_in_both_manners():
    kspace = complex_normal(np.random.default_rng(0), (2, 4, 6, 7))
    maps = simulate.birdcage_maps(4, (6, 7))[None].repeat(2, 0)
    np.testing.assert_allclose(mri.combine(kspace, maps, "sense"),
                               np.abs(mri.reduce(kspace, maps)), rtol=1e-6)
    np.testing.assert_allclose(
        mri.combine(kspace, maps, "rss"),
        np.sqrt(np.sum(np.abs(mri.ifft2c(kspace)) ** 2, axis=1)), rtol=1e-5)
    with pytest.raises(ValueError, match="combine is 'mean', expected one of sense, rss"):
        mri.combine(kspace, maps, "mean")


@pytest.mark.parametrize("kind", ["sense", "rss"])
def test_magnitudes_have_finite_gradients_at_zero(kind):
    kspace = jnp.zeros((1, 2, 4, 4), jnp.complex64)
    gradient = jax.grad(lambda k: mri.combine(k, jnp.ones_like(k), kind).sum())(kspace)
    np.testing.assert_array_equal(gradient, 0)


def test_magnitude_gradient_elsewhere_is_the_unit_phasor():
    z = jnp.asarray([3 + 4j, -2j], jnp.complex64)
    gradient = jax.grad(lambda z: mri.safe_abs(z).sum())(z)
    np.testing.assert_allclose(gradient, np.conj(z) / np.abs(z), rtol=1e-6)


def test_intensity_scale_is_the_zero_filled_maximum_and_one_for_nothing(make_batch):
    measurement = make_batch(coils=2).measurement
    zero_filled = np.abs(mri.reduce(measurement.kspace, measurement.maps))
    scale = mri.intensity_scale(measurement)
    np.testing.assert_allclose(scale[:, 0, 0, 0], zero_filled.max(axis=(1, 2)), rtol=1e-6)
    empty = measurement._replace(kspace=0 * measurement.kspace)
    np.testing.assert_array_equal(mri.intensity_scale(empty), 1)


def test_simulated_noise_has_the_given_deviation_and_falls_on_samples_only():
    rng = np.random.default_rng(0)
    noise = simulate.complex_noise(rng, (4, 200, 200), 0.3)
    assert np.std(noise) == pytest.approx(0.3, rel=0.01)
    assert np.std(noise.real) == pytest.approx(np.std(noise.imag), rel=0.02)
    kspace, mask = complex_normal(rng, (4, 200, 200)), (rng.random((1, 200)) < 0.5) * 1.0
    measured = simulate.acquire(kspace, mask, noise)
    np.testing.assert_allclose(measured, mask * (kspace + noise), rtol=1e-6)
    assert measured.dtype == np.complex64


@pytest.mark.parametrize("shape", [(64, 64), (33, 70)])
def test_smooth_fields_are_smooth_and_scaled(shape):
    field = simulate.smooth_field(np.random.default_rng(0), shape, 0.4)
    assert field.shape == shape
    assert field.std() == pytest.approx(1, rel=1e-3)
    assert np.abs(np.diff(field, axis=0)).max() < 0.5
    phase = simulate.image_phase(np.random.default_rng(0), shape, 0.5)
    np.testing.assert_allclose(np.abs(phase), 1, rtol=1e-5)
    assert np.angle(phase).std() == pytest.approx(0.5, rel=0.05)


def test_crop_takes_the_center_and_refuses_to_grow():
    image = np.arange(30).reshape(5, 6)
    np.testing.assert_array_equal(mri.center_crop(image, (3, 2)), image[1:4, 2:4])
    with pytest.raises(ValueError, match="cannot crop 5 x 6 to 6 x 6"):
        mri.center_crop(image, (6, 6))
