"""A long training of small steps: whether memory is flat, programs are kept and folders bounded.

    python benchmarks/long_run.py [--steps 20000] [--workdir DIR]

FLAT of two cascades on 16 x 16 blobs, validated and saved every 200 steps. Reports resident memory
at every validation and its slope by least squares over the second half, compilations after the
first validation, and what the folder of checkpoints holds. Prints JSON.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import flatjax.training.train as training
from flatjax.data import DATASETS
from tests.support import toy


def resident_mib():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--every", type=int, default=200)
    parser.add_argument("--workdir")
    options = parser.parse_args()
    DATASETS["toy"] = toy.make
    settings = toy.experiment(train={"steps": options.steps, "validate_every": options.every,
                                     "log_every": 50})
    memory, folders, compiled = [], [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(len(memory))
        if name == "/jax/core/compile/backend_compile_duration" else None)
    make = training.make_validation

    def make_validation(*args):
        validate = make(*args)

        def watched(*inner):
            scores = validate(*inner)
            memory.append(resident_mib())
            folders.append(sum(1 for _ in (Path(workdir) / "checkpoints").iterdir())
                           if len(memory) > 1 else 0)
            return scores

        return watched

    training.make_validation = make_validation
    with tempfile.TemporaryDirectory() as folder:
        workdir = options.workdir or folder
        begin = time.time()
        training.train(settings, workdir)
        seconds = time.time() - begin
        checkpoints = Path(workdir) / "checkpoints"
        size = sum(path.stat().st_size for path in checkpoints.rglob("*") if path.is_file())
        kept = len(list(checkpoints.iterdir()))
    steps = options.every * np.arange(1, len(memory) + 1)
    half = len(memory) // 2
    slope = np.polyfit(steps[half:], memory[half:], 1)[0] * 1000 if half > 1 else float("nan")
    print(json.dumps({
        "steps": options.steps, "validations": len(memory), "seconds": round(seconds),
        "memory_mib": {"first": round(memory[0], 1), "middle": round(memory[half], 1),
                       "last": round(memory[-1], 1), "slope_per_1000_steps": round(slope, 3)},
        "compilations": {"until_first_validation": sum(n == 0 for n in compiled),
                         "in_next": sum(n == 1 for n in compiled),
                         "later": sum(n > 1 for n in compiled)},
        "checkpoints": {"at_the_end": kept, "most": max(folders), "bytes": size}}, indent=1))


if __name__ == "__main__":
    main()
