"""Virtual coils and prewhitening: unitary, optimal, white."""

import numpy as np
import pytest

from flatjax.errors import InputError
from flatjax.mri.host import simulate
from flatjax.mri.host.coil_compression import (
    apply_coils,
    compression_matrix,
    noise_covariance,
    whitening_matrix,
)
from tests.support.arrays import complex_normal, smooth_image


def scan(coils=12, shape=(20, 22), slices=2):
    rng = np.random.default_rng(0)
    maps = simulate.birdcage_maps(coils, shape)
    return simulate.host_fft2c(np.stack([maps * smooth_image(rng, shape) for _ in range(slices)]))


def energy(kspace):
    return np.sum(np.abs(kspace) ** 2)


def test_rows_are_orthonormal_and_all_virtual_coils_keep_everything():
    kspace = scan()
    for virtual in (1, 5, 12):
        matrix = compression_matrix(kspace, virtual)
        assert matrix.shape == (virtual, 12) and matrix.dtype == np.complex64
        np.testing.assert_allclose(matrix @ np.conj(matrix.T), np.eye(virtual), atol=1e-6)
    np.testing.assert_allclose(energy(apply_coils(matrix, kspace)), energy(kspace), rtol=1e-5)
    back = apply_coils(np.conj(matrix.T), apply_coils(matrix, kspace))
    np.testing.assert_allclose(back, kspace, atol=1e-5)


def test_no_other_compression_keeps_more():
    kspace = scan()
    virtual = apply_coils(compression_matrix(kspace, 4), kspace)
    powers = [energy(virtual[:, index]) for index in range(4)]
    assert powers == sorted(powers, reverse=True)
    singular = np.linalg.svd(np.moveaxis(kspace, 1, 0).reshape(12, -1), compute_uv=False)
    np.testing.assert_allclose(powers, singular[:4] ** 2, rtol=1e-4)
    assert energy(virtual) > 0.95 * energy(kspace)  # a third of the coils, smooth as they are
    rng = np.random.default_rng(1)
    for _ in range(5):
        other, _ = np.linalg.qr(complex_normal(rng, (12, 4)))
        assert energy(apply_coils(np.conj(other.T), kspace)) < energy(virtual)


def test_unsampled_points_change_nothing_and_stay_empty():
    kspace = scan()
    mask = np.random.default_rng(2).random(kspace.shape[-2:]) < 0.5
    sampled = kspace[..., mask][..., None, :]
    matrix = compression_matrix(mask * kspace, 3)
    other = compression_matrix(sampled, 3)
    np.testing.assert_allclose(np.abs(np.sum(np.conj(matrix) * other, axis=1)), 1, atol=1e-5)
    np.testing.assert_array_equal(apply_coils(matrix, mask * kspace)[..., ~mask], 0)


def test_whitened_noise_has_the_identity_as_covariance():
    rng = np.random.default_rng(3)
    mixing = complex_normal(rng, (5, 5), np.complex128)
    expected = mixing @ np.conj(mixing.T)
    noise = apply_coils(1e-4 * mixing, complex_normal(rng, (5, 100, 200)) / np.sqrt(2))
    covariance = noise_covariance(noise)
    np.testing.assert_allclose(covariance, 1e-8 * expected, atol=0.03e-8 * np.abs(expected).max())
    whitening = whitening_matrix(covariance)
    assert whitening.dtype == np.complex64
    np.testing.assert_array_equal(whitening, np.tril(whitening))
    np.testing.assert_allclose(noise_covariance(apply_coils(whitening, noise)), np.eye(5),
                               atol=1e-3)
    # another noise scan of the same coils is white too, but for its finite length
    again = apply_coils(1e-4 * mixing, complex_normal(rng, (5, 100, 200)) / np.sqrt(2))
    np.testing.assert_allclose(noise_covariance(apply_coils(whitening, again)), np.eye(5),
                               atol=0.03)


def test_whitening_is_what_weighted_least_squares_needs():
    rng = np.random.default_rng(4)
    mixing = complex_normal(rng, (4, 4), np.complex128)
    covariance = mixing @ np.conj(mixing.T)
    whitening = whitening_matrix(covariance)
    np.testing.assert_allclose(np.conj(whitening.T) @ whitening, np.linalg.inv(covariance),
                               rtol=1e-3, atol=1e-4 * np.abs(np.linalg.inv(covariance)).max())


@pytest.mark.parametrize("call, message", [
    (lambda: compression_matrix(np.ones((3, 4, 4)), 4), "4 virtual coils of 3 coils, expected"),
    (lambda: compression_matrix(np.ones((3, 4, 4)), 0), "from 1 to 3"),
    (lambda: compression_matrix(np.ones((3, 4, 4)), 1.5), "1.5 virtual coils"),
    (lambda: compression_matrix(np.ones((3, 4)), 1), r"shape \(3, 4\), expected \[..., coil"),
    (lambda: noise_covariance(np.ones((8, 2, 4))), "8 noise samples of 8 coils"),
    (lambda: whitening_matrix(np.ones((2, 3))), r"shape \(2, 3\), expected a Hermitian"),
    (lambda: whitening_matrix(np.array([[1, 1j], [1j, 1]])), "expected a Hermitian"),
    (lambda: whitening_matrix(np.zeros((2, 2))), "not positive definite"),
])
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
