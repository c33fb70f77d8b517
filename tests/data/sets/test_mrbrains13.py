import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from flatjax import cli, config
from flatjax.data import training_batch
from flatjax.data.sets import mrbrains13, volume
from flatjax.errors import InputError
from flatjax.experiments.config_file import load_config_file
from tests.support.volume_fixture import write_brainweb, write_mrbrains13

CONFIGS = Path(__file__).parents[3] / "configs"


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_mrbrains13(tmp_path_factory.mktemp("MRBrainS13"))


@pytest.fixture
def make(tree, tmp_path):
    def make_dataset(**options):
        return mrbrains13.make(**{"path": str(tree), "cache": str(tmp_path)} | options)
    return make_dataset


def loaded(volumes):
    return {v.name: np.stack([s.target for s in v.load()]) for v in volumes}


def test_split_by_subject(make, tree):
    dataset = make(contrasts=("T1", "T2_FLAIR"), test=("5",), coils=2)
    assert sorted(sum(dataset.split.values(), [])) == ["1", "2", "3", "4", "5"]
    assert [v.name for v in dataset.test["held_out"]] == ["5_T1", "5_T2_FLAIR"]
    assert len(dataset.validation) == 2 and len(dataset.split["train"]) == 3
    sample = dataset.draw(np.random.default_rng(0), 2)[1]
    assert sample.kspace.shape == (2, 20, 24) and sample.target.shape == (20, 24)
    for path in (tree, tree.parent):
        other = mrbrains13.make(path=str(path), cache=str(tree.parent / "kept"))
        assert len(other.test["held_out"]) == len(other.validation) == 1


@pytest.mark.parametrize("contrast, shape", [("T1", (20, 24)), ("T1_IR", (20, 24)),
                                             ("T2_FLAIR", (20, 24)), ("T1_1mm", (26, 20))])
def test_contrasts_are_their_files(make, tree, contrast, shape):
    found = loaded(make(contrasts=(contrast,), split=False).test["all"])
    assert sorted(found) == [f"{subject}_{contrast}" for subject in "12345"]
    one = volume.make(path=str(tree / "3" / f"{contrast}.nii"), split=False).test["all"]
    np.testing.assert_array_equal(found[f"3_{contrast}"], loaded(one)[contrast])
    assert found[f"3_{contrast}"].shape[1:] == shape


def test_contrasts_of_unlike_size_are_not_mixed(make):
    dataset = make(contrasts=mrbrains13.CONTRASTS)
    shapes = set()
    for seed in range(20):
        batch = {s.target.shape for s in dataset.draw(np.random.default_rng(seed), 3)}
        assert len(batch) == 1
        shapes |= batch
    assert shapes == {(20, 24), (26, 20)}


def test_labels_are_not_needed(tmp_path, make):
    path = write_mrbrains13(tmp_path / "some", ("1", "2", "3"))
    for file in [*path.glob("*/Labels*"), *path.glob("*/T1_1mm*")]:
        file.unlink()
    dataset = make(path=str(path))
    assert {role: len(names) for role, names in dataset.split.items()} == {
        "train": 1, "validation": 1, "test": 1}


def test_what_is_refused(make, tmp_path, tree):
    def refused(match, **options):
        with pytest.raises(InputError, match=match) as caught:
            make(**options)
        assert "\n" not in str(caught.value)

    refused("mrbrains13 has no path: set data.path", path="")
    refused("contrasts is .'T2',., expected a list of some of T1, T1_IR", contrasts=("T2",))
    refused("contrasts is 'T1', expected a list", contrasts="T1")
    refused("absent: cannot be read as a folder", path=str(tmp_path / "absent"))
    refused("no subject with volumes in it", path=str(tree / "1"))
    refused("test is .'7',., expected a list of some of 1, 2", test=("7",))
    path = write_mrbrains13(tmp_path / "gaps")
    (path / "2" / "T1_IR.nii").unlink()
    refused("2/T1_IR.nii: cannot be opened .No such file.*skip_bad",
            path=str(path), contrasts=("T1", "T1_IR"))
    content = (path / "4" / "T1.nii").read_bytes()
    (path / "4" / "T1.nii").write_bytes(content[:-100])
    refused("4/T1.nii: .*damaged", path=str(path))
    with pytest.warns(UserWarning, match="1 files are bad and left out: .*4/T1.nii"):
        assert "4" not in sum(make(path=str(path), skip_bad=True).split.values(), [])


@pytest.mark.parametrize("name", ["brainweb", "mrbrains13"])
def test_the_configs_fit_the_files(name, tree, tmp_path):
    path = write_brainweb(tmp_path / "files") if name == "brainweb" else tree
    full = load_config_file(str(CONFIGS / f"{name}.py"))
    full.data.update(path=str(path), cache=str(tmp_path / "kept"), matrix=32, contrasts=("T1",))
    dataset = config.make_dataset(full)
    assert [len(dataset.split[role]) for role in ("train", "validation", "test")] == [3, 1, 1]
    batch = training_batch(dataset, config.make_acquisition(full), 0, 0, 2)
    assert batch.kspace.shape == (2, 1, 32, 32)


def test_a_split_by_subject_is_trained_and_evaluated_by_the_programs(tree, tmp_path, capsys):
    workdir = tmp_path / "run"
    cli.main(["train", f"--config={CONFIGS / 'mrbrains13.py'}", f"--workdir={workdir}",
              f"--config.data.path={tree}", f"--config.data.cache={tmp_path / 'kept'}",
              "--config.data.matrix=16", "--config.method.name=unet",
              "--config.method.network.channels=2", "--config.method.network.pools=1",
              "--config.train.steps=1", "--config.train.warmup_steps=0",
              "--config.data.contrasts=('T1',)", "--config.evaluation.figures=0"])
    split = json.loads((workdir / "split.json").read_text())
    cli.main(["evaluate", f"--workdir={workdir}"])
    metrics = json.loads((workdir / "eval" / "metrics.json").read_text())
    assert metrics["test_set"] == "held_out"
    (file,) = (workdir / "eval" / "reconstructions").iterdir()
    assert file.name == f"{split['test'][0]}_T1.h5"
    with h5py.File(file) as opened:
        assert opened["reconstruction"].shape[1:] == (16, 16)
    for option, match in ((f"path={tmp_path / 'none'}", "cannot be read as a folder"),
                          ("contrasts=('T9',)", "contrasts is")):
        with pytest.raises(SystemExit) as caught:
            cli.main(["evaluate", f"--workdir={workdir}", f"--config.data.{option}"])
        assert caught.value.code == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("flatjax evaluate: error: ") and match in error
