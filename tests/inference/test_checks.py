"""Wrong forms of k-space are named with the call that mends them, and correct ones pass."""

import re

import numpy as np
import pytest

from flatjax import config
from flatjax.errors import InputError
from flatjax.inference.checks import check_kspace
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.simulate import complex_noise, host_ifft2c

SHAPE = (128, 128)


@pytest.fixture(scope="module")
def scans():
    """Slices of a head, of one coil and of eight, with noise: `{name: [coil, ky, kx]}`."""
    rng, found = np.random.default_rng(0), {}
    for name in ("heads", "icbm"):
        for coils in (1, 8):
            dataset = config.make_dataset(config.experiment(data=config.data(name, coils=coils)))
            sample = dataset.validation[0].load()[1]
            kspace = sample.kspace[sample.kspace.any(axis=(1, 2))]
            found[f"{name} {coils}"] = (kspace + complex_noise(rng, kspace.shape, 0.01))
    return found


def masks(shape):
    yield np.ones((1, shape[1]))
    for kind, acceleration, center in (
            ("random", 4, 0.08), ("equispaced", 8, 0.04), ("gaussian1d", 5, 0.08),
            ("gaussian2d", 6, 0.03), ("poisson", 8, 0.02), ("radial", 6, 0.0)):
        yield make_mask(kind, shape, acceleration, center, 1)
    yield make_mask("random", shape[::-1], 4, 0.08, 2).T
    partial = np.ones(shape)
    partial[:, :40] = 0
    yield partial
    yield partial.T[:shape[0], :shape[1]] if shape[0] == shape[1] else partial
    yield partial * make_mask("equispaced", shape, 3, 0.1, 3)


def blank(kspace):
    return complex_noise(np.random.default_rng(1), kspace.shape, 1.0)


CORRECT = {
    "as it is": lambda k: k, "odd": lambda k: k[:, 1:, 1:],
    "transposed": lambda k: k.swapaxes(1, 2),
    "noise": blank, "noisy": lambda k: k + 0.03 * np.abs(k).max() * blank(k),
    "padded": lambda k: np.pad(k, ((0, 0), (20, 20), (31, 30))),
    "small": lambda k: k[:, 34:94, 44:84], "filtered": lambda k: k * np.hanning(130)[1:-1],
    "integers": lambda k: np.round(2000 / np.abs(k).max() * k.view(np.float32)).view(np.complex64)}


@pytest.mark.parametrize("form", CORRECT)
def test_no_correct_slice_is_doubted(scans, form):
    for kspace in scans.values():
        kspace = CORRECT[form](kspace).astype(np.complex64)
        for mask in masks(kspace.shape[1:]):
            assert check_kspace((mask * kspace).astype(np.complex64)) == []
    assert check_kspace(np.zeros((2, 8, 8), np.complex64)) == []


def swapped(kspace, *axes):
    """As of fftshift(fft2(image)) along these axes."""
    image = np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes), axes=axes), axes)
    return np.fft.fftshift(np.fft.fftn(image, axes=axes), axes)


def transformed(kspace, *axes):
    return np.fft.fftshift(np.fft.ifftn(np.fft.ifftshift(kspace, axes), axes=axes, norm="ortho"),
                           axes)


LINES, POINTS = [0, 1, 3, 7], range(11)  # masks that go with a form
WRONG = {
    "swapped kx": (POINTS, lambda k: swapped(k, -1), "brighter at its edge .*along kx,"),
    "swapped ky": (POINTS, lambda k: swapped(k, -2), "brighter at its edge .*along ky,"),
    "swapped": (POINTS, lambda k: swapped(k, -2, -1), "along ky and kx"),
    "swapped, odd": (POINTS, lambda k: swapped(k[:, 1:, 1:], -2, -1), "along ky and kx"),
    "edge kx": (POINTS, lambda k: np.fft.ifftshift(k, -1), "at the edge of kx"),
    "edge ky": (POINTS, lambda k: np.fft.ifftshift(k, -2), "at the edge of ky"),
    "edge": (POINTS, lambda k: np.fft.ifftshift(k, (-2, -1)), "at the edge of ky and kx"),
    "image along ky": ([0, 1, 2, 3], lambda k: transformed(k, -2), "image along ky;"),
    "image along kx": ([0, 7], lambda k: transformed(k, -1), "image along kx;"),
    "image": ([0], lambda k: transformed(k, -2, -1), "image along ky and kx;"),
    "coils last": (POINTS, lambda k: np.moveaxis(k, 0, -1), "coils were the last axis"),
}


@pytest.mark.parametrize("form", WRONG)
def test_a_wrong_form_is_named_with_the_call_that_mends_it(scans, form):
    which, change, message = WRONG[form]
    for scan in scans.values():
        for index, mask in enumerate(masks(SHAPE)):
            if index not in which:
                continue
            given = mask * scan
            kspace = change(given).astype(np.complex64)
            if form.startswith("swapped"):  # transforms leave no zeros
                kspace *= mask[-kspace.shape[1]:, -kspace.shape[2]:]
            try:
                (found,) = check_kspace(kspace)
            except InputError as error:
                found = str(error)
            assert re.search(message, found), (index, found)
            call = found[found.index("kspace * " if "by kspace" in found else "numpy."):]
            mended = eval(call, {"numpy": np, "kspace": kspace})
            if mended.shape == given.shape:
                np.testing.assert_allclose(np.abs(host_ifft2c(mended)), np.abs(host_ifft2c(given)),
                                           atol=1e-4 * np.abs(host_ifft2c(given)).max())
            assert check_kspace(mended.astype(np.complex64)) == []


def test_a_center_that_is_not_in_the_middle_is_named_with_the_zeros_to_add(scans):
    whole = scans["heads 8"]
    (found,) = check_kspace(whole[:, 40:])
    assert re.search(r"center about ky = 2[345] of 88, expected at n // 2", found)
    filled = eval(found[found.index("numpy.pad"):].split(" does")[0],
                  {"numpy": np, "kspace": whole[:, 40:]})
    assert abs(filled.shape[1] - 128) <= 2 and check_kspace(filled) == []


@pytest.mark.parametrize("name", ["heads", "icbm"])
def test_slices_of_one_coil_are_told_from_coils(name):
    dataset = config.make_dataset(config.experiment(data=config.data(name, coils=1)))
    slices = np.concatenate([one.kspace for one in dataset.validation[0].load()])
    for mask in list(masks(SHAPE))[:2]:
        (found,) = check_kspace((mask * slices).astype(np.complex64))
        assert "different objects; slices of one coil are handed over as kspace[:, None]" in found
