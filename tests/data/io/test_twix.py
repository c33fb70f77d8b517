"""Siemens raw files: what was read comes back, placed, with its noise; one line for what cannot."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from flatjax.data.io.kspace import open_scan
from flatjax.errors import InputError
from flatjax.mri.host.simulate import host_fft2c, host_ifft2c
from tests.support.arrays import complex_normal
from tests.support.kspace_fixture import scan_of
from tests.support.twix_fixture import readout, write_twix

SHARED = Path(os.environ.get("FLATJAX_SHARED", Path(__file__).parents[4] / "shared"))
PHANTOM = SHARED / "data" / "kspace" / "twixtools_gre_phantom.dat"
BASE, LINES = 24, 20


@pytest.fixture
def twixtools():
    return pytest.importorskip("twixtools")


def read(scan):
    return np.stack(list(scan.read(range(scan.shape[0]))))


def oversampled(values):
    """k-space `[..., ky, kx]` of twice the field of view along ky, whose samples keep their size.

    An object lies in the part that is to be cut off, too.
    """
    image = host_ifft2c(values) * np.sqrt(2)
    outside = image[..., ::-1, :] * 3
    half = image.shape[-2] // 2
    return host_fft2c(np.concatenate([outside[..., :half, :], image, outside[..., half:, :]], -2))


def readouts(values, lines=range(LINES), **options):
    """Readouts of one slice `[coil, ky, kx]` at twice the sampling."""
    wide = oversampled(values)
    return [readout(wide[:, :, line], line, center_line=LINES // 2, **options) for line in lines]


def test_oversampling_is_removed_and_averages_slices_and_repetitions_are_sorted(
        tmp_path, twixtools):
    values = scan_of(slices=4)[0]
    stored = [one for s in (2, 0, 1) for factor in (1.5, 0.5)
              for one in readouts(factor * values[s], slice=s, position=(1, -2, 5 * s))]
    stored += [one for s in range(3) for one in readouts(
        2 * values[s], slice=s, repetition=1, position=(1, -2, 5 * s))]
    scan = open_scan(write_twix(tmp_path / "scan.dat", stored, base=BASE, lines=LINES,
                                phase_fov=100.0))
    assert scan.form == "Siemens .dat" and scan.frames == 2 and scan.shape == (6, 4, BASE, LINES)
    expected = np.concatenate([values[:3], 2 * values[:3]])
    np.testing.assert_allclose(read(scan), expected, atol=2e-6 * np.abs(values).max())
    assert scan.spacing == pytest.approx((5, 200 / 24, 5))
    # the quaternion (1, 0, 0, 0) has phase along x, read along y, and Siemens' images run against
    for s in range(3):
        np.testing.assert_allclose(scan.affine @ [10, 12, s, 1], [-1, 2, 5 * s, 1], atol=1e-5)
    np.testing.assert_allclose(scan.affine[:3, 0], [5, 0, 0], atol=1e-6)
    assert scan.facts["protocol"] == "gre" and scan.facts["TE (ms)"] == "3.0"
    assert "noise scan" in scan.missing


def test_an_asymmetric_echo_and_lines_of_another_center_are_put_in_their_place(tmp_path, twixtools):
    values = scan_of(slices=1)[0][0]
    wide = oversampled(values)
    stored = [readout(wide[:, 16:, line], line - 4, center=8, center_line=LINES // 2 - 4)
              for line in range(4, LINES)]
    scan = open_scan(write_twix(tmp_path / "scan.dat", stored, base=BASE, lines=LINES))
    # its oversampling is kept, the image is cropped
    assert scan.shape == (1, 4, 2 * BASE, LINES) and scan.crop == (BASE, LINES)
    expected = wide * (np.arange(2 * BASE) >= 16)[:, None] * (np.arange(LINES) >= 4)
    np.testing.assert_allclose(next(scan.read([0])), expected, atol=1e-6 * np.abs(wide).max())
    assert scan.spacing == pytest.approx((10, 200 / BASE, 4))


def test_reference_lines_make_the_maps_or_fill_the_image(tmp_path, twixtools):
    values = scan_of(slices=1)[0][0]
    stored = readouts(values, range(0, LINES, 2))
    stored += readouts(2 * values, range(6, 14), flags=["reference"])
    stored += [readout(complex_normal(np.random.default_rng(0), (4, 2 * BASE)), flags=["phase"])]
    scan = open_scan(write_twix(tmp_path / "scan.dat", stored, base=BASE, lines=LINES, reference=4))
    atol, even = 2e-6 * np.abs(values).max(), np.arange(LINES) % 2 == 0
    np.testing.assert_allclose(next(scan.read([0])), values * even, atol=atol)
    own = 2 * values * np.isin(np.arange(LINES), range(6, 14))
    np.testing.assert_allclose(next(scan.calibration([0])), own, atol=atol)
    assert scan.facts["left out"] == "1 of phase correction"
    write_twix(tmp_path / "scan.dat", stored, base=BASE, lines=LINES, reference=2)
    filled = np.where(even, values, own)
    np.testing.assert_allclose(next(open_scan(tmp_path / "scan.dat").read([0])), filled, atol=atol)


def test_the_noise_scan_tells_the_noise_of_a_sample(tmp_path, twixtools):
    rng = np.random.default_rng(1)
    root = np.tril(complex_normal(rng, (4, 4), np.complex128)) + 2 * np.eye(4)
    noise = root @ complex_normal(rng, (4, 20 * 256)) / np.sqrt(2)
    stored = [readout(part, flags=["noise"]) for part in np.split(noise, 20, axis=1)]
    stored += readouts(scan_of(slices=1)[0][0])
    scan = open_scan(write_twix(tmp_path / "scan.dat", stored, base=BASE, lines=LINES, dwell=5000))
    # 30 us for noise, 5 us for the image, half the noise without oversampling
    expected = noise @ noise.conj().T / noise.shape[1] * (1e6 / 256 / 130) / 5 / 2 / 0.793
    np.testing.assert_allclose(scan.noise, expected, rtol=1e-5)


def test_a_3d_scan_becomes_slices_along_its_readout(tmp_path, twixtools):
    values = complex_normal(np.random.default_rng(2), (2, 6, BASE, LINES))  # coil, kz, ky, kx
    wide = oversampled(values)
    stored = [readout(wide[:, part, :, line], line, part=part, center_line=LINES // 2,
                      center_part=3) for part in range(6) for line in range(LINES)]
    scan = open_scan(write_twix(tmp_path / "scan.dat", stored, base=BASE, lines=LINES,
                                partitions=6, dimension=4))
    assert scan.shape == (BASE, 2, 6, LINES) and scan.affine is None
    line = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(values, axes=2), axis=2, norm="ortho"), 2)
    np.testing.assert_allclose(read(scan), line.transpose(2, 0, 1, 3), atol=1e-4)


@pytest.mark.parametrize("options, flags, message", [
    ({"trajectory": 4}, (), "trajectory is 'spiral', expected 'cartesian'"),
    ({}, ["reflect"], "has reversed readouts, as EPI"),
    ({}, ["noise"], "none of 20 readouts is of an image"),
    ({"base": 12}, (), "do not fit the encoded matrix of 24"),
    ({"lines": 8}, (), "do not fit the encoded matrix of 8")])
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path, twixtools, options, flags, message):
    path = write_twix(tmp_path / "scan.dat", readouts(scan_of(slices=1)[0][0], flags=flags),
                      **{"base": BASE, "lines": LINES, **options})
    with pytest.raises(InputError, match=message) as caught:
        read(open_scan(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes()[:11000])
    with pytest.raises(InputError, match="scan.dat: "):
        read(open_scan(path))


def test_it_is_told_what_to_install(tmp_path, monkeypatch):
    path = write_twix(tmp_path / "scan.dat", [], base=BASE, lines=LINES)
    monkeypatch.setitem(sys.modules, "twixtools", None)
    with pytest.raises(InputError, match="scan.dat: .* not installed; install flatjax.twix."):
        open_scan(path)


@pytest.mark.skipif(not PHANTOM.is_file(), reason="needs the phantom of ../shared/data")
def test_a_phantom_is_that_of_its_array(twixtools):
    """The array is by twixtools' own removal of oversampling."""
    scan = open_scan(PHANTOM)
    array = np.load(PHANTOM.with_name("twixtools_gre_phantom_2ch_160x160.npy"))
    np.testing.assert_allclose(read(scan).swapaxes(2, 3), array, atol=1e-6 * np.abs(array).max())
    # the protocol's normal and position
    np.testing.assert_allclose(scan.affine[:3, 2], np.array([0, -0.0383878, 0.9992630]) * 4,
                               atol=1e-5)
    np.testing.assert_allclose(scan.affine @ [80, 80, 0, 1], [2.58970, -53.92242, -53.99947, 1],
                               atol=1e-4)
