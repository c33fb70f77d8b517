"""The training loop: parallelism, resumption, guards."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flatjax import cli, config
from flatjax.data import DATASETS, training_batch
from flatjax.data.batches import prefetch
from flatjax.errors import InputError, TrainingError
from flatjax.experiments.grid import changed
from flatjax.runs.checkpoint import Checkpoints
from flatjax.training.parallel import AXIS, TrainState, make_update, pmapped, shard
from flatjax.training.train import make_optimizer, start_from, train
from tests.support import toy

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def toy_data(monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)


def settings():
    return toy.experiment(train={"ema_decay": 0.9})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The workdir of a training that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "toy", toy.make)
        train(settings(), folder)
    return folder


def saved_state(workdir, which="latest"):
    checkpoints = Checkpoints(workdir, "psnr")
    step = checkpoints.find(which)[0]
    state = checkpoints.restore(step)
    checkpoints.close()
    return step, state


def assert_same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("make", [
    toy.linear, pytest.param(lambda: config.make_method(toy.experiment()), id="flat",
                             marks=pytest.mark.slow)])
def test_four_devices_and_accumulation_do_what_one_device_does(make):
    """With plain SGD, which unlike Adam shows a gradient of the wrong scale."""
    assert jax.local_device_count() == 4
    method = make()
    batch = training_batch(toy.make(), config.Acquisition(), 0, 0, 8)
    optimizer = optax.sgd(0.1)
    params = method.init(jax.random.key(0), batch)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), params)
    key = jax.random.key(1)

    def run(update, *layout):
        one, arranged = state, shard(batch, *layout)
        arranged = arranged if update is parallel else jax.tree.map(lambda x: x[0], arranged)
        for _ in range(3):
            one, metrics = update(one, key, arranged)
        return one.params, one.ema, metrics

    parallel = pmapped(make_update(method, optimizer, ema_decay=0.5, axis_name=AXIS))
    alone = jax.jit(make_update(method, optimizer, ema_decay=0.5))
    reference = run(alone, 1, 1)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), reference[0], params)
    assert max(jax.tree.leaves(moved)) > 1e-3
    for other in (run(parallel, 4, 1), run(parallel, 4, 2), run(alone, 1, 4)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
                     reference, other)


def test_a_jitted_step_traces_once():
    traces = []
    method = toy.linear()

    def counted(*args):
        traces.append(1)
        return method.loss(*args)

    optimizer = optax.adam(1e-3)
    update = jax.jit(make_update(method._replace(loss=counted), optimizer))
    state = None
    for step in range(3):
        batch = training_batch(toy.make(), config.Acquisition(), 0, step, 2)
        if state is None:
            params = method.init(jax.random.key(0), batch)
            state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), {})
        state, _ = update(state, jax.random.key(0), jax.tree.map(lambda x: x[None], batch))
    assert len(traces) == 1


def test_batches_are_pure_in_seed_and_step_whatever_the_workers():
    dataset, acquisition = toy.make(), config.Acquisition(noise=0.1)

    def batch(step):
        return training_batch(dataset, acquisition, 5, step, 3)

    assert_same_bits(batch(7), batch(7))
    assert np.abs(batch(7).kspace - batch(8).kspace).max() > 0.1
    masks = np.stack([batch(step).measurement.mask for step in range(6)]).reshape(18, -1)
    assert len(np.unique(masks, axis=0)) > 10
    for workers in (1, 4):
        for step, one in zip(range(3, 9), prefetch(batch, range(3, 9), workers=workers),
                             strict=True):
            assert_same_bits(one, batch(step))


def test_prefetch_passes_errors_on_and_stops_when_closed():
    made = []

    def make(step):
        made.append(step)
        if step == 2:
            raise InputError("slice 2 is broken")
        return step

    iterator = prefetch(make, range(100), workers=1)
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(InputError, match="slice 2"):
        next(iterator)
    iterator = prefetch(make, range(3, 100), workers=1)
    next(iterator)
    iterator.close()
    time.sleep(0.05)
    assert len(made) < 12


def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(whole, tmp_path, monkeypatch):
    import flatjax.training.train as module

    def stops_at_3(dataset, acquisition, seed, step, *rows):
        if step == 3:
            raise KeyboardInterrupt
        return training_batch(dataset, acquisition, seed, step, *rows)

    monkeypatch.setattr(module, "training_batch", stops_at_3)
    with pytest.raises(KeyboardInterrupt):
        train(settings(), tmp_path)
    monkeypatch.undo()
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    assert saved_state(tmp_path)[0] == 2
    train(settings(), tmp_path)
    (step, expected), (again, resumed) = saved_state(whole), saved_state(tmp_path)
    assert step == again == 4
    assert_same_bits(expected, resumed)
    lines = [[json.loads(line) for line in (folder / "metrics.jsonl").open()]
             for folder in (whole, tmp_path)]
    for line in lines[0] + lines[1]:
        line.pop("slices_per_second", None)
    assert lines[0] == lines[1]


def test_a_killed_process_resumes_to_the_same_bits(tmp_path):
    def command(name):
        return ["train", "--config=singlecoil", f"--workdir={tmp_path / name}",
                "--config.train.steps=6", "--config.train.warmup_steps=1",
                "--config.train.validate_every=2", "--config.train.log_every=1",
                "--config.data.matrix=32", "--config.method.name=unet",
                "--config.method.network.channels=2", "--config.method.network.pools=0"]

    cli.main(command("whole"))
    victim = subprocess.Popen([sys.executable, "train.py", *command("killed")[1:]], cwd=ROOT,
                              stderr=subprocess.PIPE,
                              env=os.environ | {"JAX_NUM_CPU_DEVICES": "4"})
    folder = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 120
    while not (folder / "2" / "_CHECKPOINT_METADATA").exists() and victim.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    assert victim.returncode == -signal.SIGKILL
    cli.main(command("killed"))
    (step, a), (again, b) = (saved_state(tmp_path / name) for name in ("killed", "whole"))
    assert step == again == 6
    assert_same_bits(a, b)


def test_checkpoints_keep_the_latest_and_the_best(tmp_path):
    checkpoints = Checkpoints(tmp_path, "psnr", create=True)
    for step, value in [(1, 3.0), (2, 9.0), (3, 5.0), (4, 4.0)]:
        checkpoints.save(step, {"x": jnp.full(3, step)}, {"psnr": value})
    with pytest.raises(TrainingError, match="step 4 was not saved"):
        checkpoints.save(4, {"x": jnp.zeros(3)}, {"psnr": 1.0})
    checkpoints.close()
    again = Checkpoints(tmp_path, "psnr")
    assert sorted(int(p.name) for p in again.folder.iterdir()) == [2, 3, 4]
    assert [again.find(which)[0] for which in ("best", "latest", "2")] == [2, 4, 2]
    np.testing.assert_array_equal(again.restore(2)["x"], 2)
    with pytest.raises(InputError, match="checkpoint is '1', expected best, latest or .* 2, 3, 4"):
        again.find("1")
    with pytest.raises(InputError, match="cannot restore step 2"):
        again.restore(2, {"x": jnp.zeros(5), "y": jnp.zeros(2)})
    with pytest.raises(InputError, match="no checkpoint in"):
        Checkpoints(tmp_path / "none", "psnr").find("best")
    assert not (tmp_path / "none").exists()


def test_a_workdir_of_another_config_is_left_alone(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    before = (tmp_path / "config.json").read_text(), saved_state(tmp_path)[1]
    with pytest.raises(InputError, match="method.schedule.alpha: 0.0 there, 0.5 here"):
        train(changed(settings(), {"method.schedule.alpha": 0.5}), tmp_path)
    assert (tmp_path / "config.json").read_text() == before[0]
    assert_same_bits(saved_state(tmp_path)[1], before[1])
    log_every = changed(settings(), {"train.log_every": 3})  # changes nothing about the result
    assert train(log_every, tmp_path)["psnr"] > 0


def test_training_says_what_it_trains_where_it_is_and_how_it_ended(tmp_path, capsys):
    scores = train(settings(), tmp_path)
    told = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"training flat with \d+ parameters, on 4 x cpu", told[0])
    assert told[1] == "compiling the first step"
    assert re.fullmatch(r"first step done after \d+\.\d s, with its compilation", told[2])
    ended = f"step 4: validation PSNR {scores['psnr']:.2f} dB, SSIM {scores['ssim']:.4f}"
    assert told[3:] == [ended]
    train(settings(), tmp_path)
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"resuming {tmp_path} at step 4",
        "step 4 was the last; --config.train.steps=MORE goes on from there", ended]


def test_a_warm_up_takes_at_most_a_fifth_of_the_steps(tmp_path):
    def updates(**options):
        optimizer = make_optimizer(config.Training(**options))
        params = {"x": jnp.ones(3)}
        state, found = optimizer.init(params), []
        for _ in range(20):
            update, state = optimizer.update({"x": jnp.full(3, 0.1)}, state, params)
            found.append(update["x"])
        return np.stack(found)

    np.testing.assert_array_equal(updates(steps=20), updates(steps=20, warmup_steps=4))
    assert (updates(steps=600) != updates(steps=600, warmup_steps=40)).any()
    assert np.isfinite(updates(steps=1, warmup_steps=50)[0]).all()
    cli.main(["train", "--config=singlecoil", f"--workdir={tmp_path}", "--config.train.steps=2",
              "--config.data.matrix=32", "--config.method.name=compressed_sensing"])
    assert saved_state(tmp_path)[0] == 2


def test_a_finished_run_goes_on_to_more_steps_and_says_what_that_means(whole, tmp_path, capsys,
                                                                      monkeypatch):
    longer = toy.experiment(train={"ema_decay": 0.9, "steps": 8})
    for name in ("once", "twice"):
        shutil.copytree(whole, tmp_path / name)
    train(longer, tmp_path / "once")
    assert ("4 steps become 8; the learning rate is that of 8 steps from the last checkpoint on, "
            "so the result is not that of 8 steps from the start") in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupting(Checkpoints.save))
        with pytest.raises(KeyboardInterrupt):
            train(longer, tmp_path / "twice")
    assert saved_state(tmp_path / "twice")[0] == 6
    train(longer, tmp_path / "twice")
    assert "steps become" not in capsys.readouterr().out.split("resuming")[-1]
    (step, once), (again, twice) = (saved_state(tmp_path / name) for name in ("once", "twice"))
    assert step == again == 8
    assert_same_bits(once, twice)
    for name in ("once", "twice"):
        assert json.loads((tmp_path / name / "run.json").read_text())["earlier_steps"] == [4]
        assert json.loads((tmp_path / name / "config.json").read_text())["train"]["steps"] == 8
    steps = [json.loads(line)["step"] for line in (tmp_path / "once" / "metrics.jsonl").open()
             if '"train"' in line]
    assert steps == [*range(1, 9)]
    with pytest.raises(InputError, match="train.steps: 8 there, 4 here"):
        train(settings(), tmp_path / "once")


def interrupting(save):
    """`Checkpoints.save` that is followed by a second Ctrl-C."""
    def saved(*args):
        save(*args)
        raise KeyboardInterrupt
    return saved


def test_fine_tuning_starts_from_another_runs_best_weights(whole, tmp_path):
    start = saved_state(whole, "best")[1]["ema"]
    tuned = toy.experiment(train={"learning_rate": 1e-12}, init_from=str(whole))
    train(tuned, tmp_path / "second")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), start,
                 saved_state(tmp_path / "second")[1]["params"])
    other = toy.experiment(method={"network.channels": 3}, init_from=str(whole))
    with pytest.raises(InputError, match="the weights in .*whole.* are of another model"):
        train(other, tmp_path / "third")
    with pytest.raises(InputError, match="no config in"):
        train(toy.experiment(init_from=str(tmp_path / "nowhere")), tmp_path / "fourth")


def test_the_best_to_start_from_is_what_the_other_run_calls_so(tmp_path):
    experiment = toy.experiment(train={"best_metric": "ssim"})
    batch = training_batch(toy.make(), config.Acquisition(), 0, 0, 1)
    method = config.make_method(experiment)
    params = method.init(jax.random.key(0), batch)
    state = TrainState(np.int32(0), params, {}, {})
    with closing(Checkpoints(tmp_path, "ssim", create=True)) as checkpoints:
        for step, scores in ((1, {"psnr": 1.0, "ssim": 0.9}), (2, {"psnr": 2.0, "ssim": 0.1})):
            weights = jax.tree.map(lambda leaf, step=step: np.full_like(leaf, step), params)
            checkpoints.save(step, state._replace(params=weights), scores)
    (tmp_path / "config.json").write_text(config.to_json(experiment))
    started = start_from(str(tmp_path), state, method)
    assert float(jax.tree.leaves(started.params)[0].ravel()[0]) == 1


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_none_is_refused_before_anything_is_written(tmp_path, seed):
    with pytest.raises(InputError, match=f"seed is {seed}, expected a number from 0"):
        train(toy.experiment(seed=seed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_files_of_a_workdir_that_are_no_text_are_named(whole, tmp_path):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for name in ("config.json", "split.json"):
        kept = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else b""
        (tmp_path / name).write_bytes(b"\xff\xfe")
        with pytest.raises(InputError, match=name):
            train(settings(), tmp_path)
        (tmp_path / name).write_bytes(kept)


@pytest.mark.parametrize("options, match", [
    ({"steps": 0}, "train.steps is 0"), ({"batch_size": 6}, "not divisible by 4 devices"),
    ({"accumulate": 3}, "take a multiple of 12"), ({"learning_rate": 0.0}, "learning_rate is 0"),
    ({"ema_decay": 1.0}, r"expected in \[0, 1\)"),
    ({"best_metric": "loss"}, "expected one of psnr, ssim"),
    ({"skip_nonfinite": -1}, "skip_nonfinite is -1, expected at least 0")])
def test_training_that_cannot_run_is_refused_before_it_writes(tmp_path, options, match):
    with pytest.raises(InputError, match=match):
        train(toy.experiment(train=options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to the folder"):
        train(toy.experiment(), tmp_path / "file" / "run")


def test_training_learns(tmp_path):
    train(toy.experiment({"steps": 60, "learning_rate": 5e-3, "validate_every": 60},
                         {"network.pools": 1}), tmp_path)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").open()
              if '"train"' in line]
    assert np.mean(losses[-10:]) < 0.95 * np.mean(losses[:5])


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_step_and_reconstruction_lower_for_accelerators(platform):
    from jax import export

    method = toy.flat(remat=True)
    optimizer = optax.adam(1e-3)
    batch = jax.tree.map(jnp.asarray, training_batch(toy.make(), config.Acquisition(), 0, 0, 2))
    params = method.init(jax.random.key(0), batch)
    state = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), {})
    update = jax.jit(make_update(method, optimizer))
    stacked = jax.tree.map(lambda x: x[None], batch)
    lowered = export.export(update, platforms=[platform])(state, jax.random.key(0), stacked)
    assert lowered.platforms == (platform,) and "stablehlo.convolution" in lowered.mlir_module()
    reconstruct = jax.jit(lambda p, m: method.reconstruct(p, jax.random.key(0), m).image)
    lowered = export.export(reconstruct, platforms=[platform])(params, batch.measurement)
    assert lowered.out_avals[0].shape == batch.target.shape
