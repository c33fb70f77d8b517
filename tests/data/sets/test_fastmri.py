import json
import os
import shutil
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import jax
import numpy as np
import pytest

from flatjax import config, data, mri
from flatjax.data import Acquisition, Sample
from flatjax.data.batches import measure_slice, measure_volume, training_batch
from flatjax.data.io import fastmri as fastmri_files, hdf5
from flatjax.data.io.header import Header
from flatjax.data.sets import fastmri
from flatjax.errors import InputError
from flatjax.evaluation import metrics
from flatjax.evaluation.scoring import quality
from flatjax.experiments.config_file import load_config_file, override
from flatjax.mri.host import sensitivities, simulate
from flatjax.mri.host.masks import center_mask, make_mask
from tests.support import fastmri_fixture as fixture

KINDS = {"single": ("singlecoil", "sense"), "rss": ("multicoil", "rss"),
         "sense": ("multicoil", "sense")}
FULL = Acquisition("random", 4, 0.12)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {challenge: fixture.write_folder(tmp_path_factory.mktemp(challenge), challenge)
            for challenge in ("singlecoil", "multicoil")}


def make(path, kind="single", **options):
    challenge, combine = KINDS[kind]
    return fastmri.make(**({"path": str(path), "challenge": challenge, "combine": combine,
                            "calibration": 0.12} | options))


def one_file(tmp_path, kind="single", name="a.h5", **options):
    """A folder to validate on, of one file."""
    challenge, _ = KINDS[kind]
    fixture.write(tmp_path / f"{challenge}_val" / name, coils=0 if kind == "single" else 4,
                  **options)
    return tmp_path


def stored(path, name):
    with h5py.File(path) as file:
        return file[name][()]


def bits(samples):
    return [np.asarray(array).tobytes() for sample in samples for array in sample]


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_keeps_the_contract(folders, kind):
    challenge, combine = KINDS[kind]
    dataset = make(folders[challenge], kind)
    samples = [s for v in dataset.validation for s in v.load()]
    for seed in range(6):
        samples += dataset.draw(np.random.default_rng(seed), 2)
    assert {s.kspace.shape[-2:] for s in samples} == {(40, 36), (40, 33)}
    for sample in samples:
        assert sample.kspace.shape == sample.maps.shape
        assert len(sample.kspace) == (4 if challenge == "multicoil" else 1)
        assert sample.kspace.dtype == sample.maps.dtype == np.complex64
        assert sample.target.dtype == np.float32 and sample.target.min() >= 0
        np.testing.assert_allclose(np.sum(np.abs(sample.maps) ** 2, axis=0), 1, atol=1e-5)
        # the device's operators turn the file's k-space into its reference
        image = mri.combine(sample.kspace[None], sample.maps[None], combine)[0]
        image = mri.center_crop(image, sample.target.shape)
        np.testing.assert_allclose(image, sample.target, atol=1e-6 * sample.target.max())


@pytest.mark.parametrize("kind", ["single", "rss"])
def test_samples_are_what_the_file_holds(folders, kind):
    challenge, _ = KINDS[kind]
    dataset = make(folders[challenge], kind)
    volume = dataset.validation[0]
    file = Path(folders[challenge]) / f"{challenge}_val" / volume.name
    samples = volume.load()
    kspace = np.stack([s.kspace for s in samples])
    np.testing.assert_array_equal(kspace if kind == "rss" else kspace[:, 0],
                                  stored(file, "kspace"))
    np.testing.assert_array_equal(np.stack([s.target for s in samples]),
                                  stored(file, fixture.NAMES[challenge]))
    if kind == "single":
        assert all((s.maps == 1).all() for s in samples)


def test_the_sense_target_is_made_with_the_maps(folders):
    sample = make(folders["multicoil"], "sense").validation[0].load()[0]
    images = fixture.ifft2c(sample.kspace)
    expected = np.abs((sample.maps.conj() * images).sum(axis=0))[8:32, 6:30]
    np.testing.assert_allclose(sample.target, expected, atol=1e-6 * expected.max())
    rss = make(folders["multicoil"], "rss").validation[0].load()[0].target
    assert np.abs(sample.target - rss).max() > 1e-3 * rss.max()


def test_volumes_are_measured_with_fastmris_masks(folders):
    dataset = make(folders["multicoil"], "rss")
    assert [v.name for v in dataset.validation] == ["file1000011.h5", "file1000012.h5"]
    for volume, padding in zip(dataset.validation, ((2, 36), (0, 36)), strict=True):
        slices = measure_volume(volume, FULL)
        expected = make_mask("random", (40, 36), 4, 0.12, tuple(map(ord, volume.name)), padding)
        for one, sample in zip(slices, volume.load(), strict=True):
            assert sample.padding == padding
            np.testing.assert_array_equal(one.measurement.mask[0], expected)
            np.testing.assert_array_equal(one.measurement.kspace, expected * sample.kspace)


def test_masks_sample_nothing_in_the_padding(folders):
    dataset = make(folders["singlecoil"], volumes=("file1000001", "file1000011"))
    for step in range(20):
        batch = training_batch(dataset, FULL, 0, step, 2)
        mask = batch.measurement.mask
        assert mask[..., :3].max() == mask[..., 34:].max() == 0 and mask[..., 16:20].min() == 1
        assert np.abs(batch.kspace[..., :3]).max() == 0


def test_a_batch_has_one_shape_and_shapes_come_as_often_as_their_slices(folders):
    dataset = make(folders["singlecoil"])
    rng = np.random.default_rng(0)
    widths, slices = [], set()
    for _ in range(150):
        samples = dataset.draw(rng, 3)
        assert len({s.kspace.shape for s in samples}) == 1
        widths.append(samples[0].kspace.shape[-1])
        slices |= {s.kspace.tobytes() for s in samples}
    assert 35 <= widths.count(33) <= 65  # 4 of 12 slices are in the narrow file
    assert len(slices) == 12
    two = make(folders["singlecoil"], slices=(0, 1), fraction=1.0,
               volumes=("file1000001", "file1000002", "file1000011"))
    widths = {two.draw(rng, 1)[0].kspace.shape[-1] for _ in range(30)}
    assert widths == {33, 36}  # one slice of each


def test_draws_are_pure_and_thread_safe(folders):
    dataset = make(folders["multicoil"], "rss")
    alone = [bits(dataset.draw(np.random.default_rng(seed), 2)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = pool.map(lambda seed: bits(dataset.draw(np.random.default_rng(seed), 2)),
                            range(8))
        assert list(together) == alone
    assert len({one[0] for one in alone}) > 3


def test_tall_targets_are_scored_square_as_fastmri_does(tmp_path):
    path = one_file(tmp_path, "rss", crop=(32, 20), slices=2)
    fixture.write(path / "multicoil_train" / "b.h5", coils=4, crop=(32, 20))
    dataset = make(path, "rss")
    assert dataset.draw(np.random.default_rng(0), 1)[0].target.shape == (32, 20)
    slices = measure_volume(dataset.validation[0], FULL)
    target = np.stack([one.target for one in slices])
    zero_filled = np.stack([
        mri.combine(one.measurement.kspace, one.measurement.maps, "rss") for one in slices])
    image = stored(path / "multicoil_val" / "a.h5", "reconstruction_rss")[:, 6:26]
    scores = quality(prediction=mri.center_crop(zero_filled, target.shape[1:]), target=target)
    assert scores["nmse"] == pytest.approx(
        np.sum((image - zero_filled[:, 10:30, 8:28]) ** 2.0) / np.sum(image**2.0), rel=1e-5)
    assert scores["ssim"] == metrics.ssim(prediction=zero_filled[:, 10:30, 8:28], target=image)


@pytest.mark.parametrize("shape, crop, expected", [
    ((40, 22), (24, 24), (22, 22)),  # narrow, as fastMRI's "FLAIR 203"
    ((20, 36), (24, 24), (20, 20)),
    ((41, 33), (25, 20), (20, 20)),
    ((24, 24), (24, 24), (24, 24)),
])
@pytest.mark.parametrize("with_reference", [True, False])
def test_target_sizes(tmp_path, shape, crop, expected, with_reference):
    path = one_file(tmp_path, shape=shape, crop=crop, with_reference=with_reference)
    samples = make(path).validation[0].load()
    kspace = stored(path / "singlecoil_val" / "a.h5", "kspace")
    for sample, image in zip(samples, fixture.reference(kspace, expected), strict=True):
        assert sample.target.shape == expected
        np.testing.assert_allclose(sample.target, image, atol=1e-6 * image.max())


def test_validation_is_tested_unless_there_is_a_test_folder(folders, tmp_path):
    dataset = make(folders["singlecoil"])
    assert list(dataset.test) == ["validation"]
    path = shutil.copytree(folders["singlecoil"], tmp_path / "copy")
    fixture.write(path / "held_out" / "c.h5", seed=9)
    assert [v.name for v in make(path, test="held_out").test["test"]] == ["c.h5"]
    fixture.write(path / "singlecoil_test" / "d.h5", with_reference=False)  # fastMRI's: not taken
    assert list(make(path).test) == ["validation"]
    shutil.move(path / "held_out", path / "singlecoil_test_full")
    assert [v.name for v in make(path).test["test"]] == ["c.h5"]
    assert [v.name for v in make(path).validation] == ["file1000011.h5", "file1000012.h5"]
    other = make(path, train="singlecoil_val", validation=str(path / "singlecoil_train"))
    assert len(other.validation) == 3


def test_folders_without_fastmris_prefix(tmp_path):
    for name in ("train", "val", "test"):
        fixture.write(tmp_path / name / f"{name}.h5")
    dataset = make(tmp_path)
    assert [v.name for v in dataset.validation] == ["val.h5"]
    assert [v.name for v in dataset.test["test"]] == ["test.h5"]


def test_without_training_volumes_only_drawing_fails(tmp_path):
    dataset = make(one_file(tmp_path))
    with pytest.raises(InputError, match="holds no training volumes.*set data.train"):
        dataset.draw(np.random.default_rng(0), 1)
    assert len(dataset.validation[0].load()) == 3


def test_filters(folders, capsys):
    path = folders["singlecoil"]

    def train_widths(**options):
        dataset = make(path, **options)
        return {dataset.draw(np.random.default_rng(i), 1)[0].kspace.shape[-1] for i in range(20)}

    assert train_widths(acquisition_filter=("CORPD_FBK",)) == {36}
    chosen = ("file1000002.h5", "file1000012")
    assert train_widths(volumes=chosen) == {33}
    assert [v.name for v in make(path, volumes=chosen).validation] == ["file1000012.h5"]
    assert len(make(path, validation_fraction=0.5).validation) == 1
    assert len(make(path, validation_fraction=0.5).test["validation"]) == 2
    capsys.readouterr()
    make(path, slices=(1, -1))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("fastmri train: 2 volumes in ")
    assert "2 slices of 40 x 33; 4 slices of 40 x 36" in lines[0]
    sliced = make(path, slices=(1, 3)).validation[0].load()
    assert bits(sliced) == bits(make(path).validation[0].load()[1:3])


def test_a_smaller_fraction_is_a_part_of_a_larger(tmp_path):
    one = one_file(tmp_path, slices=1)
    file = one / "singlecoil_val" / "a.h5"
    for i in range(20):
        shutil.copy(file, file.with_name(f"file{i}.h5"))
    sets = [{v.name for v in make(one, validation_fraction=part).validation}
            for part in (0.01, 0.25, 0.5, 1.0)]
    assert [len(names) for names in sets] == [1, 5, 10, 21]
    assert sets[0] < sets[1] < sets[2] < sets[3]
    assert sets[2] != set(sorted(sets[3])[:10]), "not simply the first ones"


def test_attributes_and_header_are_indexed(tmp_path):
    path = one_file(tmp_path, padding=(3, 34))
    folder = path / "singlecoil_val"
    fixture.write(folder / "b.h5", attributes=False, with_reference=False, recon=(30, 28))
    (first, second), errors = fastmri_files.index_folder(folder)
    assert errors == {} and (first.name, second.name) == ("a.h5", "b.h5")
    assert first.attributes["acquisition"] == "CORPD_FBK" and first.attributes["patient_id"] == "p0"
    assert (first.padding, second.padding) == ((3, 34), (0, 36))
    assert second.attributes == {} and first.own_mask() is None
    assert "reconstruction_esc" in first.references and second.references == []
    assert first.crop == (24, 24) and second.crop == (30, 28)


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were opened, each time."""
    names = []

    class Counted(h5py.File):
        def __init__(self, name, *args, **options):
            names.append(Path(name).name)
            super().__init__(name, *args, **options)

    def isolated(function, file, *args):  # that opens it in another process
        names.append(file.name)
        return hdf5.isolated(function, file, *args)

    monkeypatch.setattr(hdf5.h5py, "File", Counted)
    monkeypatch.setattr(fastmri_files, "isolated", isolated)
    return names


def test_the_index_spares_opening_files_again(tmp_path, opened):
    path = Path(fixture.write_folder(tmp_path))
    opened.clear()
    make(path)
    assert len(opened) == 5
    opened.clear()
    before = make(path)
    assert opened == []
    changed = path / "singlecoil_val" / "file1000011.h5"
    fixture.write(changed, seed=5, slices=1)
    (path / "singlecoil_train" / "file1000003.h5").unlink()
    opened.clear()
    after = make(path)
    assert opened == ["file1000011.h5"]
    assert len(after.validation[0].load()) == 1 and len(before.validation) == 2
    saved = json.loads((path / fastmri_files.INDEX_NAME.format("singlecoil_train")).read_text())
    assert sorted(saved["files"]) == ["file1000001.h5", "file1000002.h5"]
    inside = [file.suffix for file in path.glob("*/*")]
    assert set(inside) == {".h5"}, "fastMRI's own loader opens whatever lies there"


@pytest.mark.parametrize("damage", [
    "", "{", "[]", '{"version": 4}', '{"version": 4, "files": {"file1000011.h5": {"name": 1}}}',
    "version", "\x00\x01", "[" * 100_000, "shapes",
])
def test_a_damaged_index_is_made_anew(tmp_path, opened, damage):
    path = Path(fixture.write_folder(tmp_path))
    expected = bits(make(path).validation[0].load())
    index = path / fastmri_files.INDEX_NAME.format("singlecoil_val")
    good = index.read_text()
    changed = {"shapes": good.replace("[", '["x",'),
               "version": good.replace('"version": 4', '"version": 0')}
    index.write_text(changed.get(damage, damage))
    opened.clear()
    assert bits(make(path).validation[0].load()) == expected
    assert opened[:2] == ["file1000011.h5", "file1000012.h5"]
    assert index.read_text() == good


def test_the_index_can_lie_elsewhere_or_nowhere(tmp_path, opened, monkeypatch):
    path, cache = Path(fixture.write_folder(tmp_path / "data")), tmp_path / "cache"
    make(path, cache=str(cache))
    assert len(list(cache.glob("*.json"))) == 2
    assert not list(path.rglob("*.json"))
    opened.clear()
    make(path, cache=str(cache))
    assert opened == []

    def refuse(path, value):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fastmri_files, "write_json", refuse)
    with pytest.warns(UserWarning, match="cannot be kept.*set data.cache"):
        dataset = make(path)
    assert len(dataset.validation) == 2 and len(opened) == 5
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to the folder"):
        make(path, cache=str(tmp_path / "file"))


def test_reading_a_slice_reads_no_other(folders, monkeypatch):
    dataset = make(folders["multicoil"], "rss")
    read = []
    original = h5py.Dataset.__getitem__

    def recorded(self, key, *args):
        value = original(self, key, *args)
        read.append((self.name, np.size(value)))
        return value

    monkeypatch.setattr(h5py.Dataset, "__getitem__", recorded)
    samples = dataset.draw(np.random.default_rng(0), 2)
    assert read == []  # until a sample is looked at
    samples[1]
    assert sorted(name for name, _ in read) == ["/kspace", "/reconstruction_rss"]
    assert max(size for _, size in read) <= 4 * 40 * 36


def masked(tmp_path, kind="rss", sampled=8, **options):
    mask = np.zeros(36)
    mask[::3] = 1
    mask[18 - sampled // 2:18 + sampled // 2] = 1
    one_file(tmp_path, kind, "full.h5")
    challenge, _ = KINDS[kind]
    fixture.write(tmp_path / f"{challenge}_test" / "t.h5", coils=0 if kind == "single" else 4,
                  mask=mask, padding=(2, 35), **options)
    return mask * (np.arange(36) >= 2) * (np.arange(36) < 35)


CARRIES_MASKS = pytest.mark.skipif("mask" not in Sample._fields,
                                   reason="the contract has no place for a file's own mask yet")


@CARRIES_MASKS
@pytest.mark.parametrize("kind", ["single", "rss"])
def test_a_files_own_mask_is_the_one_it_is_measured_with(tmp_path, kind):
    expected = masked(tmp_path, kind, with_reference=False)
    challenge, _ = KINDS[kind]
    volume, = make(tmp_path, kind, test=f"{challenge}_test").test["test"]
    kspace = stored(tmp_path / f"{challenge}_test" / "t.h5", "kspace")
    for one, values in zip(measure_volume(volume, FULL), kspace, strict=True):
        np.testing.assert_array_equal(one.measurement.mask, expected[None, None])
        np.testing.assert_array_equal(np.squeeze(one.measurement.kspace), values)
        assert one.target.shape == (24, 24) and np.isnan(one.target).all()


@CARRIES_MASKS
def test_a_masked_file_may_have_full_kspace_or_a_reference(tmp_path):
    masked(tmp_path, apply_mask=False, with_reference=False)
    file = tmp_path / "multicoil_test" / "t.h5"
    volume, = make(tmp_path, "rss", test="multicoil_test").test["test"]
    full = stored(file, "kspace")
    for sample, image in zip(volume.load(), fixture.reference(full, (24, 24)), strict=True):
        np.testing.assert_allclose(sample.target, image, atol=1e-6 * image.max())
        one = measure_slice(sample, FULL, 0, np.random.default_rng(0))
        np.testing.assert_array_equal(one.measurement.kspace, one.kspace * sample.mask)
    masked(tmp_path)
    volume, = make(tmp_path, "rss", test="multicoil_test").test["test"]
    np.testing.assert_array_equal(np.stack([s.target for s in volume.load()]),
                                  stored(file, "reconstruction_rss"))


def test_what_masked_files_cannot_be_used_for(tmp_path):
    masked(tmp_path, sampled=4)
    for role in ("train", "validation"):
        with pytest.raises(InputError, match=f"t.h5: kspace is undersampled.*for {role}; name"):
            make(tmp_path, "rss", **{role: "multicoil_test"})
    with pytest.raises(InputError, match="t.h5: .*no SENSE-combined target.*set combine to rss"):
        make(tmp_path, "sense", test="multicoil_test")
    with pytest.raises(InputError, match=r"t.h5: calibration = 0.5 takes 18 central columns .* "
                                         "to the 4 that are sampled"):
        make(tmp_path, "rss", test="multicoil_test", calibration=0.5)


def test_empty_slices_are_accepted(tmp_path):
    kspace = fixture.make_kspace(0, 3, 4, (40, 36), (0, 36))
    kspace[1:] = 0
    path = one_file(tmp_path, "rss", kspace=kspace,
                    reconstruction_rss=fixture.reference(kspace, (24, 24)))
    slices = measure_volume(make(path, "rss").validation[0], FULL)
    assert [float(one.target.max()) > 0 for one in slices] == [True, False, False]
    assert all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(slices))


BOMB = "".join(["<!DOCTYPE a [", '<!ENTITY a0 "aaaaaaaaaa">',
                *(f'<!ENTITY a{i} "{f"&a{i - 1};" * 20}">' for i in range(1, 12)), "]>"])


def header(old=b"", new=b"", prologue=""):
    return fixture.header_xml((40, 36), (24, 24), (0, 36), prologue).replace(old, new)


def nan_at(shape, where, dtype):
    values = np.ones(shape, dtype)
    values[where] = np.nan
    return values


BAD = {
    "no kspace": ({"kspace": None}, "has no dataset kspace, only ismrmrd_header"),
    "rank": ({"kspace": np.ones((3, 36), np.complex64)}, r"kspace is complex64 of shape \(3, 36\)"),
    "real": ({"kspace": np.ones((3, 40, 36), np.float32)}, "kspace is float32 .*expected complex"),
    "no slice": ({"kspace": np.ones((0, 40, 36), np.complex64)},
                 r"kspace is complex64 of shape \(0, 40, 36\)"),
    "coils": ({"kspace": np.ones((3, 4, 40, 36), np.complex64)},
              r"kspace has shape \(3, 4, 40, 36\).*set data.challenge, or name"),
    "nan": ({"kspace": nan_at((3, 40, 36), (1, 5, 5), np.complex64)},
            "slice 1 of kspace has 1 values that are NaN"),
    "zero": ({"kspace": np.zeros((3, 40, 36), np.complex64)}, "kspace is zero in every slice"),
    "reference size": ({"reconstruction_esc": np.ones((3, 50, 50), np.float32)},
                       "reconstruction_esc is 50 x 50, expected .* 40 x 36"),
    "reference count": ({"reconstruction_esc": np.ones((2, 24, 24), np.float32)},
                        r"reconstruction_esc is .*\(2, 24, 24\), expected real \(3, h, w\)"),
    "complex reference": ({"reconstruction_esc": np.ones((3, 24, 24), np.complex64)},
                          "reconstruction_esc is complex64"),
    "nan reference": ({"reconstruction_esc": nan_at((3, 24, 24), (1, 0, 0), np.float32)},
                      "slice 1 of reconstruction_esc has 1 values"),
    "recon size": ({"with_reference": False, "recon": (60, 60)}, "reconSpace .* is 60 x 60"),
    "mask length": ({"mask": np.ones(35), "apply_mask": False},
                    r"mask has shape \(35,\), expected \(36,\)"),
    "mask values": ({"mask": np.full(36, 0.5)}, "mask has values from 0.5 to 0.5, expected 0 and"),
    "empty mask": ({"mask": np.zeros(36), "apply_mask": False}, "mask has values from 0 to 0"),
    "no header": ({"ismrmrd_header": None}, "has no dataset ismrmrd_header, only kspace"),
    "header kind": ({"ismrmrd_header": np.ones(3)}, r"ismrmrd_header is float64 of shape \(3,\)"),
    "header cut": ({"ismrmrd_header": header()[:700]}, "ismrmrd_header is not well-formed XML"),
    "header empty": ({"ismrmrd_header": b" "}, "ismrmrd_header is not well-formed XML"),
    "header field": ({"ismrmrd_header": header(b"<y>36</y>")},
                     "ismrmrd_header has '' at ismrmrdHeader/encoding/encodedSpace/matrixSize/y"),
    "header number": ({"ismrmrd_header": header(b"<y>36</y>", b"<y>3.6</y>")},
                      "ismrmrd_header has '3.6' at .*/y .*expected a whole number from 1 to 65535"),
    "header large": ({"ismrmrd_header": header(b"<y>36</y>", b"<y>" + b"9" * 10**5 + b"</y>")},
                     "ismrmrd_header has '9{20}' at"),
    "header namespace": ({"ismrmrd_header": header(b"www.ismrm.org", b"example.org")},
                         "ismrmrd_header has '' at .* in the namespace http://www.ismrm.org/ISMRMRD"),
    "header padding": ({"ismrmrd_header": header(b"<center>18<", b"<center>60<")},
                       "by its header columns -42 to -6 were acquired"),
    "billion laughs": ({"ismrmrd_header": header(b"<y>36</y>", b"<y>&a11;</y>", BOMB)},
                       "ismrmrd_header declares a document type"),
    "external entity": ({"ismrmrd_header": header(
        b"<y>36</y>", b"<y>&a;</y>", '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/hostname">]>')},
        "ismrmrd_header declares a document type"),
    "undefined entity": ({"ismrmrd_header": header(b"<y>36</y>", b"<y>&a;</y>")},
                         "ismrmrd_header is not well-formed XML .undefined entity"),
    "header size": ({"ismrmrd_header": header(b"<trajectory>", b" " * 2**22 + b"<trajectory>")},
                    "ismrmrd_header has .* bytes, expected at most 4194304"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_or_left_out(tmp_path, case):
    options, message = BAD[case]
    path = one_file(tmp_path, name="bad.h5", **options)
    one_file(tmp_path, name="good.h5")
    with pytest.raises(InputError, match=f"bad.h5: {message}") as caught:
        make(path)
    assert "\n" not in str(caught.value) and "skip_bad" in str(caught.value)
    with pytest.warns(UserWarning, match=f"1 files are bad and left out: .*bad.h5: {message}"):
        dataset = make(path, skip_bad=True)
    assert [v.name for v in dataset.validation] == ["good.h5"]


@pytest.mark.parametrize("case, reason", [
    ("half", "is cut short or damaged"), ("empty", "is cut short or damaged"),
    ("text", "is cut short or damaged, or of another format"), ("folder", "cannot be opened"),
    ("dangling", "cannot be "), ("group", "has no dataset kspace"),
    ("link", "has no dataset kspace"),
])
def test_damaged_files_are_refused_or_left_out(tmp_path, case, reason):
    path = one_file(tmp_path, name="good.h5")
    bad = path / "singlecoil_val" / "bad.h5"
    whole = (path / "singlecoil_val" / "good.h5").read_bytes()
    if case in ("half", "empty", "text"):
        bad.write_bytes({"half": whole[:len(whole) // 2], "empty": b"", "text": b"x" * 999}[case])
    elif case == "folder":
        bad.mkdir()
    elif case == "dangling":
        bad.symlink_to("nowhere.h5")
    else:
        with h5py.File(bad, "w") as file:
            if case == "group":
                file.create_group("kspace")
            else:
                file["kspace"] = h5py.SoftLink("/nowhere")
    with pytest.raises(InputError, match=f"bad.h5: {reason}"):
        make(path)
    with pytest.warns(UserWarning, match="left out"):
        assert len(make(path, skip_bad=True).validation) == 1


def test_all_bad_files_are_counted_and_the_good_ones_indexed(tmp_path, opened):
    path = one_file(tmp_path, name="good.h5")
    for i in range(3):
        (path / "singlecoil_val" / f"bad{i}.h5").write_bytes(b"")
    with pytest.raises(InputError, match="bad0.h5: .*; 2 more files there are bad"):
        make(path)
    opened.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make(path, skip_bad=True)
    assert len(caught) == 1 and "3 files are bad" in str(caught[0].message)
    assert "good.h5" not in opened
    (path / "singlecoil_val" / "good.h5").unlink()
    with pytest.warns(UserWarning), pytest.raises(InputError, match="nothing is left of 0 good"):
        make(path, skip_bad=True)


def test_a_slice_that_is_not_finite_is_refused_when_it_is_read(tmp_path):
    kspace = fixture.make_kspace(0, 5, 0, (40, 36), (0, 36))
    kspace[4, 3, 3] = np.inf
    path = one_file(tmp_path, kspace=kspace, slices=5)
    volume = make(path).validation[0]
    with pytest.raises(InputError, match="a.h5: slice 4 of kspace has 1 values .*remove it"):
        volume.load()
    assert len(make(path, slices=(0, 4)).validation[0].load()) == 4


def test_a_file_that_vanishes_is_named(tmp_path):
    path = one_file(tmp_path)
    volume = make(path).validation[0]
    (path / "singlecoil_val" / "a.h5").unlink()
    with pytest.raises(InputError, match="a.h5: cannot be opened .No such file"):
        volume.load()


@pytest.mark.parametrize("options, message", [
    ({"path": ""}, "fastmri has no path: set data.path"),
    ({"path": "/nowhere"}, "/nowhere: no such folder, or it holds neither singlecoil_train"),
    ({"challenge": "both"}, "challenge is 'both', expected one of singlecoil, multicoil"),
    ({"combine": "esc"}, "combine is 'esc', expected one of sense, rss"),
    ({"combine": "rss"}, "combine is 'rss', expected 'sense' with challenge 'singlecoil'"),
    ({"fraction": 0.0}, "fraction is 0.0, expected above 0"),
    ({"validation_fraction": 1.5}, "validation_fraction is 1.5"),
    ({"calibration": 0.0}, "calibration is 0.0"),
    ({"slices": (1,)}, r"slices is \(1,\), expected two whole numbers"),
    ({"slices": (9, 12)}, r"nothing is left of 3 good files .*slices = \(9, 12\)"),
    ({"volumes": "file1000001.h5"}, "volumes is 'file1000001.h5', expected a list"),
    ({"volumes": ("file9.h5", "file1000001")}, "volumes: file9.h5 not found in"),
    ({"volumes": ("file1000001",)}, "no volume to validate or test on"),
    ({"acquisition_filter": ("AXT2",)},
     "acquisitions CORPDFS_FBK, CORPD_FBK, unknown by acquisition_filter = .'AXT2',."),
    ({"train": "nowhere"}, "nowhere: holds no .h5 files or cannot be read"),
    ({"challenge": "multicoil"}, "it holds neither multicoil_train nor multicoil_val"),
    ({"challenge": "multicoil", "train": "singlecoil_train"},
     r"kspace has shape \(2, 40, 36\), expected \(slice, coil, ky, kx\)"),
])
def test_bad_options(folders, options, message):
    with pytest.raises(InputError, match=message) as caught:
        make(**({"path": folders["singlecoil"]} | options))
    assert "\n" not in str(caught.value)


def test_one_file_of_one_size_or_one_time_is_not_taken_for_another(tmp_path, opened):
    path = one_file(tmp_path)
    file = path / "singlecoil_val" / "a.h5"
    make(path)
    size, then = file.stat().st_size, file.stat().st_mtime_ns
    fixture.write(file, seed=1)
    os.utime(file, ns=(then, then + 10**9))
    assert file.stat().st_size == size
    opened.clear()
    make(path)
    assert opened == ["a.h5"]
    fixture.write(file, slices=2)
    os.utime(file, ns=(then, then + 10**9))
    assert len(make(path).validation[0].load()) == 2


def test_what_was_indexed_until_an_interruption_is_kept(tmp_path, opened, monkeypatch):
    path = Path(fixture.write_folder(tmp_path))
    original = fastmri_files.read_record

    def interrupted(file, known):
        if file.name == "file1000002.h5":
            raise KeyboardInterrupt
        return original(file, known)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(fastmri_files, "read_record", interrupted)
        make(path)
    opened.clear()
    make(path)
    assert opened[:2] == ["file1000002.h5", "file1000003.h5"]


def test_an_empty_folder(tmp_path):
    (tmp_path / "singlecoil_val").mkdir()
    (tmp_path / "singlecoil_val" / "._file1.h5").write_bytes(b"")  # a Mac's, not data
    with pytest.raises(InputError, match="singlecoil_val: holds no .h5 files"):
        make(tmp_path)


def test_header_numbers():
    xml = fixture.header_xml((640, 372), (320, 310), (19, 351))
    width = "encoding/encodedSpace/matrixSize/y"
    assert Header(xml, "header").number(width) == 372
    assert Header(xml, "header").text("encoding/trajectory") == "cartesian"
    assert Header(xml, "header").spacing() == pytest.approx((162.4 / 372, 280 / 640, 4.5))
    split = xml.replace(b"<y>372<", b"<y> 3<!-- -->72\n<")
    assert Header(split, "header").number(width) == 372
    other = xml.decode().replace("utf-8", "utf-16").encode("utf-16")
    assert Header(other, "header").number(width) == 372


@pytest.mark.parametrize("xml", [
    b"<a>" * 10**6, b"<a>" * 500_000 + b"</a>" * 500_000,
    header(b"<y>36</y>", b"<y>" + b"1<!---->" * 400_000 + b"</y>"),
    b'<?xml version="1.0" encoding="rot13"?><a/>', b"<a " + b'b="c" ' * 600_000 + b"/>",
    b"\xff\xfe" + b"<\x00" * 1000, header(b"</ismrmrdHeader>"),
])
def test_hostile_headers_are_refused_quickly(xml):
    start = time.process_time()
    with pytest.raises(InputError):
        Header(xml, "header").number("encoding/encodedSpace/matrixSize/y")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("shape, coils", [((40, 36), 4), ((41, 33), 5)])
def test_maps_from_calibration_are_the_coils(shape, coils):
    rng = np.random.default_rng(0)
    truth = simulate.birdcage_maps(coils, shape)
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    inside = (y - 0.2) ** 2 + (x + 0.1) ** 2 < 0.4  # lop-sided: a shift or a flip shows
    image = inside * (1 + 0.1 * rng.random(shape)) * np.exp(0.5j * (y + x))
    kspace = simulate.host_fft2c(truth * image)
    maps = sensitivities.from_calibration(kspace, 11)
    assert maps.dtype == np.complex64 and maps.shape == kspace.shape
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=0), 1, atol=1e-5)
    agreement = np.abs(np.sum(maps.conj() * truth, axis=0))[inside]
    assert agreement.min() > 0.97 and np.median(agreement) > 0.998
    explained = (maps * np.sum(maps.conj() * truth * image, axis=0) - truth * image)[:, inside]
    assert np.linalg.norm(explained) < 0.05 * np.linalg.norm(truth * image)


def test_espirit_maps_and_virtual_coils_by_option(folders):
    plain = make(folders["multicoil"], "sense", calibration=0.2)
    other = make(folders["multicoil"], "sense", calibration=0.2, sensitivities="espirit",
                 virtual_coils=3)
    ours, theirs = (dataset.validation[0].load()[0] for dataset in (other, plain))
    assert ours.kspace.shape == ours.maps.shape == (3, *theirs.kspace.shape[1:])
    np.testing.assert_allclose(np.sum(np.abs(ours.maps) ** 2, axis=0), 1, atol=1e-4)
    kept = np.sum(np.abs(ours.kspace) ** 2) / np.sum(np.abs(theirs.kspace) ** 2)
    assert 0.95 < kept < 1.0001
    # whatever the coils and their maps, the image is the same one
    assert np.linalg.norm(ours.target - theirs.target) < 0.1 * np.linalg.norm(theirs.target)
    drawn = other.draw(np.random.default_rng(0), 2)
    assert [sample.kspace.shape[0] for sample in drawn] == [3, 3]


@pytest.mark.parametrize("options, message", [
    ({"sensitivities": "espirit"}, "calibration = 0.12 takes 4 central columns, expected at least "
                                   "6 for ESPIRiT"),
    ({"sensitivities": "given"}, "sensitivities is 'given', expected one of low_resolution, esp"),
    ({"virtual_coils": 5}, "kspace has 4 coils, fewer than virtual_coils = 5"),
    ({"virtual_coils": -1}, "virtual_coils is -1, expected at least 0"),
])
def test_bad_coil_options(folders, options, message):
    with pytest.raises(InputError, match=message):
        make(folders["multicoil"], "rss", **options)


def test_espirit_and_compression_see_only_what_masks_over_the_plane_sample(folders, monkeypatch):
    kspace = fixture.make_kspace(0, 1, 4, (64, 64), (0, 64))[0]
    center = center_mask("poisson", (64, 64), 6 / 64)
    assert center.any(1).sum() == 20 < 32
    np.testing.assert_array_equal(sensitivities.from_columns(kspace * center, 6, "espirit"),
                                  sensitivities.from_columns(kspace, 6, "espirit"))
    seen = []
    compress = fastmri.compression_matrix
    monkeypatch.setattr(fastmri, "compression_matrix", lambda center, coils: (
        seen.append(center.shape) or compress(center, coils)))
    sample = make(folders["multicoil"], "sense", calibration=0.2,
                  virtual_coils=3).validation[0].load()[0]
    center = center_mask("poisson", sample.kspace.shape[1:], 0.2)
    assert {shape[1] for shape in seen} == {center.any(1).sum()}
    assert all(shape[2] <= center.any(0).sum() for shape in seen)


def test_maps_see_only_the_calibration_columns():
    kspace = fixture.make_kspace(0, 2, 4, (40, 36), (0, 36))
    maps = sensitivities.from_calibration(kspace, 8)
    for columns in (7, 8):
        center = center_mask("random", (40, 36), columns / 36)
        one = sensitivities.from_calibration(kspace, columns)
        np.testing.assert_array_equal(
            sensitivities.from_calibration(kspace * center, columns), one)
    assert np.abs(sensitivities.from_calibration(kspace, 7) - maps).max() > 1e-3
    faint = sensitivities.from_calibration(kspace * np.float32(2**-60), 8)
    np.testing.assert_array_equal(faint, maps)
    for one, together in zip(kspace, maps, strict=True):
        np.testing.assert_allclose(sensitivities.from_calibration(one, 8), together, atol=1e-6)


@pytest.mark.parametrize("shape, num_low, rows", [((40, 36), 9, 10), ((41, 33), 8, 10)])
def test_maps_by_their_definition(shape, num_low, rows):
    kspace = fixture.make_kspace(0, 2, 4, shape, (0, shape[1]))
    kspace[1] *= 100
    weights = []
    for n, length in zip(shape, (rows, num_low), strict=True):
        frequency = np.arange(n) - n // 2
        inside = center_mask("random", (1, n), length / n)[0]
        weights.append(inside * np.cos(np.pi * frequency / (length + 1)) ** 2)
    window = weights[0][:, None] * weights[1]
    images = fixture.ifft2c(kspace.astype(np.complex128) * window)
    power = np.sqrt(np.sum(np.abs(images) ** 2, axis=1, keepdims=True))
    maps = sensitivities.from_calibration(kspace, num_low)
    well = power > 1e-3 * power.max(axis=(2, 3), keepdims=True)
    np.testing.assert_allclose(well * maps, well * images / power, atol=2e-4)
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=1), 1, atol=1e-5)


def test_maps_of_an_empty_slice():
    kspace = fixture.make_kspace(0, 2, 4, (40, 36), (0, 36))
    kspace[1] = 0
    maps = sensitivities.from_calibration(kspace, 10)
    assert np.abs(maps[0]).min(axis=0).max() > 0
    np.testing.assert_array_equal(maps[1], np.zeros_like(maps[1]))


CONFIGS = ["fastmri_knee_singlecoil", "fastmri_knee_multicoil"]


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_fit_the_files_and_need_a_path(folders, monkeypatch, name):
    monkeypatch.setitem(data.DATASETS, "fastmri", fastmri.make)
    file = Path(__file__).parents[3] / "configs" / f"{name}.py"
    assert f"--config=configs/{name}.py" in file.read_text()
    full = load_config_file(str(file))
    config.make_method(full)
    config.make_training(full, 1)
    assert full.combine == ("rss" if full.data.challenge == "multicoil" else "sense")
    assert full.data.calibration <= full.acquisition.center_fraction
    with pytest.raises(InputError, match="fastmri has no path"):
        config.make_dataset(full)
    small = override(
        full,
        [
            f"--config.data.path={folders[full.data.challenge]}",
            "--config.method.network.channels=2",
            "--config.method.network.pools=1",
            "--config.method.schedule.steps=2",
            "--config.data.volumes=('file1000001.h5', 'file1000011.h5')",
        ],
    )
    for option, match in (
            ("combine=rss", "combine is 'rss', expected 'sense' with challenge 'singlecoil'"),
            ("acquisition.center_fraction=0.01", "data.calibration is 0.0[48], expected at most")):
        if (full.data.challenge == "multicoil") == ("calibration" in match):
            with pytest.raises(InputError, match=match):
                config.make_dataset(override(full.copy_and_resolve_references(), [
                    f"--config.data.path={folders[full.data.challenge]}", f"--config.{option}"]))
    dataset = config.make_dataset(small)
    assert [v.name for v in dataset.validation] == ["file1000011.h5"]
    batch = training_batch(dataset, config.make_acquisition(small), 0, 0, 1)
    method = config.make_method(small)
    params = jax.jit(method.init)(jax.random.key(0), batch)
    assert np.isfinite(jax.jit(method.loss)(params, None, batch)[0])


def test_a_heap_without_end_is_refused_and_not_read_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5, "_SECONDS", 2.0)
    fixture.write(tmp_path / "a.h5", shape=(12, 10), crop=(8, 8))
    content = bytearray((tmp_path / "a.h5").read_bytes())
    heap = content.find(b"GCOL")
    first = 16 + -(-int.from_bytes(content[heap + 24:heap + 32], "little") // 8) * 8
    at = heap + 16 + first  # what follows the header: other strings or what is free
    content[at:at + 16] = bytes(16)
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(InputError, match="a.h5: the HDF5 library came to no end in 2 s"):
        fastmri_files.read_record(tmp_path / "a.h5")


def test_a_dataset_in_another_file_or_larger_than_the_file_is_refused(tmp_path):
    fixture.write(tmp_path / "a.h5", shape=(12, 10), crop=(8, 8))
    fixture.write(tmp_path / "b.h5", shape=(12, 10), crop=(8, 8), kspace=None)
    with h5py.File(tmp_path / "b.h5", "a") as content:
        content["kspace"] = h5py.ExternalLink(str(tmp_path / "a.h5"), "kspace")
    with pytest.raises(InputError, match="kspace lies in another file"):
        fastmri_files.read_record(tmp_path / "b.h5")
    fixture.write(tmp_path / "c.h5", shape=(12, 10), crop=(8, 8), kspace=None)
    with h5py.File(tmp_path / "c.h5", "a") as content:
        content.create_dataset("kspace", (3, 99999, 99999), np.complex64, chunks=(1, 64, 64))
    with pytest.raises(InputError, match="takes .* more than the file can hold"):
        fastmri_files.read_record(tmp_path / "c.h5")


def test_text_of_more_bytes_than_the_file_is_refused_before_memory_is_taken(tmp_path):
    fixture.write(tmp_path / "a.h5", shape=(12, 10), crop=(8, 8))
    content = bytearray((tmp_path / "a.h5").read_bytes())
    with h5py.File(tmp_path / "a.h5") as file:
        header, acquisition = file["ismrmrd_header"].id.get_offset(), len(file.attrs["acquisition"])
    heap = content.find(b"GCOL")
    references = [at - 4 for at in range(len(content))
                  if content[at:at + 8] == heap.to_bytes(8, "little")]
    lengths = [int.from_bytes(content[at:at + 4], "little") for at in references]
    assert header in references and acquisition in lengths
    for at in (header, references[lengths.index(acquisition)]):
        damaged = content[:at] + b"\xff" * 4 + content[at + 4:]
        (tmp_path / "a.h5").write_bytes(damaged)
        with pytest.raises(InputError, match="a.h5: .*memory allocation failed"):
            fastmri_files.read_record(tmp_path / "a.h5")
