"""Several processes train as one: a real run of two on this machine."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from flatjax.data import Acquisition, training_batch
from flatjax.data.sets import fastmri
from flatjax.errors import InputError
from flatjax.experiments.config_file import load_config_file, override
from flatjax.runs import hosts
from flatjax.runs.checkpoint import Checkpoints
from flatjax.training.train import train
from tests.support import toy
from tests.support.fastmri_fixture import write_folder

ROOT = Path(__file__).parents[2]
# A method whose loss draws random numbers, so that each device must get its own.
SETTINGS = [
    "--config.train.steps=4",
    "--config.train.warmup_steps=0",
    "--config.train.validate_every=2",
    "--config.train.log_every=1",
    "--config.data.matrix=32",
    "--config.method.network.channels=2",
    "--config.method.network.pools=0",
    "--config.method.schedule.steps=2",
    "--config.train.batch_size=4",
]
CONFIG = f"{ROOT / 'configs' / 'singlecoil.py'}:flow_matching"


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open()]


def final(workdir):
    return Checkpoints(workdir, "psnr").load("latest")


def two_processes(workdir):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    processes = [subprocess.Popen(
        [sys.executable, "train.py", f"--config={CONFIG}", f"--workdir={workdir}", *SETTINGS,
         f"--distributed={address},2,{index}"], cwd=ROOT, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"})
        for index in range(2)]
    output = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(output)
    return output


def test_two_processes_train_as_one(tmp_path):
    """They take over the checkpoint of one process with four devices, and end where it ends."""
    one, two = tmp_path / "one", tmp_path / "two"
    train(override(load_config_file(str(CONFIG)), SETTINGS), one)
    shutil.copytree(one, two)
    shutil.rmtree(two / "checkpoints" / "4")
    first, second = two_processes(two)
    assert "resuming" in first and "4/4" in first
    assert "resuming" not in second and "step/s" not in second
    (step, a), (again, b) = final(one), final(two)
    assert step == again == 4
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-4),
                 a["params"], b["params"])
    assert len(lines(one)) == 6
    for x, y in zip(lines(one), lines(two), strict=True):
        assert x.pop("kind") == y.pop("kind")
        x.pop("slices_per_second", 0), y.pop("slices_per_second", 0)
        assert x == pytest.approx(y, rel=1e-4)
    run = json.loads((two / "run.json").read_text())
    assert run["processes"] == 2 and len(run["devices"]) == 4


def test_a_share_is_those_rows_of_the_whole_batch():
    for acquisition in (Acquisition(), Acquisition(noise=0.1)):
        whole = training_batch(toy.make(), acquisition, 0, 3, 6)
        part = training_batch(toy.make(), acquisition, 0, 3, 6, range(2, 5))
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[2:5], b), whole, part)


def test_a_process_reads_its_own_slices_alone(tmp_path, monkeypatch):
    write_folder(tmp_path, "singlecoil")
    dataset = fastmri.make(path=str(tmp_path), challenge="singlecoil", combine="sense")
    read, looked_at = fastmri._read, []

    def counted(*args):
        looked_at.append(args)
        return read(*args)

    monkeypatch.setattr(fastmri, "_read", counted)
    whole = training_batch(dataset, Acquisition(), 0, 0, 4)
    assert len(looked_at) == 4
    part = training_batch(dataset, Acquisition(), 0, 0, 4, range(1, 3))
    assert len(looked_at) == 6
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1:3], b), whole, part)


def test_shares_cover_the_batch(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    rows = []
    for index in range(2):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        rows += hosts.share(8)
    assert rows == list(range(8))
    monkeypatch.setattr(jax, "device_count", lambda: 6)
    with pytest.raises(InputError, match="process 1 has 4 of 6 devices"):
        hosts.share(8)


@pytest.mark.parametrize("description", ["node0", "node0:1,2", "node0:1,2,2", "node0:1,two,0"])
def test_a_bad_description_is_refused(description):
    with pytest.raises(InputError, match="expected HOST:PORT,PROCESSES,INDEX"):
        hosts.join(description)


def test_without_a_scheduler_and_a_description_the_option_is_refused():
    done = subprocess.run([sys.executable, "train.py", "--config=singlecoil", "--workdir=x",
                           "--distributed"], cwd=ROOT, capture_output=True, text=True, timeout=180)
    assert done.returncode == 2 and "the processes do not come together" in done.stderr
    assert done.stderr.count("\n") <= 2 and not Path(ROOT / "x").exists()


def test_the_others_know_the_runs_split_and_write_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "split.json").write_text('{"train": ["ü"]}')
    sent = []
    with monkeypatch.context() as patch:
        patch.setattr(hosts, "broadcast_from_first",
                      lambda tree: sent.append(np.array(tree)) or tree)
        with hosts.writable(tmp_path) as folder:
            assert folder == tmp_path
    answers = iter(sent)
    monkeypatch.setattr(hosts, "broadcast_from_first", lambda tree: next(answers))
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    with hosts.writable(tmp_path) as folder:
        assert folder != tmp_path and (folder / "split.json").read_text() == '{"train": ["ü"]}'
    assert not folder.exists()
