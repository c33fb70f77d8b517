"""Reconstruction of users' files: what comes in comes out, whatever its unit, phase and format."""

import json
import os
import re
import shutil
import warnings

import h5py
import jax
import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest

import flatjax
from flatjax import cli, config
from flatjax.data import DATASETS
from flatjax.data.batches import Acquisition
from flatjax.data.io.kspace import find_mask, open_scan
from flatjax.data.io.volumes import read_oriented
from flatjax.data.prepare import prepare
from flatjax.errors import InputError
from flatjax.files import printable
from flatjax.inference import reconstruct
from flatjax.inference.measure import measure
from flatjax.inference.reconstruct import reconstruct_files, reconstruct_slices
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.simulate import birdcage_maps, host_fft2c, host_ifft2c, image_phase
from tests.support import fastmri_fixture, toy, untrained
from tests.support.arrays import complex_normal
from tests.support.browser import contents
from tests.support.kspace_fixture import SIZE, ismrmrd_kspace, scan_of, write_cfl, write_ismrmrd


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    """Of a run that gives zero-filled images, and needs no training."""
    folder = tmp_path / "run"
    folder.mkdir()
    parts = {"method": config.method("zero_filled"), "data": config.data("icbm", coils=3),
             "acquisition": config.acquisition(acceleration=1.0, noise=0.0),
             "evaluation": config.evaluation(batch_size=2)}
    (folder / "config.json").write_text(config.to_json(config.experiment(**parts)))
    monkeypatch.setattr(reconstruct, "load_params", lambda *_: ({}, 0))
    return folder


def run(workdir, *arguments):
    """The program's exit status."""
    try:
        cli.main(["reconstruct", f"--workdir={workdir}", *arguments])
    except SystemExit as status:
        return status.code
    return 0


def reconstruction(path):
    with h5py.File(path) as file:
        return file["reconstruction"][:]


@pytest.mark.parametrize("coils", [1, 4])
@pytest.mark.parametrize("factor", [1e-9, 3e5j, -2.0, np.exp(1j)])
def test_neither_unit_nor_phase_of_the_receiver_matters(coils, factor):
    kspace = scan_of(coils=coils)[0][0] * make_mask("equispaced", SIZE, 2, 0.4, 0)
    plain, other = prepare(kspace), prepare((factor * kspace).astype(np.complex64))
    # Of several coils the phase may go into the maps: what a network sees is E^H k.
    image, again = (np.sum(np.conj(one.measurement.maps) * host_ifft2c(one.measurement.kspace),
                           axis=0)
                    for one in (plain, other))
    np.testing.assert_allclose(again, image, atol=1e-4 * np.abs(image).max())
    assert other.scale == pytest.approx(abs(factor) * plain.scale, rel=1e-5)
    mean = np.sum(image * np.abs(image))
    assert abs(mean.imag) < 1e-4 * mean.real


def test_a_smooth_phase_of_one_coil_is_taken_out():
    kspace, _ = scan_of(coils=1, shape=(64, 60))
    phase = image_phase(np.random.default_rng(1), (64, 60), 2.0)
    mask = make_mask("equispaced", (64, 60), 2, 0.2, 0)
    kspace = mask * host_fft2c(host_ifft2c(kspace[0]) * phase)
    measurement = prepare(kspace).measurement
    image = np.conj(measurement.maps) * host_ifft2c(measurement.kspace)
    assert np.linalg.norm(image.imag) < 0.25 * np.linalg.norm(image.real)
    assert np.abs(measurement.maps) == pytest.approx(1, abs=1e-5)
    # without a calibration region only one angle is taken out
    sparse = kspace * (np.arange(60) % 2)
    assert (prepare(sparse).measurement.maps == 1).all()


def test_a_network_reconstructs_in_the_unit_of_the_data_and_batches_do_not_matter(make_batch):
    method = toy.flat()
    params = method.init(jax.random.key(0), make_batch())
    params = jax.tree.map(lambda leaf: leaf + 0.05, params)  # last layers are not zero
    kspace = scan_of()[0] * make_mask("equispaced", SIZE, 2, 0.4, 0)
    kspace[1] = 0

    @jax.jit
    def once(params, rng, measurement):
        return {"reconstruction": method.reconstruct(params, rng, measurement).image}

    def images(factor, size):
        slices = (prepare((factor * one).astype(np.complex64)) for one in kspace)
        return np.stack([found["reconstruction"] for _, found in reconstruct_slices(
            once, params, jax.random.key(0), slices, size)])

    expected = images(1, 2)
    assert not expected[1].any() and np.isfinite(expected).all() and expected[2].any()
    np.testing.assert_allclose(images(-1e6j, 3) / 1e6, expected, atol=1e-4 * expected.max())


def test_slices_are_read_when_they_are_needed():
    kspace, read = scan_of(coils=1)[0], []

    def slices():
        for index in range(100):
            read.append(index)
            yield prepare(kspace[0])

    results = reconstruct_slices(lambda *_: {"reconstruction": np.ones((4, *SIZE), np.float32)},
                                 {}, jax.random.key(0), slices(), 4)
    for _ in range(5):
        next(results)
    assert len(read) == 8


@pytest.mark.parametrize("kind", ["random", "gaussian2d", "poisson"])
def test_the_mask_is_found_in_the_data(kind):
    mask = make_mask(kind, (40, 36), 3, 0.05, 0)
    kspace = complex_normal(np.random.default_rng(0), (3, 40, 36))
    np.testing.assert_array_equal(find_mask(mask * kspace), mask)
    kspace[0] = 0  # a dead coil
    np.testing.assert_array_equal(find_mask(mask * kspace), mask)
    if kind == "random":
        kspace[:, ::7, ::5] = 0  # zeros by chance are still measured
        np.testing.assert_array_equal(find_mask(mask * kspace), mask)
        kspace[:, :6] = 0  # a partial echo is not
        np.testing.assert_array_equal(
            find_mask(mask * kspace), mask * (np.arange(40) >= 6)[:, None])


def test_every_format_gives_the_image_that_went_in(tmp_path, workdir):
    kspace, images = scan_of()
    np.save(tmp_path / "array.npy", kspace)
    np.savez(tmp_path / "archive.npz", kspace=kspace, affine=np.diag([2.0, 3.0, -4.0, 1.0]))
    bart = kspace.transpose(2, 3, 1, 0).reshape(*SIZE, 1, 4, *[1] * 9, 3, 1, 1)
    write_cfl(tmp_path / "bart.cfl", bart, bart.shape)
    output = tmp_path / "out"
    assert run(workdir, str(tmp_path / "array.npy"), f"--input={tmp_path / 'archive.npz'}",
               f"--input={tmp_path / 'bart.cfl'}", f"--output={output}") == 0
    for name in ("array", "archive", "bart"):
        found = reconstruction(output / f"{name}.h5")
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, images, atol=5e-3)
        image = nibabel.load(output / f"{name}.nii")
        np.testing.assert_array_equal(image.get_fdata(), found.transpose(2, 1, 0))
        assert plt.imread(output / f"{name}.png")[..., :3].std() > 0.05
    report = contents(output / "report.html")
    assert [one["name"] for one in report["slices"]] == [
        f"{name}, slice {index} of 3" for name in ("array", "archive", "bart")
        for index in (1, 2, 3)]
    assert report["title"] == "array, archive, bart" and not report["target"]
    np.testing.assert_allclose(nibabel.load(output / "archive.nii").affine,
                               np.diag([2.0, 3.0, -4.0, 1.0]))
    assert nibabel.load(output / "array.nii").header["sform_code"] == 0


def test_the_file_tells_how_it_was_made(tmp_path, workdir):
    mask = make_mask("equispaced", SIZE, 2, 0.4, 0)
    scan = mask * scan_of()[0]
    np.save(tmp_path / "plain.npy", scan)
    np.savez(tmp_path / "whole.npz", kspace=scan, mask=mask)
    np.save(tmp_path / "mask.npy", mask)
    nibabel.save(nibabel.Nifti1Image(np.abs(scan[:, 0]), np.eye(4)), tmp_path / "head.nii.gz")
    found = {}
    for name, given in (("plain.npy", ""), ("whole.npz", ""), ("plain.npy", "mask.npy"),
                        ("head.nii.gz", "")):
        (path,) = reconstruct_files(config_of(workdir), workdir, [tmp_path / name], tmp_path,
                                    mask=tmp_path / given if given else "")
        with h5py.File(path) as file:
            found[name, given] = dict(file.attrs)
    one = found["plain.npy", ""]
    assert one.keys() == {"model", "method", "checkpoint_step", "config_hash", "flatjax", "mask",
                          "acceleration", "unit"}
    assert (one["model"], one["method"], one["flatjax"]) == (
        str(workdir), "zero_filled", flatjax.__version__)
    assert one["acceleration"] == pytest.approx(mask.size / mask.sum())
    assert "orthonormal" in one["unit"] and "maximum" in found["head.nii.gz", ""]["unit"]
    assert [facts["mask"] for facts in found.values()] == [
        "samples that are not zero", str(tmp_path / "whole.npz"), str(tmp_path / "mask.npy"),
        "drawn as the config says"]


def test_the_name_of_a_shipped_model_is_told_without_where_it_is(tmp_path):
    np.save(tmp_path / "scan.npy", make_mask("equispaced", SIZE, 2, 0.4, 0) * scan_of()[0])
    cli.main(["reconstruct", str(tmp_path / "scan.npy"), f"--output={tmp_path}"])
    with h5py.File(tmp_path / "scan.h5") as file:
        assert file.attrs["model"] == "multicoil"


def test_fastmri_and_ismrmrd_are_cropped_and_placed(tmp_path, workdir):
    fastmri_fixture.write(tmp_path / "file1.h5", coils=3)
    output = tmp_path / "out"
    inputs = [tmp_path / "file1.h5"]
    assert reconstruct_files(config_of(workdir), workdir, inputs, output) == [output / "file1.h5"]
    with h5py.File(tmp_path / "file1.h5") as file:
        expected = file["reconstruction_rss"][:]
    found = reconstruction(output / "file1.h5")
    assert found.shape == expected.shape == (3, 24, 24)
    np.testing.assert_allclose(found, expected, atol=0.05 * expected.max())
    path = write_ismrmrd(tmp_path / "scan.h5", ismrmrd_kspace()[:, :1])
    reconstruct_files(config_of(workdir), workdir, [path], output)
    image = nibabel.load(output / "scan.nii")
    assert image.shape == (10, 10, 3)
    np.testing.assert_allclose(image.affine, open_scan(path).affine, atol=1e-5)
    np.testing.assert_allclose(image.header.get_zooms(), (3, 2, 6), atol=1e-5)


def config_of(workdir):
    return reconstruct.load_config(workdir)


def test_a_volume_comes_back_in_its_place(tmp_path, workdir):
    rng = np.random.default_rng(0)
    voxels = rng.uniform(0, 100, (17, 12, 5)).astype(np.float32)
    affine = np.array([[0, 2.0, 0, -9], [-1.5, 0, 0, 4], [0, 0.3, 3, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(voxels, affine), tmp_path / "head.nii.gz")
    reconstruct_files(config_of(workdir), workdir, [tmp_path / "head.nii.gz"], tmp_path / "out")
    found, placed, *_ = read_oriented(tmp_path / "out" / "head.nii")
    expected, where, *_ = read_oriented(tmp_path / "head.nii.gz")
    np.testing.assert_allclose(found, expected / expected.max(), atol=1e-5)
    np.testing.assert_allclose(placed, where, atol=1e-5)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASR", "SPL"])
def test_a_volume_keeps_the_axes_that_it_had(tmp_path, workdir, axes):
    voxels = np.random.default_rng(0).uniform(0, 100, (17, 12, 5)).astype(np.float32)
    affine = np.array([[2.0, 0.1, 0, -9], [0.1, 1.5, 0, 4], [0, 0.3, 3, 7], [0, 0, 0, 1]])
    image = nibabel.Nifti1Image(voxels, affine)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(
        nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes)))
    nibabel.save(image, tmp_path / "head.nii")
    reconstruct_files(config_of(workdir), workdir, [tmp_path / "head.nii"], tmp_path / "out")
    found, image = nibabel.load(tmp_path / "out" / "head.nii"), nibabel.load(tmp_path / "head.nii")
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
    expected = image.get_fdata()
    np.testing.assert_allclose(found.get_fdata(), expected / expected.max(), atol=1e-5)
    np.testing.assert_allclose(found.header.get_zooms(), image.header.get_zooms(), atol=1e-5)
    assert found.header["sform_code"] == found.header["qform_code"] == 1


def test_a_volume_that_tells_no_place_comes_back_without_one(tmp_path, workdir):
    image = nibabel.Nifti1Image(np.random.default_rng(0).random((17, 12, 5)), None)
    image.header.set_zooms((2.0, 1.5, 3.0))
    nibabel.save(image, tmp_path / "head.nii")
    with pytest.warns(UserWarning, match="head.nii: does not tell where its axes point"):
        reconstruct_files(config_of(workdir), workdir, [tmp_path / "head.nii"], tmp_path / "out")
    found = nibabel.load(tmp_path / "out" / "head.nii")
    np.testing.assert_allclose(found.get_fdata(), image.get_fdata() / image.get_fdata().max(),
                               atol=1e-5)
    assert found.header["sform_code"] == found.header["qform_code"] == 0
    np.testing.assert_allclose(found.header.get_zooms(), (2.0, 1.5, 3.0))


def test_repetitions_are_a_fourth_axis(tmp_path, workdir, capsys):
    values = ismrmrd_kspace()[:, :1]

    def change(one):
        one.idx.repetition, one.idx.slice = divmod(one.idx.slice, 3)
        one.position[2] = 11 - 6.0 * one.idx.slice

    path = write_ismrmrd(tmp_path / "scan.h5", np.concatenate([values, 2 * values]), change=change)
    assert run(workdir, str(path), f"--output={tmp_path / 'out'}") == 0
    assert "2 times 3 slices of 1 x 20 x 12" in "".join(capsys.readouterr())
    found, image = reconstruction(tmp_path / "out" / "scan.h5"), nibabel.load(
        tmp_path / "out" / "scan.nii")
    assert found.shape == (2, 3, 10, 10) and image.shape == (10, 10, 3, 2)
    np.testing.assert_allclose(found[1], 2 * found[0], rtol=1e-4)
    np.testing.assert_array_equal(image.get_fdata(), found.T)
    np.testing.assert_allclose(image.affine, open_scan(path).affine, atol=1e-5)
    path = write_ismrmrd(tmp_path / "scan.h5", np.concatenate([values, values]),
                         change=change, directions=False)
    reconstruct_files(config_of(workdir), workdir, [path], tmp_path / "out")
    image = nibabel.load(tmp_path / "out" / "scan.nii")
    assert image.shape == (10, 10, 3, 2)
    np.testing.assert_allclose(image.header.get_zooms()[:3], (3, 2, 5))


def test_more_slices_than_nifti_1_can_count_are_written_as_nifti_2(tmp_path):
    np.save(tmp_path / "scan.npy", scan_of(coils=1)[0])
    slices = np.arange(2**15, dtype=np.float32)[:, None, None]
    image = reconstruct._nifti(slices, open_scan(tmp_path / "scan.npy"))
    nibabel.save(image, tmp_path / "scan.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "scan.nii").dataobj, slices.T)


def test_slices_at_uneven_distances_are_told_in_one_line(tmp_path, workdir, capsys):
    def change(one):
        one.position[2] = -6.0 * [0, 1, 4][one.idx.slice]

    path = write_ismrmrd(tmp_path / "scan.h5", ismrmrd_kspace()[:, :1], change=change)
    with pytest.warns(UserWarning, match="scan.h5: has no affine: slices lie 6 to 18 mm apart$"):
        assert run(workdir, str(path), f"--output={tmp_path / 'out'}") == 0
    cli.main(["inspect", str(path), f"--output={tmp_path / 'out'}"])
    assert "h5: has no affine: slices lie 6 to 18 mm apart\n" in capsys.readouterr().err
    assert nibabel.load(tmp_path / "out" / "scan.nii").header["sform_code"] == 0


def test_a_volume_is_measured_as_the_config_says(tmp_path):
    voxels = np.abs(np.random.default_rng(0).normal(size=(32, 24, 3))).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "head.nii")
    scan = open_scan(tmp_path / "head.nii", coils=2)
    first, again = (list(measure(scan, Acquisition("equispaced", 4.0, 0.1, 0.02)))
                    for _ in range(2))
    mask = make_mask("equispaced", (24, 32), 4.0, 0.1, tuple(map(ord, "head")))
    np.testing.assert_array_equal(first[0].measurement.mask, np.broadcast_to(mask, (1, 24, 32)))
    np.testing.assert_array_equal(first[1].measurement.kspace, again[1].measurement.kspace)
    clean = list(measure(scan, Acquisition("equispaced", 4.0, 0.1)))
    difference = first[0].scale * first[0].measurement.kspace - (
        clean[0].scale * clean[0].measurement.kspace)
    sampled = difference[:, first[0].measurement.mask[0] > 0]
    assert np.sqrt(np.mean(np.abs(sampled) ** 2)) == pytest.approx(0.02, rel=0.3)


def test_a_mask_and_maps_may_be_given(tmp_path, workdir):
    kspace, _ = scan_of()
    np.save(tmp_path / "scan.npy", kspace)
    mask = make_mask("random", SIZE, 3, 0.0, 1)
    np.save(tmp_path / "mask.npy", mask[0])
    arguments = [f"--input={tmp_path / 'scan.npy'}", f"--output={tmp_path}"]
    message = "calibration lines to make coil maps of; give the maps as a file .--maps=FILE"
    with pytest.raises(InputError, match=f"scan.npy: .*{message}"):
        reconstruct_files(config_of(workdir), workdir, [tmp_path / "scan.npy"], tmp_path,
                          mask=tmp_path / "mask.npy")
    assert not list(tmp_path.glob("*.h5")) and not list(tmp_path.glob(".*"))
    maps = birdcage_maps(4, SIZE)
    np.save(tmp_path / "maps.npy", 7 * maps)
    assert run(workdir, *arguments, f"--mask={tmp_path / 'mask.npy'}",
               f"--maps={tmp_path / 'maps.npy'}") == 0
    expected = np.abs(np.sum(np.conj(maps) * host_ifft2c(mask * kspace), axis=1))
    np.testing.assert_allclose(reconstruction(tmp_path / "scan.h5"), expected, atol=1e-5)


@pytest.mark.parametrize("field, values, message", [
    ("mask", np.ones(21), "the array has shape .21,., expected .24, 20. or .1, 20. or .20,."),
    ("mask", np.eye(1, 20)[0], "takes none of the samples|calibration"),
    ("maps", np.ones((3, *SIZE), np.complex64), "coil maps have shape .1, 3, 24, 20., expected"),
    ("maps", np.zeros((4, *SIZE), np.complex64), "the coil maps are zero everywhere"),
    ("maps", np.ones((4, *SIZE)), "the array is float64, expected complex"),
])
def test_a_mask_or_maps_of_another_scan_are_refused(tmp_path, workdir, field, values, message):
    np.save(tmp_path / "scan.npy", scan_of()[0])
    np.save(tmp_path / "other.npy", values)
    with pytest.raises(InputError, match=message):
        reconstruct_files(config_of(workdir), workdir, [tmp_path / "scan.npy"], tmp_path / "out",
                          **{field: tmp_path / "other.npy"})


def test_a_mask_that_contradicts_the_data_is_refused_wherever_it_comes_from(tmp_path, workdir):
    lines = make_mask("equispaced", (40, 36), 4, 0.2, 0)[0]
    for name, wrong in (("shifted", np.roll(lines, 18)), ("other", np.roll(lines, 1))):
        file = fastmri_fixture.write(tmp_path / f"{name}.h5", mask=lines, coils=3)
        file = tmp_path / f"{name}.h5"
        with h5py.File(file, "r+") as content:
            content["mask"][:] = wrong
        thrown, empty = (40 * int(both.sum()) for both in (lines > wrong, wrong > lines))
        with pytest.raises(InputError, match=f"{name}.h5: the mask contradicts the data: it is 0 "
                           f"at {thrown} of .* and 1 at {empty} that are"):
            reconstruct_files(config_of(workdir), workdir, [file], tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_fully_sampled_data_are_undersampled_by_an_option_on_the_command_line(tmp_path, workdir):
    kspace, images = scan_of(coils=3)
    np.save(tmp_path / "scan.npy", kspace)
    np.savez(tmp_path / "masked.npz", kspace=kspace, mask=np.ones(SIZE))
    output = f"--output={tmp_path / 'out'}"
    options = (output, *(f"--config.acquisition.{key}" for key in (
        "mask=equispaced", "acceleration=2", "center_fraction=0.4")))
    assert run(workdir, str(tmp_path / "scan.npy"), output, "--config.acquisition.noise=9") == 0
    np.testing.assert_allclose(reconstruction(tmp_path / "out" / "scan.h5"), images, atol=5e-3)
    assert run(workdir, str(tmp_path / "scan.npy"), *options, "--config.acquisition.noise=9") == 0
    mask = make_mask("equispaced", SIZE, 2, 0.4, tuple(map(ord, "scan")))
    found = reconstruction(tmp_path / "out" / "scan.h5")
    np.save(tmp_path / "scan.npy", mask * kspace)
    with pytest.warns(UserWarning, match="scan.npy: .*acquisition.* are not applied"):
        assert run(workdir, str(tmp_path / "scan.npy"), *options) == 0
    np.testing.assert_array_equal(found, reconstruction(tmp_path / "out" / "scan.h5"))
    with pytest.warns(UserWarning, match="masked.npz: .*acquisition.* are not applied"):
        assert run(workdir, str(tmp_path / "masked.npz"), *options) == 0


def test_rows_are_turned_for_a_model_of_columns_and_doubts_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    run_ = untrained.workdir(tmp_path / "run", config.method("flat", **toy.TINY))
    kspace = scan_of(coils=1, shape=(24, 24))[0] * make_mask("equispaced", (24, 24), 2, 0.4, 0)
    np.save(tmp_path / "columns.npy", kspace)
    np.save(tmp_path / "rows.npy", kspace.swapaxes(-2, -1))
    assert run(run_, str(tmp_path / "columns.npy")) == 0
    with pytest.warns(UserWarning, match="along rows, but the model was trained with columns"):
        assert run(run_, str(tmp_path / "rows.npy")) == 0
    report = contents(run_ / "reconstructions" / "report.html")
    start, states = report["slices"][0]["panels"]
    assert [one["step"] for one in states] == [0, 1, 2]
    assert len({one["image"] for one in (start[0], *states[1:])}) == 3
    columns, rows = (reconstruction(run_ / "reconstructions" / f"{name}.h5")
                     for name in ("columns", "rows"))
    np.testing.assert_allclose(rows, columns.swapaxes(-2, -1), atol=1e-4 * columns.max())
    assert warnings.formatwarning("a\nb", UserWarning, "file", 1) == (
        "flatjax reconstruct: warning: a b\n")


def test_broken_files_stop_it_or_are_left_out(tmp_path, workdir, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "c"):
        np.save(folder / f"{name}.npy", scan_of(coils=1)[0])
    (folder / "b.npy").write_bytes(b"nonsense")
    broken = scan_of(coils=1)[0]
    broken[2, 0, 3, 4] = np.nan  # found when earlier slices are done
    np.save(folder / "d.npy", broken)
    output = tmp_path / "out"
    assert run(workdir, f"--input={folder}", f"--output={output}") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("flatjax reconstruct: error: ")
    assert "b.npy: is cut short or damaged" in lines[-1]
    assert not (output / "c.h5").exists()
    assert run(workdir, f"--input={folder}", f"--output={output}", "--keep-going") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(errors) == 3 and "b.npy" in errors[0] and "slice 2 of the array" in errors[1]
    assert "2 of 4 files could not be reconstructed" in errors[2]
    assert {path.name for path in output.iterdir()} == {
        "report.html", *(f"{name}.{kind}" for name in "ac" for kind in ("h5", "nii", "png"))}


def test_no_input_is_written_over(tmp_path, workdir, capsys):
    image = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), tmp_path / "T1.nii")
    kept = (tmp_path / "T1.nii").read_bytes()
    assert run(workdir, f"--input={tmp_path / 'T1.nii'}", f"--output={tmp_path}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "would be written over" in error and "T1.nii, which was given as input" in error
    assert (tmp_path / "T1.nii").read_bytes() == kept and not (tmp_path / "T1.h5").exists()


def test_braces_in_a_name_are_a_name(tmp_path, workdir):
    np.save(tmp_path / "scan{a}[1].npy", scan_of(coils=1)[0])
    run(workdir, f"--input={tmp_path / 'scan{a}[1].npy'}", f"--output={tmp_path / 'out'}")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", *(f"scan{{a}}[1].{kind}" for kind in ("h5", "nii", "png"))}


@pytest.mark.parametrize("name", [b"T1$x_{$.npy", b"b\xff.npy"])
def test_dollars_and_bytes_in_a_name_are_a_name(tmp_path, workdir, capsys, name):
    """Of titles, where `$` begins a formula, and of a console that takes UTF-8 alone."""
    np.save(tmp_path / "plain.npy", scan_of(coils=1)[0])
    file = tmp_path / "in" / os.fsdecode(name)
    file.parent.mkdir()
    shutil.copy(tmp_path / "plain.npy", file)
    shutil.copy(tmp_path / "plain.npy", file.with_name("z.npy"))
    assert run(workdir, str(file.parent), f"--output={tmp_path / 'out'}") == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html", *(f"{stem}.{kind}" for kind in ("h5", "nii", "png")
                         for stem in (file.stem, "z"))}
    cli.main(["inspect", str(file), f"--output={tmp_path / 'inspect'}"])
    assert (tmp_path / "inspect" / f"{file.stem}.png").exists()
    assert f"{printable(file.stem)}.h5" in capsys.readouterr().out


def test_two_files_of_one_name_and_other_bad_calls_are_refused(tmp_path, workdir, capsys):
    np.save(tmp_path / "scan.npy", scan_of(coils=1)[0])
    np.savez(tmp_path / "scan.npz", kspace=scan_of(coils=1)[0])
    np.save(tmp_path / "edge.npy", np.fft.ifftshift(scan_of(coils=1)[0], axes=(-2, -1)))
    inputs = f"--input={tmp_path / 'scan.npy'}", f"--input={tmp_path / 'scan.npz'}"
    for arguments, message in [
            (inputs, "would be written over .*scan.h5, the reconstruction of .*rename it"),
            ((inputs[0], "--workdir=b"), "flatjax compare takes several"),
            ((inputs[0], "--masks=a.npy"), "unexpected argument .*did you mean --mask?"),
            ((f"--input={tmp_path / 'edge.npy'}",), "edge.npy: .* at the edge of ky and kx, "),
            ((f"--input={tmp_path / 'none'}",), "none: no such file or folder")]:
        assert run(workdir, *arguments, f"--output={tmp_path / 'out'}") == 2
        assert re.search(message, capsys.readouterr().err)


def test_results_that_are_not_finite_are_refused(tmp_path, workdir, monkeypatch):
    np.save(tmp_path / "scan.npy", scan_of(coils=1)[0])

    def diverged(*_):
        for one in (prepare(kspace) for kspace in scan_of(coils=1)[0]):
            yield one, {"reconstruction": np.full(SIZE, np.nan, np.float32)}

    monkeypatch.setattr(reconstruct, "reconstruct_slices", diverged)
    with pytest.raises(InputError, match="scan.npy: the reconstruction of slice 0 is not finite"):
        reconstruct_files(config_of(workdir), workdir, [tmp_path / "scan.npy"], tmp_path / "out")
    assert json.loads((workdir / "config.json").read_text()) and not list(
        (tmp_path / "out").iterdir())


def test_a_scan_of_few_slices_is_not_padded_to_a_whole_batch(tmp_path, workdir, monkeypatch):
    np.save(tmp_path / "scan.npy", scan_of(slices=2)[0])
    sizes = []

    def seen(function, params, rng, slices, size):
        sizes.append(size)
        return reconstruct_slices(function, params, rng, slices, size)

    monkeypatch.setattr(reconstruct, "reconstruct_slices", seen)
    for size in (1, 5):
        assert run(workdir, str(tmp_path / "scan.npy"), f"--output={tmp_path / str(size)}",
                   f"--config.evaluation.batch_size={size}") == 0
    assert sizes == [1, 2]
