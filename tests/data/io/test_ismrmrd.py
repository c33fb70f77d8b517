"""ISMRMRD's scans as scanners make them: calibration, order and place of slices, repetitions."""

import numpy as np
import pytest

from flatjax.data.acquisition import Acquisition
from flatjax.data.io.kspace import open_scan
from flatjax.data.prepare import prepare
from flatjax.errors import InputError
from flatjax.inference.measure import measure
from flatjax.mri import center_crop
from flatjax.mri.host.simulate import host_ifft2c
from tests.support.arrays import complex_normal
from tests.support.kspace_fixture import (
    SIZE,
    calibrated,
    ismrmrd_kspace,
    kspace,
    scan_of,
    write_ismrmrd,
)

CALIBRATION = "ACQ_IS_PARALLEL_CALIBRATION"
NOISE = "the noise scan is not used: it is too short, or of coils without noise"
BOTH = "ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING"


def read(scan):
    return np.stack(list(scan.read(range(scan.shape[0]))))


def measured(scan):
    return list(measure(scan, Acquisition("equispaced", 1.0, 0.1)))


@pytest.mark.parametrize("mode", ["separate", "external", "other", None])
def test_separate_calibration_lines_make_the_maps_and_nothing_else(tmp_path, mode):
    ismrmrd = pytest.importorskip("ismrmrd")
    values, other = scan_of(slices=2)[0], 30j * scan_of(seed=5, slices=2)[0]  # contrast and gain
    imaging, extra = [*range(0, 20, 2)], [*range(6, 14)]
    seen = []

    def change(one):
        seen.append(one.idx.kspace_encode_step_1)
        if (len(seen) - 1) % (len(imaging) + len(extra)) >= len(imaging):
            one.set_flag(ismrmrd.ACQ_IS_PARALLEL_CALIBRATION)
            one.idx.contrast = 1
            one.data[:] = other[one.idx.slice, :, :, seen[-1]]

    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", values, lines=imaging + extra, shift=0,
                                   recon=SIZE, late=0, change=change,
                                   edit=calibrated(mode) if mode else None))
    mask = np.isin(np.arange(20), imaging)
    assert scan.frames == 1 and scan.facts["calibration readouts"] == "16"
    np.testing.assert_allclose(read(scan), values * mask, rtol=1e-6)
    lines = other * np.isin(np.arange(20), extra)
    np.testing.assert_allclose(list(scan.calibration(range(2))), lines, rtol=1e-6)
    for one, calibration in zip(measured(scan), lines, strict=True):
        np.testing.assert_array_equal(one.measurement.mask[0], np.broadcast_to(mask, SIZE))
        expected = prepare(calibration).measurement.maps
        np.testing.assert_allclose(one.measurement.maps, expected, atol=1e-4)


@pytest.mark.parametrize("mode, flags", [
    ("embedded", [CALIBRATION]), ("interleaved", [CALIBRATION]), ("embedded", [BOTH]),
    ("separate", [BOTH]), ("separate", [CALIBRATION, BOTH])])  # Siemens sets both
def test_embedded_calibration_lines_are_of_the_image_too(tmp_path, mode, flags):
    values = scan_of(slices=1)[0]
    lines = sorted({*range(0, 20, 2), *range(6, 14)})
    scan = open_scan(write_ismrmrd(
        tmp_path / "scan.h5", values, lines=lines, shift=0, recon=SIZE, late=0,
        flags=dict.fromkeys(range(6, 14), flags), edit=calibrated(mode)))
    expected = values * np.isin(np.arange(20), lines)
    np.testing.assert_allclose(read(scan), expected, rtol=1e-6)
    np.testing.assert_allclose(measured(scan)[0].measurement.maps,
                               prepare(expected[0]).measurement.maps, atol=1e-4)


def test_slices_are_ordered_and_placed_by_their_positions(tmp_path):
    values = kspace(shape=(6, 2, 20, 12))
    places = [0, 2, 4, 1, 3, 5]  # of the slices in the order that they were acquired in

    def change(one):
        one.position[2] = 11 - 6.0 * places[one.idx.slice]

    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", values, change=change, shift=0, late=0,
                                   lines=range(12)))
    np.testing.assert_allclose(read(scan)[places], values, rtol=1e-6)
    for place in range(6):  # in RAS
        np.testing.assert_allclose(scan.affine @ [5, 5, place, 1], [-5, 7, 11 - 6 * place, 1],
                                   atol=1e-5)
    assert scan.spacing == pytest.approx((3, 2, 6)) and scan.missing == ("noise scan",)
    assert scan.doubts == (NOISE,)


@pytest.mark.parametrize("change, message", [
    (lambda one: one.position.__setitem__(2, -6.0 * [0, 1, 4][one.idx.slice]),
     "slices lie 6 to 18 mm apart"),
    (lambda one: one.position.__setitem__(slice(None), (0, 0, 0)),
     "slices lie 0 to 0 mm apart"),
    (lambda one: one.slice_dir.__setitem__(slice(None), (0, 0, 1 - 2 * (one.idx.slice == 2))),
     "slices are turned against each other, or move"),
    (lambda one: one.position.__setitem__(0, one.idx.kspace_encode_step_1),
     "slices are turned against each other, or move")])
def test_slices_that_no_affine_places_have_none_and_it_is_told_why(tmp_path, change, message):
    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", ismrmrd_kspace(), change=change))
    assert scan.affine is None and not scan.placed and scan.missing == ("affine", "noise scan")
    assert scan.doubts == (f"has no affine: {message}", NOISE)


def test_contrasts_and_repetitions_are_frames_and_averages_are_averaged(tmp_path):
    values = kspace(shape=(3, 2, 20, 12))
    kinds = [(contrast, repetition, average) for contrast in (0, 2) for repetition in range(2)
             for average in range(2)]
    seen = []

    def change(one):
        seen.append(0)
        one.idx.contrast, one.idx.repetition, one.idx.average = kinds[(len(seen) - 1) % len(kinds)]
        one.data[:] *= (1 + one.idx.contrast + one.idx.repetition) * (0.5 + one.idx.average)

    scan = open_scan(write_ismrmrd(
        tmp_path / "scan.h5", values, change=change, shift=0, late=0,
        lines=[line for line in range(12) for _ in kinds]))
    assert scan.frames == 4 and scan.shape == (12, 2, 20, 12)
    factors = np.array([1, 2, 3, 4])[:, None, None, None, None]
    np.testing.assert_allclose(read(scan).reshape(4, *values.shape), factors * values, rtol=1e-5)
    assert scan.facts["contrasts"] == scan.facts["repetitions"] == "2"
    np.testing.assert_allclose(scan.affine @ [5, 5, 2, 1], [-5, 7, -1, 1], atol=1e-5)


@pytest.mark.parametrize("encoded, recon, kept", [
    ((96, 128.0), (64, 128.0), 96),  # the header wants other pixels of the same image
    ((160, 171.0), (96, 128.0), 120),  # phase oversampling and coarser phase resolution
    ((128, 256.0), (64, 128.0), 64), ((64, 128.0), (128, 128.0), 64), ((64, 128.0), (64, 500.0), 64)
])
@pytest.mark.parametrize("axis", ["x", "y"])
def test_the_image_is_cropped_to_the_field_of_view(tmp_path, axis, encoded, recon, kept):
    size = {"x": 20, "y": 12, axis: encoded[0]}

    def edit(xsd, header):
        for name, (count, fov) in (("encodedSpace", encoded), ("reconSpace", recon)):
            space = getattr(header.encoding[0], name)
            setattr(space.matrixSize, axis, count)
            setattr(space.fieldOfView_mm, axis, fov)

    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", kspace(shape=(1, 1, size["x"], size["y"])),
                                   edit=edit, shift=0, late=0, lines=range(size["y"])))
    along = {"x": (scan.crop[0], scan.spacing[1]), "y": (scan.crop[1], scan.spacing[0])}[axis]
    assert along == (kept, pytest.approx(encoded[1] / encoded[0]))
    assert along[0] * along[1] == pytest.approx(min(recon[1], encoded[1]), abs=along[1] / 2)


@pytest.mark.parametrize("vendor, sign", [("SIEMENS", 1), ("Siemens Healthineers", 1),
                                          ("GE MEDICAL SYSTEMS", -1), ("", -1)])
def test_a_point_lies_where_it_was_for_the_sign_of_its_transform(tmp_path, vendor, sign):
    def edit(xsd, header):
        header.acquisitionSystemInformation = xsd.acquisitionSystemInformationType(
            systemVendor=vendor)

    along = np.array([4.0, -9.0])  # mm from the center, along readout and phase encoding
    k = [(np.arange(n) - n // 2) / (n * step) for n, step in zip((20, 12), (2.0, 3.0), strict=True)]
    values = np.exp(2j * np.pi * sign * (k[0][:, None] * along[0] + k[1] * along[1]))
    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", values[None, None].astype(np.complex64),
                                   edit=edit, shift=0, late=0, lines=range(12), recon=(18, 10)))
    image = center_crop(np.abs(host_ifft2c(read(scan)[0, 0])), scan.crop)
    row, column = np.unravel_index(image.argmax(), image.shape)
    left, posterior, superior = 5 + along[1], -7 + along[0], 11
    np.testing.assert_allclose(scan.affine @ [column, row, 0, 1],
                               [-left, -posterior, superior, 1], atol=1e-4)


def test_another_group_is_read_where_there_is_one(tmp_path):
    values = ismrmrd_kspace()
    path = write_ismrmrd(tmp_path / "SCAN.H5", values, group="dataset_1")
    np.testing.assert_allclose(read(open_scan(path)), values, rtol=1e-6)
    ismrmrd = pytest.importorskip("ismrmrd")
    with ismrmrd.Dataset(str(path), "dataset_2") as out:
        out.write_xml_header("<a/>")
    with pytest.raises(InputError, match="only dataset_1, dataset_2; rename .* to dataset"):
        open_scan(path)


def test_a_3d_scan_becomes_slices_along_its_readout(tmp_path):
    sizes, steps = (20, 12, 8), (2.0, 3.0, 0.625)  # of readout, phase encoding and partitions
    along = np.array([4.0, -9.0, 1.25])  # mm from the center
    k = [(np.arange(n) - n // 2) / (n * step) for n, step in zip(sizes, steps, strict=True)]
    phase = (k[0][:, None] * along[0] + k[1] * along[1]) + k[2][:, None, None] * along[2]
    values = np.exp(-2j * np.pi * phase).astype(np.complex64)[:, None]  # kz, coil, ky, kx
    missing = (np.add.outer(np.arange(8), np.arange(12)) % 3 == 1)[:, None, None]
    values = values * ~missing
    scan = open_scan(write_ismrmrd(
        tmp_path / "scan.h5", values, depth=8, shift=0, late=0, lines=range(12), recon=(16, 10)))
    assert scan.shape == (16, 1, 8, 12) and scan.crop == (8, 10)
    assert scan.spacing == (3.0, 0.625, 2.0)
    found = read(scan)
    line = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(values, axes=2), axis=2, norm="ortho"), 2)
    np.testing.assert_allclose(found, line.transpose(2, 1, 0, 3)[2:18], atol=1e-6)
    image = center_crop(np.abs(host_ifft2c(found))[:, 0], scan.crop)
    at = np.unravel_index(image.argmax(), image.shape)[::-1]
    # phase runs toward the left, the readout toward posterior, partitions toward inferior
    np.testing.assert_allclose(scan.affine @ [*at, 1], [9 - 5, 7 - 4, 11 - 1.25, 1], atol=1e-4)


def test_the_noise_scan_tells_the_noise_of_a_sample(tmp_path):
    rng = np.random.default_rng(3)
    root = np.tril(complex_normal(rng, (2, 2), np.complex128)) + np.eye(2)
    noise = root @ complex_normal(rng, (2, 500))

    def edit(xsd, header):
        header.acquisitionSystemInformation = xsd.acquisitionSystemInformationType(
            relativeReceiverNoiseBandwidth=0.79)

    options = {"noise": noise, "change": lambda one: setattr(one, "sample_time_us", 2.0)}
    covariance = noise @ noise.conj().T / 500
    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", ismrmrd_kspace(), **options))
    np.testing.assert_allclose(scan.noise, 4 * covariance, rtol=1e-5)
    assert scan.missing == scan.doubts == ()
    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", ismrmrd_kspace(), edit=edit, **options,
                                   lines=[line for line in range(9) for _ in range(3)]))
    np.testing.assert_allclose(scan.noise, 4 / 0.79 / 3 * covariance, rtol=1e-5)  # averaged
