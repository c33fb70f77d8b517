"""Kill a training at random moments: it ends with the bits of one that was left alone.

    python tools/kill.py [--kills 30] [--seed 0]

A small training is killed (SIGKILL; every fourth time SIGTERM, which saves first) at random moments
after it has begun to train, and started again. After every third kill a file of the latest
checkpoint is truncated, as by a power cut. At the end all arrays of the last checkpoint are
compared with those of an undisturbed run, and no half file may lie under a final name.
"""

import argparse
import collections
import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np

import tests.conftest  # noqa: F401 (compiles fast)
from flatjax.data import DATASETS
from flatjax.errors import Terminated
from flatjax.runs.checkpoint import Checkpoints
from flatjax.training.train import train
from tests.support import toy

DATASETS["toy"] = toy.make


def start(steps, workdir):
    """Train in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, "--train", str(workdir), "--steps",
                             str(steps)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def train_here(steps, workdir):
    """What such a process does."""
    try:
        train(toy.experiment(train={"steps": steps, "validate_every": VALIDATE,
                                    "ema_decay": 0.9}), workdir)
    except Terminated:
        raise SystemExit(143) from None


def lines(workdir):
    log = workdir / "metrics.jsonl"
    return log.read_text(errors="replace").count("\n") if log.exists() else 0


def phase(workdir):
    """What the training was doing, as far as its files tell."""
    if any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*")):
        return "writing a checkpoint"
    kinds = [line for line in (workdir / "metrics.jsonl").read_text().splitlines() if line][-1:]
    step = json.loads(kinds[0])["step"] if kinds and kinds[0].endswith("}") else 0
    due = step and step % VALIDATE == 0 and '"train"' in kinds[0]
    return "validating" if due else "training"


VALIDATE = 4


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=0, help="of the training")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        return train_here(options.steps, options.train)
    steps = options.steps or 20 * options.kills
    rng = np.random.default_rng(options.seed)
    phases, sent, truncated, kills = collections.Counter(), collections.Counter(), 0, 0
    begin = time.time()
    with tempfile.TemporaryDirectory() as folder:
        whole, victim = Path(folder, "whole"), Path(folder, "victim")
        assert start(steps, whole).wait() == 0
        print(f"undisturbed: {steps} steps in {time.time() - begin:.0f} s", flush=True)
        while True:
            before = lines(victim)
            process = start(steps, victim)
            while kills < options.kills and process.poll() is None:
                time.sleep(0.01)
                if lines(victim) > before:  # it trains
                    time.sleep(rng.uniform(0, 0.5))
                    break
                before = min(before, lines(victim))
            if kills == options.kills or process.poll() is not None:
                break
            number = signal.SIGTERM if kills % 4 == 3 else signal.SIGKILL
            where = phase(victim)
            process.send_signal(number)
            status = process.wait()
            if status == 0:
                break
            assert status == (143 if number == signal.SIGTERM else -number), status
            kills += 1
            phases[where] += 1
            sent[signal.Signals(number).name] += 1
            saved = Checkpoints(victim, "psnr").steps()
            if kills % 3 == 0 and len(saved) > 1:
                files = sorted(path for path in (victim / "checkpoints" / str(saved[-1])
                                                 ).rglob("*") if path.is_file())
                path = files[rng.integers(len(files))]
                path.write_bytes(path.read_bytes()[:rng.integers(path.stat().st_size)])
                truncated += 1
        assert process.wait() == 0
        states = []
        for workdir in (whole, victim):
            with closing(Checkpoints(workdir, "psnr")) as checkpoints:
                states.append(checkpoints.load("latest"))
        assert states[0][0] == states[1][0] == steps
        jax.tree.map(np.testing.assert_array_equal, states[0][1], states[1][1])
        for path in victim.rglob("*.json"):
            json.loads(path.read_text())
        kept = sorted(path.name for path in (victim / "checkpoints").iterdir())
    print(f"{kills} kills ({dict(sent)}; {dict(phases)}), {truncated} checkpoints truncated, "
          f"{time.time() - begin:.0f} s: same bits; checkpoints {kept}")


if __name__ == "__main__":
    main()
