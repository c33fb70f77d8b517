"""ESPIRiT against sigpy's, against known coils, and what it refuses; the calibration box."""

from pathlib import Path

import jax
import numpy as np
import pytest

from flatjax.errors import InputError
from flatjax.mri.espirit import espirit
from flatjax.mri.host import simulate
from flatjax.mri.host.masks import center_mask, make_mask
from flatjax.mri.sampling import calibration_size, central
from tests.golden.make_golden import ESPIRIT, coils_problem
from tests.support.arrays import complex_normal, smooth_image

BOX = (ESPIRIT["calib_width"],) * 2
OPTIONS = {"kernel": ESPIRIT["kernel_width"], "threshold": ESPIRIT["thresh"]}


@pytest.mark.parametrize("wide", [False, True])
def test_maps_and_eigenvalues_are_sigpys(wide):
    """Also where JAX enables 64 bits."""
    with np.load(Path(__file__).parents[1] / "golden" / "sigpy_espirit.npz") as golden:
        theirs, expected = golden["maps"], golden["eigenvalue"]
    with jax.enable_x64(wide):
        maps, eigenvalue = espirit(coils_problem(), BOX, crop=0, **OPTIONS)
    assert maps.dtype == np.complex64 and eigenvalue.dtype == np.float32
    inside = expected > 0.95
    assert 0.3 < inside.mean() < 0.9
    np.testing.assert_allclose(eigenvalue[inside], expected[inside], atol=1e-4)
    # background eigenvalues lie close together, and both power iterations stop before the end
    np.testing.assert_allclose(eigenvalue, expected, atol=0.03)
    agreement = np.abs(np.sum(np.conj(maps) * theirs, axis=0))  # whatever the phase convention
    assert agreement[inside].min() > 1 - 1e-4


def test_known_coils_are_found_and_explain_what_was_not_read():
    rng = np.random.default_rng(0)
    image = smooth_image(rng, (48, 40)) * rng.integers(1, 5, (48, 40))
    coils = simulate.birdcage_maps(6, image.shape)
    kspace = simulate.host_fft2c(coils * image)
    maps, eigenvalue = espirit(kspace, (20, 20), crop=0.9)
    inside = np.abs(image) > 0.4
    assert np.all(eigenvalue[inside] > 0.99)
    agreement = np.abs(np.sum(np.conj(maps) * coils, axis=0))
    assert agreement[inside].min() > 0.998
    explained = maps * np.sum(np.conj(maps) * simulate.host_ifft2c(kspace), axis=0)
    error = np.linalg.norm(explained - coils * image) / np.linalg.norm(image)
    assert error < 0.03


def test_maps_are_unit_or_zero_and_make_the_smooth_image_real():
    kspace = coils_problem()
    maps, eigenvalue = espirit(kspace, BOX, crop=0.9, **OPTIONS)
    power = np.sum(np.abs(maps) ** 2, axis=0)
    np.testing.assert_allclose(power, np.asarray(eigenvalue) >= 0.9, atol=1e-5)
    rows, columns = (central(n, 16) for n in kspace.shape[-2:])
    window = np.zeros(kspace.shape[-2:], np.float32)
    frequency = np.cos(np.pi * (np.arange(16) - 8) / 17) ** 2
    window[rows, columns] = np.outer(frequency, frequency)
    combined = np.sum(np.conj(maps) * simulate.host_ifft2c(window * kspace), axis=0)
    np.testing.assert_allclose(np.angle(combined[power > 0.5]), 0, atol=1e-3)


def test_batches_are_slices_and_scale_phase_and_the_rest_of_k_space_do_not_matter():
    kspace = coils_problem()
    rows, columns = (central(n, 16) for n in kspace.shape[-2:])
    only = np.zeros_like(kspace)
    only[:, rows, columns] = kspace[:, rows, columns]
    one = espirit(kspace, BOX, **OPTIONS)
    many = espirit(np.stack([only, 1e-7 * kspace]), BOX, **OPTIONS)
    for index in range(2):
        for expected, found in zip(one, many, strict=True):
            np.testing.assert_allclose(found[index], expected, atol=2e-3)
    turned = espirit(kspace * np.complex64(1j), BOX, **OPTIONS)
    image, other = (np.sum(np.conj(found.maps) * simulate.host_ifft2c(given), axis=0)
                    for found, given in ((one, kspace), (turned, kspace * np.complex64(1j))))
    np.testing.assert_allclose(image, other, atol=2e-3)


def test_an_empty_slice_has_no_maps():
    maps, eigenvalue = espirit(np.zeros((3, 24, 24), np.complex64), (12, 12), kernel=4)
    np.testing.assert_array_equal(maps, 0)
    np.testing.assert_array_equal(eigenvalue, 0)


@pytest.mark.parametrize("shape, box, options, message", [
    ((2, 32, 32), (5, 8), {}, "calibration box of 5 x 8 .* expected at least the kernel's 6"),
    ((2, 32, 32), (8, 33), {}, "calibration box of 8 x 33 in k-space of 32 x 32"),
    ((2, 32, 32), (8, 8), {"kernel": 1}, "calibration box of 8 x 8"),
])
def test_what_cannot_be_calibrated_is_refused(shape, box, options, message):
    with pytest.raises(InputError, match=message):
        espirit(np.ones(shape, np.complex64), box, **options)


@pytest.mark.parametrize("kind, shape", [("random", (30, 40)), ("random", (1, 37)),
                                         ("poisson", (31, 40))])
def test_the_calibration_box_holds_the_center_of_a_mask(kind, shape):
    center = center_mask(kind, shape, 0.08)
    assert [int(n) for n in calibration_size(center)] == [center.any(1).sum(), center.any(0).sum()]
    mask = np.stack([make_mask(kind, shape, 4, 0.08, seed) for seed in range(3)])
    for found in (calibration_size(mask), jax.jit(calibration_size)(mask)):
        for one, rows, columns in zip(mask, *found, strict=True):
            box = one[central(len(one), rows), central(shape[1], columns)]
            assert box.shape == (rows, columns) and box.all()
            assert box.size >= center.sum()


def test_the_calibration_box_is_the_largest():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = rng.random((6, 7)) < 0.9
        boxes = [r * c for r in range(1, 7) for c in range(1, 8)
                 if mask[central(6, r), central(7, c)].all()]
        rows, columns = calibration_size(mask)
        assert rows * columns == max(boxes, default=0)
        if boxes:
            assert mask[central(6, rows), central(7, columns)].all()


def test_noise_alone_gives_finite_maps():
    kspace = complex_normal(np.random.default_rng(0), (3, 24, 24))
    maps, eigenvalue = espirit(kspace, (12, 12), kernel=4, crop=0)
    assert np.isfinite(maps).all() and np.isfinite(eigenvalue).all()
