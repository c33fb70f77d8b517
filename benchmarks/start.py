"""Seconds from starting a program to its first result, the first time and the second.

    python benchmarks/start.py

singlecoil to the end of its first training step, with an empty compilation cache and again with
what the first start left there; and a fresh process that loads an exported reconstruction, to its
first image. Prints JSON with medians.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
STEP = """
import os, sys, time
started = float(sys.argv.pop(1))
from flatjax import cli
from flatjax.training import loop

settle = loop._Progress.settle

def settle_one(self):
    pending = self._pending
    settle(self)
    if pending is not None:
        print("first step", time.time() - started, flush=True)
        os._exit(0)

loop._Progress.settle = settle_one
cli.main(["train", *sys.argv[1:]])
"""
EXPORT = """
import sys
from flatjax import cli
cli.main(["export", *sys.argv[1:]])
"""
LOAD = """
import sys, time
import numpy as np
from jax import export
with open(sys.argv[2], "rb") as file:
    program = export.deserialize(file.read())
kspace = np.ones((1, 1, 96, 96), np.complex64)
mask = np.ones((1, 1, 1, 96), np.float32)
np.asarray(program.call(kspace, mask, kspace, np.int32(0))["image"])
print("first image", time.time() - float(sys.argv[1]))
"""


def seconds(code, *arguments, **environment):
    done = subprocess.run([sys.executable, "-c", code, str(time.time()), *arguments], check=True,
                          cwd=ROOT, text=True, capture_output=True, env=os.environ | environment)
    return float(done.stdout.split()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    found = {"first_start": [], "second_start": [], "load_to_first_image": [],
             "load_to_first_image_cached": []}
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            cache = {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache",
                     "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            for name in ("first_start", "second_start"):
                found[name].append(seconds(STEP, "--config=configs/singlecoil.py",
                                           f"--workdir={folder}/{name}", **cache))
            workdir = f"--workdir={folder}/run"
            for command in (["train.py", "--config=configs/singlecoil.py", "--config.train.steps=1",
                             "--config.train.warmup_steps=0", workdir],
                            ["-c", EXPORT, workdir, f"--to={folder}/program"]):
                subprocess.run([sys.executable, *command], check=True, cwd=ROOT,
                               capture_output=True, env=os.environ | cache)
            for name in ("load_to_first_image", "load_to_first_image_cached"):
                found[name].append(seconds(LOAD, f"{folder}/program", **cache | {
                    "JAX_COMPILATION_CACHE_DIR": f"{folder}/other_cache"}))
    medians = {name: float(np.median(values)) for name, values in found.items()}
    from common import report
    report(options, median_seconds=medians,
           second_over_first=medians["second_start"] / medians["first_start"])


if __name__ == "__main__":
    main()
