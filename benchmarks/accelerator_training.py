"""The part of `accelerator.py` that trains the shipped recipe in the time that is left."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from flatjax import config as configuration
from flatjax.runs.weights import save
from flatjax.runs.workdir import load_config, load_params

ROOT = Path(__file__).parents[1]
LARGEST = 15e6  # bytes of a file of weights


def run(bench, workdir, config, flags, seconds):
    """Train in a process of its own; what is not done after `seconds` is saved and left."""
    command = [sys.executable, str(ROOT / "train.py"), f"--workdir={workdir}",
               f"--config={ROOT}/configs/{config}.py", *flags]
    with (bench.folder / "training.log").open("a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=os.environ)
        try:
            process.wait(max(1.0, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    if process.returncode not in (0, 128 + signal.SIGTERM):
        raise RuntimeError(f"training ended with status {process.returncode}: see training.log")
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def training(bench, options):
    """A few updates tell the rate; then as many as fit, by the cosine schedule to its end."""
    flags = [*options.training_flags, f"--config.train.workers={max(2, bench.cores - 2)}"]
    state = {}

    def probe():
        lines = run(bench, bench.folder / "probe", options.recipe, [
            *flags, f"--config.train.steps={options.probe_steps}", "--config.train.log_every=10",
            "--config.train.warmup_steps=0",
            f"--config.train.validate_every={options.probe_steps}"], 0.6 * bench.left())
        rates = [line["slices_per_second"] for line in lines if line["kind"] == "train"]
        state["rate"] = float(np.median(rates[len(rates) // 2:]))
        return {"slices_per_second": state["rate"]}

    def train():
        batch = load_config(bench.folder / "probe").train.batch_size
        left = 0.9 * (bench.left() - options.training_overhead)
        steps = max(options.probe_steps, int(left * state["rate"] / batch) // 100 * 100)
        lines = run(bench, bench.folder / "run", options.recipe, [
            *flags, f"--config.train.steps={steps}",
            f"--config.train.validate_every={max(1, steps // 16)}"], bench.left() - 15)
        (bench.folder / "training.jsonl").write_text("\n".join(map(json.dumps, lines)))
        return {"steps": steps, "batch": batch, "slices_per_second": float(np.median(
            [line["slices_per_second"] for line in lines if line["kind"] == "train"])),
            "validation": [{name: line[name] for name in ("step", "psnr", "ssim")}
                           for line in lines if line["kind"] == "validation"]}

    def keep():
        workdir = bench.folder / "run"
        config = load_config(workdir)
        params, step = load_params(workdir, config, configuration.make_method(config))
        save(bench.folder / "weights.npz", params)
        (bench.folder / "config.json").write_text(configuration.to_json(config))
        size = (bench.folder / "weights.npz").stat().st_size
        if size > LARGEST:
            raise RuntimeError(f"the weights take {size / 1e6:.1f} MB, expected at most 15")
        return {"step": step, "bytes": size}

    bench.add(probe, what="rate", recipe=options.recipe)
    bench.add(train, what="training", recipe=options.recipe)
    bench.add(keep, what="weights", recipe=options.recipe)
