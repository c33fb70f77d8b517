"""What flatjax does on the accelerator that JAX finds: correctness, speed, memory, pipeline.

    pip install torch runstats && pip install --no-deps fastmri     # for the comparison, optional
    python benchmarks/accelerator.py --output=DIR --seconds=270
    python benchmarks/accelerator_report.py DIR                     # into docs/performance.md

Parts, of which `--parts=NAME,NAME` takes some:

- correctness: operators against NumPy in float64, methods against the CPU backend in float32
- throughput: slices a second, memory, compile time, part of the matrix units' peak; beside torch
- latency: from one slice's k-space to its image, and ESPIRiT's time
- pipeline: slices a second that the host makes, and that a training step takes
- operators: those of a cascade, each by itself
- trace: the kernels of one training step
- training: the shipped recipe for the seconds that are left, its validation and its weights

DIR/accelerator.json is rewritten after every row. A row that fails holds its error; a row whose
turn comes after `--seconds` is skipped, and the more telling rows come first. Precisions:
"float32" (JAX's highest), "tf32" (float32 with TF32 products where the device has them, JAX's
default), "bfloat16" (networks; the physics is complex64). Weights are random: time does not depend
on them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from importlib.util import find_spec
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch is on the same card
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
if os.environ.get("JAX_PLATFORMS") and "cpu" not in os.environ["JAX_PLATFORMS"]:
    os.environ["JAX_PLATFORMS"] += ",cpu"  # the reference

ROOT = str(Path(__file__).resolve().parents[1])  # it runs from a checkout, as do its processes
sys.path.append(ROOT)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), ROOT]))

import jax  # noqa: E402
from accelerator_cases import compile_case  # noqa: E402
from accelerator_checks import correctness  # noqa: E402
from accelerator_operators import operators, trace  # noqa: E402
from accelerator_parts import (  # noqa: E402
    begin_torch,
    latency,
    pipeline,
    throughput,
)
from accelerator_training import training  # noqa: E402
from common import environment  # noqa: E402

# Each part and its share of the time, in the order in which they run.
PARTS = {"correctness": (correctness, 40), "throughput": (throughput, 150), "trace": (trace, 10),
         "operators": (operators, 25), "pipeline": (pipeline, 30), "latency": (latency, 30),
         "training": (training, 300)}
FULL = {"size": 320, "channels": 18, "pools": 4, "steps": 12, "coils": 15, "wide": 62,
        "batches": (1, 4), "largest": 16, "cascades": (6, 12, 24, 48), "evaluations": (50, 100),
        "latency_steps": (8, 4, 12), "threads": (1, 2, 4, 8, 16),
        "configs": ("multicoil", "singlecoil"),
        "overrides": (), "check_size": 96, "check_channels": 8, "check_pools": 2,
        "check_steps": 6, "check_methods": {
            "flat_imex": ("float32", "tf32"), "flat": ("float32", "bfloat16"),
            "varnet": ("float32",)}, "operator_batch": 4,
        "peak_size": 8192, "peak_elements": 1 << 28, "budget": 0.6,
        "traced": ("varnet", "flat_imex"), "cold": ("flat", "flat", "flat_imex"),
        "recipe": "multicoil", "training_flags": ("--config.train.batch_size=16",),
        "probe_steps": 60, "training_overhead": 45}
QUICK = {"size": 32, "channels": 2, "pools": 0, "steps": 2, "coils": 2, "wide": 4,
         "batches": (1,), "largest": 2, "cascades": (2, 3), "evaluations": (2,),
         "latency_steps": (2,), "threads": (1, 2), "configs": ("singlecoil",),
         "overrides": ("--config.method.schedule.steps=2", "--config.method.network.channels=2",
                       "--config.method.network.pools=0", "--config.data.matrix=32"),
         "check_size": 32, "check_channels": 2, "check_pools": 0, "check_steps": 2,
         "check_methods": {
             "flat": ("float32",), "flat_imex": ("float32",), "varnet": ("float32", "bfloat16")},
         "operator_batch": 1, "peak_size": 256, "peak_elements": 1 << 16, "budget": 0.02,
         "traced": ("varnet",), "cold": ("flat",), "recipe": "singlecoil", "probe_steps": 2,
         "training_overhead": 1e9, "training_flags": (
             "--config.method.schedule.steps=2", "--config.method.network.channels=2",
             "--config.method.network.pools=0", "--config.data.matrix=32",
             "--config.train.batch_size=2",
             "--config.train.warmup_steps=0")}


class SkippedError(Exception):
    """The time is up."""


class Bench:
    """Rows of results as they come, in a file, and the time that is left for more.

    Attributes:
        folder: of the results.
        pool: threads that compile, `compilers` of them.
        torch: processes of torch, from `begin_torch`.
        cores: that this process may use.
    """

    def __init__(self, folder, seconds, compilers, about):
        self.folder, self.torch = folder, {}
        self.pool = ThreadPoolExecutor(compilers)
        self.cores = about["cores"]
        self.found = {"about": about, "parts": {}}
        self.end = self.deadline = time.monotonic() + seconds
        self._programs, self._rows = {}, []

    def begin(self, part, share):
        """Following rows belong to `part`, which may take that share of the time left."""
        self._rows = []
        self.found["parts"][part] = {"rows": self._rows}
        self.deadline = time.monotonic() + share * max(0, self.end - time.monotonic())

    def left(self):
        """Seconds that the part still has."""
        return self.deadline - time.monotonic()

    def add(self, measure, **settings):
        """A row: the settings with what `measure()` gives, or why it did not; that row."""
        row = dict(settings)
        self._rows.append(row)
        start = time.monotonic()
        try:
            if self.left() <= 0:
                raise SkippedError
            row |= measure()
        except (SkippedError, TimeoutError) as error:
            row["skipped"] = str(error) or "time is up"
        except Exception as error:  # out of memory, or what a device does not have
            row["error"] = f"{type(error).__name__}: {error}"[:400]
        row["row_seconds"] = round(time.monotonic() - start, 3)
        self.write()
        print({name: value for name, value in row.items() if not isinstance(value, list)},
              file=sys.stderr, flush=True)
        return row

    def wait(self, future):
        """A thread's result, as long as there is time."""
        return future.result(timeout=max(0.0, self.left()))

    def compiled(self, case):
        """The `Program` of a case in a `Future`, compiled once."""
        key = json.dumps(case, sort_keys=True)
        if key not in self._programs:
            self._programs[key] = self.pool.submit(compile_case, case)
        return self._programs[key]

    def settle(self, futures):
        """Wait until none of these programs is compiled any longer, or most time is up."""
        wait(futures, timeout=max(0.0, 0.75 * self.left()))

    def write(self):
        """Replace the file by what is known now."""
        path = self.folder / "accelerator.json"
        path.with_suffix(".tmp").write_text(json.dumps(self.found, indent=1))
        path.with_suffix(".tmp").replace(path)


def card():
    """Name, driver and clocks of the GPU as nvidia-smi has them, or nothing."""
    query = "name,driver_version,memory.total,clocks.max.sm,power.limit"
    try:
        done = subprocess.run(["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(query.split(","), map(str.strip, done.stdout.splitlines()[0].split(",")),
                    strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("accelerator"), help="folder")
    parser.add_argument("--parts", default=",".join(PARTS), help="names, with commas")
    parser.add_argument("--seconds", type=float, default=270)
    parser.add_argument("--compilers", type=int, default=min(4, len(os.sched_getaffinity(0))))
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to test the program")
    parser.add_argument("--without-torch", action="store_true", help="leave it out where it is")
    options = parser.parse_args()
    wanted = [name for name in PARTS if name in options.parts.split(",")]
    options.output.mkdir(parents=True, exist_ok=True)
    if options.quick:  # figures that mean nothing: compile nothing twice
        jax.config.update("jax_enable_compilation_cache", True)
    about = environment() | {"card": card(), "platform": jax.default_backend(),
                             "cores": len(os.sched_getaffinity(0)), "argv": sys.argv[1:],
                             "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
                             "torch": find_spec("torch") is not None,
                             "python": sys.version.split()[0]}
    vars(options).update(QUICK if options.quick else FULL)
    bench = Bench(options.output, options.seconds, options.compilers, about)
    if "throughput" in wanted:  # torch compiles during the checks, and then XLA
        bench.torch = {} if options.without_torch else begin_torch(bench, options)
    shares = [PARTS[name][1] for name in wanted]
    for index, name in enumerate(wanted):
        bench.begin(name, shares[index] / sum(shares[index:]))
        start = time.monotonic()
        try:
            PARTS[name][0](bench, options)
        except Exception as error:
            bench.found["parts"][name]["error"] = f"{type(error).__name__}: {error}"[:400]
        bench.found["parts"][name]["seconds"] = time.monotonic() - start
        stats = jax.devices()[0].memory_stats() or {}
        bench.found["parts"][name]["peak_bytes_so_far"] = stats.get("peak_bytes_in_use")
        bench.write()
    os._exit(0)  # programs that still compile are not waited for


if __name__ == "__main__":
    main()
