import json
import os
import shutil
import warnings

import numpy as np
import pytest

from flatjax import config
from flatjax.data import splits, subjects
from flatjax.data.sets import folder, volume
from flatjax.errors import InputError
from tests.support.volume_fixture import (
    SHAPE,
    head,
    write_minc1,
    write_nifti,
    write_nrrd,
    write_raw,
)

NAMES = ("ann", "bob", "cy", "dan", "eve")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder of five subjects in three formats, one of them with two scans and stray files."""
    path = tmp_path_factory.mktemp("data") / "people"
    write_nifti(path / "ann.nii.gz", head(seed=1))
    write_nrrd(path / "bob.nrrd", head(seed=2))
    write_minc1(path / "cy" / "anat" / "cy_T1w.mnc.gz", head(seed=3))
    write_nifti(path / "dan" / "T1w.nii", head(seed=4))
    write_nifti(path / "dan" / "T2w.nii", head(seed=5))
    write_nrrd(path / "eve.nhdr", head(seed=6), encoding="raw", beside="eve.raw")
    (path / "notes.txt").write_text("not a volume")
    (path / ".hidden.nii").write_bytes(b"")
    return path


def loaded(volumes):
    return {v.name: np.stack([sample.target for sample in v.load()]) for v in volumes}


@pytest.mark.parametrize("count", [3, 4, 10, 57])
def test_every_subject_has_one_role(count):
    names = [f"s{i}" for i in range(count)]
    split = splits.split_subjects(names)
    assert sorted(sum(split.values(), [])) == sorted(names)
    assert len(split["test"]) == max(1, round(0.2 * count))
    assert len(split["validation"]) == max(1, round(0.1 * count))
    assert split == splits.split_subjects(names[::-1] + names[:1])
    others = [splits.split_subjects(names, seed=seed) for seed in range(1, 9)]
    assert any(one != split for one in others)


def test_a_name_may_have_bytes_that_are_no_utf_8():
    names = [*NAMES, os.fsdecode(b"eve\xff")]
    assert sorted(sum(splits.split_subjects(names).values(), [])) == sorted(names)


def test_subjects_may_be_named():
    split = splits.split_subjects(NAMES, test=("eve", "bob"), validation=("cy",))
    assert split == {"train": ["ann", "dan"], "validation": ["cy"], "test": ["bob", "eve"]}
    assert splits.split_subjects(NAMES, test=("eve",))["test"] == ["eve"]
    for options, match in (({"test": ("zoe",)}, "test is .'zoe',., expected a list of some of ann"),
                           ({"test": "ann"}, "test is 'ann', expected a list"),
                           ({"test": ("ann",), "validation": ("ann",)}, "ann both in validation"),
                           ({"test": NAMES}, "leave nobody to train on"),
                           ({"test_share": 1.0}, "test_share is 1.0, expected above 0 and below"),
                           ({"validation_share": 0}, "validation_share is 0, expected above 0")):
        with pytest.raises(InputError, match=match):
            splits.split_subjects(NAMES, **options)
    with pytest.raises(InputError, match="2 subjects .* at least 3; add some, test all"):
        splits.split_subjects(NAMES[:2])


def test_a_folder_of_any_formats(people, tmp_path):
    dataset = folder.make(path=str(people), split=False, cache=str(tmp_path))
    assert dataset.split == {"train": [], "validation": [], "test": list(NAMES)}
    found = loaded(dataset.test["all"])
    assert set(found) == {"ann", "bob", "cy", "dan_T1w", "dan_T2w", "eve"}
    for name, file in (("ann", "ann.nii.gz"), ("bob", "bob.nrrd"), ("eve", "eve.nhdr"),
                       ("cy", "cy/anat/cy_T1w.mnc.gz"), ("dan_T2w", "dan/T2w.nii")):
        one = volume.make(path=str(people / file), split=False)
        np.testing.assert_array_equal(found[name], loaded(one.test["all"])[one.test["all"][0].name])
    chosen = folder.make(path=str(people), pattern="*T1w*", split=False, cache=str(tmp_path))
    assert [v.name for v in chosen.test["all"]] == ["cy", "dan"]
    with pytest.raises(InputError, match="split=False every subject is for testing"):
        dataset.draw(np.random.default_rng(0), 1)


def test_nobody_is_in_two_parts(people, tmp_path, capsys):
    dataset = folder.make(path=str(people), test=("dan",), cache=str(tmp_path), coils=2)
    assert [v.name for v in dataset.test["held_out"]] == ["dan_T1w", "dan_T2w"]
    assert "folder train: 3 subjects" in capsys.readouterr().err
    seen = {s.target.tobytes() for s in dataset.draw(np.random.default_rng(0), 300)}
    seen |= {np.ascontiguousarray(s.target[:, ::-1]).tobytes()
             for s in dataset.draw(np.random.default_rng(0), 300)}
    everything = loaded(folder.make(path=str(people), split=False,
                                    cache=str(tmp_path)).test["all"])
    for name, images in everything.items():
        trained = name.partition("_")[0] in dataset.split["train"]
        assert any(image.tobytes() in seen for image in images) is trained
    first, second = (dataset.draw(np.random.default_rng(4), 3) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert a.kspace.shape == (2, 22, 19)
        np.testing.assert_array_equal(a.kspace, b.kspace)


def test_a_batch_has_one_shape(tmp_path):
    for i, shape in enumerate([SHAPE, SHAPE, SHAPE, (25, 22, 9), (25, 22, 9), (25, 22, 9)]):
        write_nifti(tmp_path / "sizes" / f"s{i}.nii", head(shape, i))
    dataset = folder.make(path=str(tmp_path / "sizes"), test=("s0",), validation=("s3",))
    seen = set()
    for seed in range(30):
        shapes = {s.target.shape for s in dataset.draw(np.random.default_rng(seed), 4)}
        assert len(shapes) == 1
        seen |= shapes
    assert seen == {(22, 19), (22, 25)}


def test_slices_are_prepared_once_and_again_if_their_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "few"
    for i in range(3):
        write_nifti(path / f"s{i}.nii", head(seed=i))
    reads = []
    monkeypatch.setattr(folder, "read_magnitude",
                        lambda *args: reads.append(args) or volume.read_magnitude(*args))
    before = loaded(folder.make(path=str(path), split=False).test["all"])
    kept = sorted((tmp_path / ".flatjax-few").iterdir())
    assert len(reads) == len(kept) == 3
    after = loaded(folder.make(path=str(path), split=False).test["all"])
    assert len(reads) == 3
    for name, images in before.items():
        np.testing.assert_array_equal(images, after[name])
    kept[0].write_bytes(b"spoilt")
    folder.make(path=str(path), split=False)
    assert len(reads) == 4
    write_nifti(path / "s1.nii", head(seed=9))
    changed = loaded(folder.make(path=str(path), split=False).test["all"])
    assert len(reads) == 5 and not np.array_equal(changed["s1"], before["s1"])
    write_nrrd(path / "s3.nhdr", head(seed=3), encoding="raw", beside="s3.raw")
    before = loaded(folder.make(path=str(path), split=False).test["all"])
    header = (path / "s3.nhdr").stat()
    write_nrrd(path / "s3.nhdr", head(seed=10), encoding="raw", beside="s3.raw")
    os.utime(path / "s3.nhdr", ns=(header.st_atime_ns, header.st_mtime_ns))
    changed = loaded(folder.make(path=str(path), split=False).test["all"])
    assert len(reads) == 7 and not np.array_equal(changed["s3"], before["s3"])


def test_linked_subjects_are_there_and_links_in_circles_end(people, tmp_path):
    path = tmp_path / "linked"
    path.mkdir()
    (path / "dan").symlink_to(people / "dan")
    (path / "cy").symlink_to(people / "cy")
    (path / "again").symlink_to(path)
    assert [str(file.relative_to(path)) for file in folder.find_volumes(path)] == [
        "cy/anat/cy_T1w.mnc.gz", "dan/T1w.nii", "dan/T2w.nii"]


def test_bad_folders(tmp_path, people):
    def refused(match, **options):
        with pytest.raises(InputError, match=match) as caught:
            folder.make(**{"path": str(people), "cache": str(tmp_path / "kept")} | options)
        assert "\n" not in str(caught.value)

    (tmp_path / "empty").mkdir()
    refused("no path", path="")
    refused("empty: holds no volume, expected files named .nii", path=str(tmp_path / "empty"))
    refused("absent: cannot be read as a folder .No such file", path=str(tmp_path / "absent"))
    refused("notes.txt: cannot be read as a folder .Not a dir", path=str(people / "notes.txt"))
    refused(r"none of its \d volumes matches '\*T3\*'", pattern="*T3*")
    refused("orientation is 'oblique'", orientation="oblique")
    refused("matrix is 5", matrix=5)
    refused("test is .'zoe',., expected a list", test=("zoe",))
    (tmp_path / "file").write_text("")
    refused("cannot write to the folder .*set data.cache", cache=str(tmp_path / "file" / "x"))
    refused("raw_dtype 'object'", raw_dtype="object",
            path=str(write_raw(tmp_path / "raws" / "a_8x8x8.rawb", head()).parent))


def test_bad_files_are_named_or_left_out(tmp_path):
    path = tmp_path / "mixed"
    for i in range(3):
        write_nifti(path / f"s{i}.nii", head(seed=i))
    (path / "s3.nii").write_bytes((path / "s2.nii").read_bytes()[:999])
    write_nifti(path / "s4.nii", 0 * head())
    with pytest.raises(InputError, match="s3.nii: .*damaged.*; 1 more files there are bad; or "):
        folder.make(path=str(path))
    with pytest.warns(UserWarning, match="2 files are bad and left out: .*s3.nii.*s4.nii: every"):
        dataset = folder.make(path=str(path), skip_bad=True)
    assert sorted(sum(dataset.split.values(), [])) == ["s0", "s1", "s2"]


def test_a_run_says_who_it_was_trained_on_and_stays_with_it(people, tmp_path, capsys):
    path = tmp_path / "own"
    shutil.copytree(people, path)
    options = config.data("folder", path=str(path), matrix=32)

    def opened(**changed):
        other = options.copy_and_resolve_references()
        other.update(changed)
        dataset = config.make_dataset(config.experiment(data=other))
        return splits.restore_split(dataset, other, tmp_path)

    with pytest.raises(InputError, match="2 subjects .cy, dan. leave nobody"):
        opened(pattern="*[!2]w*")
    splits.write_split(opened(), options, tmp_path)
    split = json.loads((tmp_path / "split.json").read_text())
    assert sorted(split["train"] + split["validation"] + split["test"]) == list(NAMES)
    assert split["path"] == str(path) and split["data"]["split_seed"] == 0
    for i in range(20):
        write_nifti(path / f"new{i}.nii", head(seed=i))
    roles = {role: split[role] for role in splits.ROLES}
    assert config.make_dataset(config.experiment(data=options)).split != roles
    capsys.readouterr()
    restored = opened()
    assert restored.split == roles and "new0" in capsys.readouterr().err
    tested = {volume.name.partition("_")[0] for volume in restored.test["held_out"]}
    assert tested == set(split["test"])
    moved = tmp_path / "moved"
    shutil.copytree(path, moved)
    assert opened(path=str(moved)).split == roles
    with pytest.raises(InputError, match="who the run was trained on, would be tested"):
        opened(test=tuple(split["train"][:1]))
    assert opened(split=False).split == {
        "train": [], "validation": [],
        "test": sorted([*NAMES, *(f"new{i}" for i in range(20))])}
    assert "are among the tested" in capsys.readouterr().err
    # who is gone is missed: at once if tested, when trained if trained on
    for name in (split["train"][0], split["test"][0]):
        for file in path.glob(f"{name}*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        if name == split["train"][0]:
            with pytest.raises(InputError, match=f"{name} of the run's split not found"):
                opened().draw(np.random.default_rng(0), 1)
    with pytest.raises(InputError, match=f"{name}.* of the run's split not found"):
        opened()
    (tmp_path / "split.json").write_text("{}")
    with pytest.raises(InputError, match="split.json: not a split that flatjax wrote"):
        opened()


def test_names_are_unique():
    assert subjects.unique_names(["a", "a", "a-2", "b"]) == ["a", "a-2", "a-2-2", "b"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert subjects.unique_names([]) == []
