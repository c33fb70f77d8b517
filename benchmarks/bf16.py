"""What networks in bfloat16 cost in quality: singlecoil trained in float32 and in bfloat16.

    python benchmarks/bf16.py --steps=600 [--config.key=value ...]

Same seed, data and steps; the physics is complex64 in both. Prints JSON: PSNR (dB) on its
test sets and its difference, and seconds of training.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from pathlib import Path

from common import report

from flatjax.evaluation.evaluate import evaluate
from flatjax.experiments.config_file import load_config_file, override
from flatjax.training.train import train


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="singlecoil")
    parser.add_argument("--steps", type=int, default=600)
    options, more = parser.parse_known_args()
    psnr, seconds = {}, {}
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        for dtype in ("float32", "bfloat16"):
            config = override(load_config_file(options.config), [
                f"--config.method.network.dtype={dtype}", f"--config.train.steps={options.steps}",
                f"--config.train.validate_every={options.steps}", *more])
            start = time.perf_counter()
            train(config, Path(folder) / dtype)
            seconds[dtype] = time.perf_counter() - start
            scores = evaluate(config, Path(folder) / dtype)
            psnr[dtype] = {name: found["method"]["psnr"]["mean"] for name, found in scores.items()}
    report(options, more=more, psnr=psnr, training_seconds=seconds, bfloat16_less_float32={
        name: psnr["bfloat16"][name] - psnr["float32"][name] for name in psnr["float32"]})


if __name__ == "__main__":
    main()
