"""The parts of `accelerator.py` that measure time and memory."""

import functools
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
from accelerator_cases import (
    GATE,
    base,
    both,
    build,
    flops_per_slice,
    make_batch,
    peaks,
    plan,
    seconds_of,
)
from common import difference

from flatjax import config as configuration
from flatjax.data import training_batch
from flatjax.data.batches import prefetch
from flatjax.experiments.config_file import load_config_file, override
from flatjax.mri.espirit import espirit
from flatjax.nets.fastmri import varnet_params
from flatjax.training.parallel import AXIS, make_update, pmapped, shard
from flatjax.training.train import initial_state, make_optimizer

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs"


def measure(bench, case, options, rates):
    """Time and facts of a case that is being compiled."""
    program = bench.wait(bench.compiled(case))
    args = jax.device_put(program.args)
    spent = seconds_of(lambda: program.compiled(*args), options.budget)
    work = case["batch"] * flops_per_slice(*(case[name] for name in (
        "method", "steps", "channels", "pools", "size"))) * (3 if case["work"] == "step" else 1)
    peak = rates.get("peak_GFLOPs", {}).get(case["precision"], float("nan"))
    return program.facts | {"seconds": spent, "slices_per_second": case["batch"] / spent,
                            "GFLOPs": work / spent / 1e9, "of_peak": work / spent / 1e9 / peak}


class Torch:
    """The process of `accelerator_torch.py`, which answers one case after the other."""

    def __init__(self, log):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "accelerator_torch.py")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True,
            stderr=Path(log).open("w"),  # noqa: SIM115 (it ends with the process)
            env=os.environ | {"JAX_PLATFORMS": "cpu"})
        self._pool = ThreadPoolExecutor(1)
        self.hello = self._pool.submit(self._read)

    def _read(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"torch's process ended: see torch.log, {self.process.poll()}")
        return json.loads(line)

    def ask(self, case):
        """The answer in a `Future`."""
        def exchange():
            print(json.dumps(case), file=self.process.stdin, flush=True)
            return self._read()

        return self._pool.submit(exchange)

    def answer(self, future, seconds):
        """A future's answer; if it takes longer, no more are to be had."""
        try:
            answer = future.result(timeout=max(0.0, seconds))
        except TimeoutError:
            self.process.kill()
            raise TimeoutError(f"torch did not answer in {seconds:.0f} s") from None
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


def same_as_torch(bench, torch, options):
    """Relative differences of result, loss and gradient with torch's weights, in float32."""
    cases = [base(options, work=work, precision="float32", batch=options.batches[-1])
             for work in ("inference", "step")]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/torch.npz"
        torch.answer(torch.ask(cases[0] | {"save": path, "prepare": True, "compiled": False}),
                     min(60, bench.left()))
        with np.load(path) as stored:
            saved = dict(stored)
    weights, gradient = (varnet_params({name.removeprefix(f"{kind} "): value for name, value
                                        in saved.items() if name.startswith(kind)})
                         for kind in ("weight", "gradient"))
    inference, step = (bench.wait(bench.compiled(case)) for case in cases)
    output = inference.compiled(weights, inference.args[1])
    loss, ours = step.compiled(weights, step.args[1])
    return {"errors": {"output": difference(output, saved["output"]),
                       "loss": difference(loss, saved["loss"]),
                       "gradient": difference(ours, gradient)}}


def torch_row(bench, torch, case, options, compiled):
    def ask():
        answer = torch.answer(torch.ask(case | {"compiled": compiled, "budget": options.budget}),
                              min(90, bench.left()))
        return answer | {"slices_per_second": case["batch"] / answer["seconds"]}

    bench.add(ask, library="torch", compiled=compiled, **case)


def begin_torch(bench, options):
    """Torch's processes, eager and compiled, the latter at work; none without torch."""
    if not (find_spec("torch") and find_spec("fastmri")):
        return {}
    eager, compiled = (Torch(bench.folder / f"torch_{name}.log") for name in ("eager", "compiled"))
    cases = sorted(both(options, batch=options.batches[-1]), key=lambda case: case["work"])
    return {"eager": eager, "compiled": compiled, "prepared": [
        (case, compiled.ask(case | {"compiled": True, "prepare": True})) for case in cases]}


def beside_torch(bench, torch, waves, options):
    """Torch's rows, while the next programs are traced, which leaves the device alone."""
    bench.add(lambda: torch["eager"].answer(torch["eager"].hello, 60), what="torch")
    bench.add(lambda: same_as_torch(bench, torch["eager"], options), what="same as torch")
    GATE.clear()
    try:
        for case in waves[1]:
            bench.compiled(case)
        for case in waves[0] + waves[1]:
            if (case["method"], case["remat"]) == ("varnet", False) and (
                    case["precision"] != "bfloat16"):
                torch_row(bench, torch["eager"], case, options, compiled=False)
        for case, _ in torch["prepared"]:
            torch_row(bench, torch["compiled"], case, options, compiled=True)
    finally:
        GATE.set()
    for name in ("eager", "compiled"):
        torch[name].process.kill()


def throughput(bench, options):
    """E2E-VarNet beside torch's, FLAT, numbers of cascades, samplers, batches."""
    torch, waves = bench.torch, plan(options)
    bench.settle([bench.compiled(case) for case in waves[0]])
    for case, future in torch.get("prepared", []):
        bench.add(lambda future=future: torch["compiled"].answer(
            future, min(60, 0.3 * bench.left())), library="torch", what="torch.compile", **case)
    rates = bench.add(lambda: peaks(options.peak_size, options.peak_elements), what="peaks")
    for number, wave in enumerate(waves):
        bench.settle([bench.compiled(case) for case in wave])
        # those that are still being compiled come last
        for case in sorted(wave, key=lambda case: not bench.compiled(case).done()):
            bench.add(functools.partial(measure, bench, case, options, rates), library="flatjax",
                      **case)
        if torch and number == 0:
            beside_torch(bench, torch, waves, options)


def first_image(case, started):
    """Print the seconds since `started` at which a new process has its first image."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        jax.config.update("jax_enable_compilation_cache", True)
    imported = time.time()
    function, args = build(case)
    with jax.default_matmul_precision("tensorfloat32"):
        np.asarray(jax.jit(function)(*args))
    print(json.dumps({"imported_seconds": imported - started, "seconds": time.time() - started}))


def latency(bench, options):
    """Seconds from one slice's k-space to its image: warm, and by a process that starts."""
    cases = [base(options, method="flat", steps=steps) for steps in options.latency_steps]
    cases.insert(1, base(options, method="flat_imex", steps=options.latency_steps[0]))
    bench.settle([bench.compiled(case) for case in cases])

    def warm(case):
        program = bench.wait(bench.compiled(case))
        params, measured = jax.device_put(program.args[0]), program.args[1]
        spent = seconds_of(lambda: np.asarray(program.compiled(params, measured)), options.budget)
        return {"seconds": spent}

    for case in cases:
        bench.add(functools.partial(warm, case), what="warm", **case)

    def maps():
        kspace = make_batch(1, options.coils, options.size).kspace
        side = min(24, options.size // 2)
        start = time.perf_counter()
        np.asarray(espirit(kspace, (side, side)).maps)
        first = time.perf_counter() - start
        return {"first_seconds": first, "seconds": seconds_of(
            lambda: np.asarray(espirit(kspace, (side, side)).maps), options.budget)}

    bench.add(maps, what="ESPIRiT", coils=options.coils, size=options.size)
    with tempfile.TemporaryDirectory() as folder:
        kept = {"JAX_COMPILATION_CACHE_DIR": folder,
                "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        code = ("import json, sys; sys.path.insert(0, sys.argv[3]); "
                "from accelerator_parts import first_image; "
                "first_image(json.loads(sys.argv[1]), float(sys.argv[2]))")

        def start(case):
            done = subprocess.run(
                [sys.executable, "-c", code, json.dumps(case), str(time.time()), str(HERE)],
                env=os.environ | kept, capture_output=True, text=True,
                timeout=max(1.0, bench.left()))
            if done.returncode:
                raise RuntimeError(done.stderr[-300:])
            return json.loads(done.stdout.splitlines()[-1])

        for index, method in enumerate(options.cold):
            what = "start, programs cached" if method in options.cold[:index] else "cold start"
            bench.add(functools.partial(start, cases[method == "flat_imex"]), what=what,
                      **cases[method == "flat_imex"])


def pipeline(bench, options):
    """What the host makes by threads, and what a training step takes."""
    def prepare(name):
        config = override(load_config_file(str(CONFIGS / f"{name}.py")),
                          list(options.overrides))
        train = configuration.make_training(config, 1)
        method, dataset = configuration.make_method(config), configuration.make_dataset(config)
        acquisition = configuration.make_acquisition(config)

        def make(step):
            return shard(training_batch(dataset, acquisition, 0, step, train.batch_size), 1,
                         train.accumulate)

        held = make(0)
        optimizer = make_optimizer(train)
        state = initial_state(method, optimizer, train, jax.random.key(0),
                              jax.tree.map(lambda x: x[0, 0], held))
        update = pmapped(make_update(method, optimizer, ema_decay=train.ema_decay,
                                     axis_name=AXIS))
        state, _ = update(state, jax.random.key(0), held)
        jax.block_until_ready(state)
        return make, held, state, update, train.batch_size

    prepared = {name: bench.pool.submit(prepare, name) for name in options.configs}
    bench.settle(prepared.values())

    def device(name):
        _, held, state, update, size = bench.wait(prepared[name])
        held = jax.device_put(held)
        times = []
        while len(times) < 4 or (sum(times) < 2 * options.budget and len(times) < 20):
            start = time.perf_counter()
            state, _ = update(state, jax.random.key(0), held)
            jax.block_until_ready(state)
            times.append(time.perf_counter() - start)
        spent = float(np.median(times))
        return {"seconds": spent, "slices_per_second": size / spent, "batch": size}

    def host(name, threads):
        make, *_, size = bench.wait(prepared[name])
        count, start, least = 0, time.perf_counter(), 2 * threads
        with closing(prefetch(make, range(1, 10_000), workers=threads)) as made:
            for _ in made:
                count += 1
                spent = time.perf_counter() - start
                if count >= least and spent > 1.5 * options.budget:
                    break
        return {"slices_per_second": count * size / spent}

    cores = len(os.sched_getaffinity(0))
    for name in options.configs:
        bench.add(functools.partial(device, name), config=name, what="device")
        for threads in options.threads:
            if threads <= cores or threads == 1:
                bench.add(functools.partial(host, name, threads), config=name, what="host",
                          threads=threads)
