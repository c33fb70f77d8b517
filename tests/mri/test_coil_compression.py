"""Virtual coils and prewhitening: unitary, optimal, white."""

import numpy as np
import pytest

from flatjax.mri.host import simulate
from flatjax.mri.host.coil_compression import (
    apply_coils,
    compression_matrix,
    noise_covariance,
    whitening,
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


def test_whitened_noise_is_independent_and_as_large_as_before():
    rng = np.random.default_rng(3)
    mixing = complex_normal(rng, (5, 5), np.complex128)
    noise = 1e-4 * mixing @ complex_normal(rng, (5, 20000)) / np.sqrt(2)
    covariance = noise_covariance(noise)
    np.testing.assert_allclose(covariance, 1e-8 * mixing @ np.conj(mixing.T), rtol=0.1, atol=3e-10)
    matrix, level = whitening(covariance)
    assert level**2 == pytest.approx(np.mean(np.abs(noise) ** 2))
    white = apply_coils(matrix, noise[:, None])[:, 0]
    np.testing.assert_allclose(noise_covariance(white), level**2 * np.eye(5), atol=1e-3 * level**2)


def test_a_noise_scan_that_does_not_tell_gives_none():
    noise = complex_normal(np.random.default_rng(4), (4, 100))
    assert noise_covariance(noise) is not None
    assert noise_covariance(noise[:, :39]) is None
    noise[3] = 2j * noise[0]
    assert noise_covariance(noise) is None
    noise[3] = 0
    assert noise_covariance(noise) is None
    assert noise_covariance(noise[:, :0]) is None
