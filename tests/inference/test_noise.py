"""Prewhitening by the noise scan: what it is worth, and that the level of the noise is right."""

import numpy as np
import pytest

from flatjax.data.acquisition import Acquisition
from flatjax.data.io.kspace import open_scan
from flatjax.inference.measure import measure
from flatjax.mri.host.simulate import birdcage_maps, host_fft2c, host_ifft2c
from tests.support.arrays import complex_normal, smooth_image
from tests.support.kspace_fixture import write_ismrmrd

COILS, SHAPE, SIGMA = 6, (48, 40), 0.02


def correlated(rng, count):
    """Noise `[coil, count]` of coils that are up to ten times as noisy, and have neighbors'."""
    root = np.diag(SIGMA * np.geomspace(1, 10, COILS)) @ (
        np.eye(COILS) + 0.6 * np.eye(COILS, k=1) * np.exp(1j))
    return root @ complex_normal(rng, (COILS, count)) / np.sqrt(2)


@pytest.fixture
def scans(tmp_path):
    """The same scan without and with noise, and its maps in a file."""
    rng = np.random.default_rng(0)
    maps = birdcage_maps(COILS, SHAPE)
    clean = host_fft2c(maps * smooth_image(rng, SHAPE))[None]
    noise = correlated(rng, clean[0, 0].size).reshape(COILS, *SHAPE)
    scan = correlated(rng, 20000)
    np.save(tmp_path / "maps.npy", maps)
    options = {"shift": 0, "late": 0, "lines": range(SHAPE[1]), "recon": SHAPE, "noise": scan,
               "change": lambda one: setattr(one, "sample_time_us", 8.0)}
    return [open_scan(write_ismrmrd(tmp_path / f"{name}.h5", values.astype(np.complex64),
                                    **options))
            for name, values in (("clean", clean), ("noisy", clean + noise))]


def measured(scan, tmp_path):
    one, = measure(scan, Acquisition(), maps=tmp_path / "maps.npy")
    return one


def sense(one):
    """The image, all of whose k-space is sampled, in the unit of the data."""
    kspace, _, maps, _ = one.measurement
    return one.scale * np.sum(np.conj(maps) * host_ifft2c(kspace), axis=0)


def test_the_noise_of_a_measurement_is_known_and_alike_in_all_coils(scans, tmp_path):
    clean, noisy = (measured(scan, tmp_path) for scan in scans)
    # each scan is turned by a phase
    turn = np.vdot(noisy.measurement.kspace, clean.measurement.kspace)
    noise = noisy.scale * noisy.measurement.kspace * turn / abs(turn) \
        - clean.scale * clean.measurement.kspace
    level = noisy.scale * noisy.measurement.noise
    samples = noise.reshape(COILS, -1)
    covariance = samples @ samples.conj().T / samples.shape[1]
    np.testing.assert_allclose(covariance, level**2 * np.eye(COILS), atol=0.1 * level**2)
    assert np.trace(covariance).real / COILS == pytest.approx(level**2, rel=0.03)
    # k-space keeps its unit: the mean variance of the coils is what it was
    assert level**2 == pytest.approx(np.trace(scans[1].noise).real / COILS, rel=1e-5)


def test_prewhitening_makes_the_image_less_noisy(scans, tmp_path):
    errors = []
    for white in (True, False):
        clean, noisy = (sense(measured(scan if white else scan._replace(noise=None), tmp_path))
                        for scan in scans)
        errors.append(np.linalg.norm(np.abs(noisy) - np.abs(clean)) / np.linalg.norm(clean))
    assert errors[0] < 0.5 * errors[1]
