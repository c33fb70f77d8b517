"""Trainings that are stopped, started twice, meet damaged checkpoints or NaN."""

import os
import shutil
import signal
import subprocess
from contextlib import closing, contextmanager, suppress

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flatjax.training.train as module
from flatjax.data import DATASETS, training_batch
from flatjax.errors import BusyError, InputError, StorageError, Terminated, TrainingError
from flatjax.files import locked
from flatjax.methods import Method
from flatjax.mri import Batch
from flatjax.runs.checkpoint import Checkpoints
from flatjax.training import loop
from flatjax.training.parallel import TrainState, make_update, skipped
from flatjax.training.train import make_optimizer, train
from tests.support import toy
from tests.support.limits import files_of_at_most


@pytest.fixture(autouse=True)
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a training of four steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "toy", toy.make)
        train(toy.experiment(), folder)
    return folder


def last_state(workdir):
    with closing(Checkpoints(workdir, "psnr")) as checkpoints:
        return checkpoints.load("latest")


def assert_same_end(workdir, whole):
    (step, state), (last, expected) = last_state(workdir), last_state(whole)
    assert step == last == 4
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def truncated(workdir, step, pattern, size=0):
    (path,) = (workdir / "checkpoints" / str(step)).glob(pattern)
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize("place, saved, number", [
    ("training", 3, signal.SIGTERM), ("validation", 1, signal.SIGTERM),
    ("training", 3, signal.SIGINT), ("validation", 1, signal.SIGINT)])
def test_sigterm_and_ctrl_c_save_leave_and_resume_to_the_same_bits(whole, tmp_path, monkeypatch,
                                                                   capfd, place, saved, number):
    def batch(dataset, acquisition, seed, step, *rows):
        if place == "training" and step == 3:
            os.kill(os.getpid(), number)
        return training_batch(dataset, acquisition, seed, step, *rows)

    def scored(*args):
        os.kill(os.getpid(), number)
        return score(*args)

    def two_volumes(*, size=16, broken=False):
        return toy.make()._replace(validation=toy.make().validation * 2)

    def one_by_one(make, steps, workers):
        yield from map(make, steps)

    score = module.score_volume
    with monkeypatch.context() as patch:
        patch.setattr(module, "training_batch", batch)
        patch.setattr(loop, "prefetch", one_by_one)
        patch.setitem(DATASETS, "toy", two_volumes)
        if place == "validation":
            patch.setattr(module, "score_volume", scored)
        before = signal.getsignal(number)
        with pytest.raises(Terminated, match=f"asked to stop by {number.name}; saved at step "
                           f"{saved}: the same command goes on") as left:
            train(toy.experiment(), tmp_path)
        assert signal.getsignal(number) is before and left.value.status == 128 + number
    told = "stopping after this step; Ctrl-C again stops without saving" in capfd.readouterr().err
    assert last_state(tmp_path)[0] == saved and told == (number == signal.SIGINT)
    train(toy.experiment(), tmp_path)
    assert_same_end(tmp_path, whole)


def test_a_second_ctrl_c_stops_at_once_and_one_before_the_first_step_saves_nothing(tmp_path,
                                                                                   monkeypatch):
    def interrupted(times):
        def batches(make, steps, workers):
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            yield make(0)
        return batches

    for times, error, words in ((1, Terminated, "no step was done and nothing is saved"),
                                (2, KeyboardInterrupt, "^$")):
        monkeypatch.setattr(loop, "prefetch", interrupted(times))
        with pytest.raises(error, match=words) as left:
            train(toy.experiment(), tmp_path)
        assert type(left.value) is error
        assert not list((tmp_path / "checkpoints").glob("*"))


def test_a_state_without_validation_is_resumed_from_but_is_never_the_best(tmp_path):
    with closing(Checkpoints(tmp_path, "psnr", create=True)) as checkpoints:
        for step, metrics in [(1, {"psnr": 3.0}), (2, None), (3, {"psnr": float("nan")})]:
            checkpoints.save(step, {"x": jnp.full(3, step)}, metrics)
    again = Checkpoints(tmp_path, "psnr")
    assert again.find("best")[0] == 1 and again.find("latest")[0] == 3


def test_a_second_training_in_a_workdir_refuses(tmp_path):
    with (locked(tmp_path / ".lock", "it"),
          pytest.raises(BusyError, match=f"the workdir .* is in use by process {os.getpid()}")):
        train(toy.experiment(), tmp_path)
    assert os.listdir(tmp_path) == [".lock"]


@pytest.mark.parametrize("pattern", ["state/d/*", "metrics/metrics"])
def test_a_truncated_checkpoint_is_passed_over_and_made_again(whole, tmp_path, capsys, pattern):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    truncated(tmp_path, 4, pattern)
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir()  # a killed save
    with closing(Checkpoints(tmp_path, "psnr")) as reader:  # an evaluation changes nothing
        assert reader.load("latest")[0] == 2
    assert (tmp_path / "checkpoints" / "4").exists()
    train(toy.experiment(), tmp_path)
    assert "skipping a checkpoint: cannot restore step 4" in capsys.readouterr().out
    assert_same_end(tmp_path, whole)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "4", "broken-4"]


def test_where_no_checkpoint_can_be_read_none_is_touched(whole, tmp_path, monkeypatch):
    """They may be of another version's optimizer, or the file system may fail for a moment."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for steps in ([2, 4], [4]):
        with monkeypatch.context() as patch:
            restore = Checkpoints.restore

            def fail(self, step, like=None, steps=steps, restore=restore):
                if step in steps:
                    raise InputError(f"cannot restore step {step}")
                return restore(self, step, like)

            patch.setattr(Checkpoints, "restore", fail)
            with closing(Checkpoints(tmp_path, "psnr", create=True)) as checkpoints:
                if 2 in steps:
                    with pytest.raises(InputError, match="cannot restore"):
                        checkpoints.load("latest")
                    assert checkpoints.steps() == [2, 4]
                else:
                    assert checkpoints.load("latest")[0] == 2
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "broken-4"]


def test_a_workdir_that_is_no_utf_8_is_refused(tmp_path):
    with pytest.raises(InputError, match="b.udcff/checkpoints has bytes .* rename the folder"):
        Checkpoints(tmp_path / os.fsdecode(b"b\xff"), "psnr")


def test_changed_numbers_in_a_checkpoint_are_found_out(tmp_path):
    with closing(Checkpoints(tmp_path, "psnr", create=True)) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, {"x": jnp.full(3, step)}, {"psnr": -step})
    folder = tmp_path / "checkpoints"
    truncated(tmp_path, 2, "_CHECKPOINT_METADATA")  # which is not needed
    with closing(Checkpoints(tmp_path, "psnr", create=True)) as checkpoints:
        assert checkpoints.load("latest")[0] == 2
        checkpoints.save(3, {"x": jnp.zeros(3)}, {"psnr": -3})
    shutil.rmtree(folder / "2" / "state")
    shutil.copytree(folder / "1" / "state", folder / "2" / "state")
    reader = Checkpoints(tmp_path, "psnr")
    with pytest.raises(InputError, match="restore step 2 .* checksum"):
        reader.load("2")
    truncated(tmp_path, 3, "state/_METADATA")
    assert reader.load("latest")[0] == 1
    truncated(tmp_path, 1, "state/_METADATA")
    with pytest.raises(InputError, match="cannot restore step 1"):
        reader.load("latest")


def test_a_reader_follows_a_training_that_deletes_what_it_was_to_read(tmp_path, monkeypatch):
    writer = Checkpoints(tmp_path, "psnr", create=True)
    writer.save(1, {"x": jnp.full(3, 1)}, {"psnr": 1.0})
    writer.close()
    reader, restore = Checkpoints(tmp_path, "psnr"), Checkpoints.restore

    def slow(self, step, like):
        if step == 1:
            with closing(Checkpoints(tmp_path, "psnr", create=True)) as again:
                for later in (2, 3, 4):
                    again.save(later, {"x": jnp.full(3, later)}, {"psnr": later})
        return restore(self, step, like)

    monkeypatch.setattr(Checkpoints, "restore", slow)
    step, state = reader.load("best")
    assert step == 4 and state["x"][0] == 4


def poisoned(broken):
    """`training_batch` with a value that is not finite, or too large, in sample 1 of a step."""
    def batch(dataset, acquisition, seed, step, *rows):
        made = training_batch(dataset, acquisition, seed, step, *rows)
        if np.isfinite(value := broken.get(step, 1.0)):
            made.target[1] *= value  # k-space would be normalized
        else:
            made.measurement.kspace[1, 0, 8, 8] = value
        return made
    return batch


@pytest.mark.parametrize("value, match", [
    (np.nan, "step 3: .*loss.* not finite; sample 1 has values that are not finite in its measured "
             "k-space; .*last checkpoint is kept"),
    (1e25, "step 3: .*not finite; its data are finite, but not the loss or gradient of sample 1")])
def test_a_loss_that_is_not_finite_stops_with_its_step_and_sample(tmp_path, monkeypatch, value,
                                                                  match):
    monkeypatch.setattr(module, "training_batch", poisoned({2: value}))
    with pytest.raises(TrainingError, match=match):
        train(toy.experiment(), tmp_path)
    step, state = last_state(tmp_path)
    assert step == 2 and all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_a_gradient_that_is_not_finite_changes_nothing_but_the_step():
    def loss(params, rng, batch):
        return jnp.sqrt(params["x"] * batch.target.sum()), {}  # at 0 the slope is infinite

    optimizer = make_optimizer(toy.config.Training())
    params = {"x": jnp.ones(())}
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), params)
    update = jax.jit(make_update(Method(None, loss, None), optimizer, ema_decay=0.5))
    for target, count in ((1.0, 0), (0.0, 1), (1.0, 1)):
        before = state
        batch = Batch(None, None, jnp.full((1, 1, 1, 1), target))
        state, metrics = update(state, jax.random.key(0), batch)
        assert np.isfinite(metrics["loss"]) and skipped(state) == count
        same = jax.tree.map(np.array_equal, before[1:], state[1:])
        assert all(jax.tree.leaves(same)) == (target == 0)
    assert int(state.step) == 3


def test_batches_that_are_not_finite_are_left_out_so_many_times(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "training_batch", poisoned({1: np.nan, 3: np.inf}))
    options = {"skip_nonfinite": 1, "validate_every": 1, "ema_decay": 0.9}
    with pytest.raises(TrainingError, match="step 4: .* by train.skip_nonfinite, now 1"):
        train(toy.experiment(train=options), tmp_path)
    assert "step 2: " in (out := capsys.readouterr().out) and "left out, 1 of at most 1" in out
    with closing(Checkpoints(tmp_path, "psnr")) as checkpoints:
        assert max(checkpoints.steps()) == 3
        before, after = checkpoints.load("2")[1], checkpoints.load("3")[1]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((before, after)))
    train(toy.experiment(train=options | {"skip_nonfinite": 2}), tmp_path)  # counts over both
    assert "left out, 2 of at most 2" in capsys.readouterr().out
    last = last_state(tmp_path)[1]
    jax.tree.map(np.testing.assert_array_equal, [last["params"], last["ema"], last["opt_state"]],
                 [after["params"], after["ema"], after["opt_state"]])


@contextmanager
def full_disk(folder, kind):
    """Within it large files cannot be written, by a limit or by a file system that is full."""
    if kind == "limit":
        with files_of_at_most(100_000):
            yield
        return
    filler = folder / "filler"
    with filler.open("wb") as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    yield
    filler.unlink()


@pytest.fixture
def disk(request, tmp_path):
    """A folder, and for "tmpfs" one on a file system of 8 MiB."""
    if request.param == "limit":
        yield tmp_path, request.param
        return
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)],
                             capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("may not mount a tmpfs here")
    yield tmp_path, request.param
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


@pytest.mark.parametrize("disk", ["limit", "tmpfs"], indirect=True)
def test_a_full_disk_keeps_the_last_checkpoint_and_training_goes_on_when_there_is_space(disk):
    workdir, kind = disk
    rng = np.random.default_rng(0)
    states = [{"x": jnp.asarray(rng.standard_normal(200_000), jnp.float32)} for _ in range(3)]
    with closing(Checkpoints(workdir, "psnr", create=True)) as checkpoints:
        checkpoints.save(1, states[0], {"psnr": 1.0})
    broken = Checkpoints(workdir, "psnr", create=True)
    with full_disk(workdir, kind):
        with pytest.raises(StorageError, match="cannot write .*what was written before is intact: "
                                               "free space"):
            broken.save(2, states[1], {"psnr": 2.0})
            broken.close()
        with suppress(StorageError):
            broken.close()  # its threads end with the process; here what they still do is awaited
    with closing(Checkpoints(workdir, "psnr", create=True)) as checkpoints:
        step, state = checkpoints.load("latest")
        np.testing.assert_array_equal(state["x"], states[0]["x"])
        checkpoints.save(2, states[2], {"psnr": 2.0})
    step, state = Checkpoints(workdir, "psnr").load("latest")
    assert step == 2 and sorted(os.listdir(workdir / "checkpoints")) == ["1", "2"]
    np.testing.assert_array_equal(state["x"], states[2]["x"])


def test_a_read_only_file_system_is_refused_in_one_line(tmp_path):
    command = ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a tmpfs here")
    try:
        with pytest.raises(InputError, match="cannot write to the folder .*Read-only file system"):
            train(toy.experiment(), tmp_path)
        with pytest.raises(InputError, match="cannot write to the folder .*Read-only file system"):
            train(toy.experiment(), tmp_path / "run")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
