"""Undersampled scans in a folder: their own masks, no references, a split by file."""

import numpy as np
import pytest

from flatjax import config
from flatjax.data import training_batch
from flatjax.data.batches import measure_volume
from flatjax.data.prepare import prepare
from flatjax.data.sets import scans
from flatjax.data.splits import restore_split, write_split
from flatjax.errors import InputError
from flatjax.mri.host.coil_compression import apply_coils, whitening
from flatjax.mri.host.masks import make_mask
from tests.support import fastmri_fixture
from tests.support.kspace_fixture import scan_of

SHAPE = (32, 30)


def kspace(seed, coils=1, slices=2):
    full = scan_of(slices=slices, coils=coils, shape=SHAPE)[0]
    return (full * make_mask("random", SHAPE, 2, 0.3, seed)).astype(np.complex64)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "scans"
    path.mkdir()
    for seed in range(5):
        np.save(path / f"scan{seed}.npy", kspace(seed))
    return path


def test_slices_have_their_own_mask_and_no_reference(folder):
    dataset = scans.make(path=str(folder), test=("scan1",), validation=("scan3",))
    volume, = dataset.test["held_out"]
    assert volume.name == "scan1" and dataset.validation[0].name == "scan3"
    measured = [one.measurement for one in measure_volume(volume, config.Acquisition("poisson"))]
    for found, one in zip(measured, kspace(1), strict=True):
        expected = prepare(one).measurement
        for a, b in zip(found[:3], expected[:3], strict=True):
            np.testing.assert_array_equal(a, b)
        assert np.array_equal(found.mask[0] > 0, np.any(one != 0, axis=0))
    assert np.isnan(volume.load()[0].target).all()


def test_coils_are_prewhitened_where_there_is_a_noise_scan(folder, monkeypatch):
    covariance = np.array([[4.0, 1j], [-1j, 1.0]])
    np.savez(folder / "wide.npz", kspace=kspace(9, coils=2))
    opened = scans.open_scan
    monkeypatch.setattr(scans, "open_scan", lambda file: opened(file)._replace(
        noise=covariance if "wide" in str(file) else None))
    dataset = scans.make(path=str(folder), test=("wide",))
    one, = (volume.load()[0] for volume in dataset.test["held_out"])
    expected = prepare(kspace(9, coils=2)[0], noise=covariance).measurement
    np.testing.assert_array_equal(one.kspace, expected.kspace)
    assert one.noise == expected.noise == pytest.approx(
        np.sqrt(2.5) / prepare(apply_coils(whitening(covariance)[0], kspace(9, coils=2)[0])).scale)
    assert measure_volume(dataset.test["held_out"][0],
                          config.Acquisition())[0].measurement.noise == np.float32(one.noise)


def test_batches_are_of_the_training_files_of_one_shape(folder):
    np.savez(folder / "wide.npz", kspace=kspace(9, coils=2))
    np.savez(folder / "wider.npz", kspace=kspace(8, coils=2))
    dataset = scans.make(path=str(folder), test=("scan1",), validation=("scan3",))
    assert dataset.split["train"] == ["scan0", "scan2", "scan4", "wide", "wider"]
    coils = set()
    for step in range(8):
        batch = training_batch(dataset, config.Acquisition(), 0, step, 3)
        again = training_batch(dataset, config.Acquisition(), 0, step, 3)
        np.testing.assert_array_equal(batch.measurement.kspace, again.measurement.kspace)
        coils.add(batch.measurement.kspace.shape[1])
    assert coils == {1, 2}


def test_fastmri_files_are_taken_with_their_own_mask(tmp_path):
    mask = np.isin(np.arange(36), [0, 4, 9, *range(14, 22), 27, 31])
    fastmri_fixture.write(tmp_path / "a.h5", mask=mask, with_reference=False)
    sample = scans.make(path=str(tmp_path), split=False).test["all"][0].load()[0]
    np.testing.assert_array_equal(sample.mask, np.broadcast_to(mask, (40, 36)))


def test_a_run_keeps_its_split_when_files_are_added(folder, tmp_path):
    options = config.data("scans", path=str(folder))
    write_split(scans.make(path=str(folder)), options, tmp_path)
    before = scans.make(path=str(folder)).split
    for seed in range(5, 9):
        np.save(folder / f"scan{seed}.npy", kspace(seed))
    after = restore_split(scans.make(path=str(folder)), options, tmp_path)
    assert after.split == before


@pytest.mark.parametrize(("change", "message"), [
    ({"path": ""}, "the data set scans has no path"),
    ({"path": "nowhere"}, "no such file or folder"),
    ({"test": ("scan9",)}, "test is"),
    ({"split": False}, "every file is for testing")])
def test_what_cannot_be_is_one_line(folder, change, message):
    with pytest.raises(InputError, match=message):
        scans.make(**{"path": str(folder)} | change).draw(np.random.default_rng(0), 1)


def test_a_fully_sampled_file_is_named(folder):
    np.save(folder / "full.npy", scan_of(slices=1, coils=1, shape=SHAPE)[0])
    full = scans.make(path=str(folder / "full.npy"), split=False).test["all"][0]
    with pytest.raises(InputError, match="full.npy: is fully sampled, expected undersampled"):
        full.load()


def test_noise_is_not_added_to_scans(folder):
    whole = config.experiment(data=config.data("scans", path=str(folder)))
    assert config.make_dataset(whole).split["train"]
    whole.acquisition.noise = 0.01
    with pytest.raises(InputError, match="acquisition.noise is 0.01, expected 0 with the data set"):
        config.make_dataset(whole)


def test_a_file_that_is_gone_is_named(folder):
    dataset = scans.make(path=str(folder))
    with pytest.raises(InputError, match="scan99 of the run's split not found"):
        dataset.resplit({"train": ["scan99"], "validation": [], "test": []})
