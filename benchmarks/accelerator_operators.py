"""Where the time goes: operators of a cascade alone, and the kernels of a training step."""

import ast
import functools
import gzip
import json
import tempfile
from collections import Counter
from pathlib import Path

import jax
import numpy as np
from accelerator_cases import base, build, compile_for, make_batch, queued_seconds
from accelerator_checks import cg
from roofline import flops, products

from flatjax import mri
from flatjax.nets.conv import conv2d
from flatjax.nets.unet import instance_norm


def operators(bench, options):
    """Each operator of a cascade by itself, and the largest convolutions channels first, too."""
    batch = make_batch(options.operator_batch, options.coils, options.size)
    case = base(options, method="flat", batch=options.operator_batch)
    function, args = build(case)
    found = products(jax.make_jaxpr(function)(*args).jaxpr)
    rng = np.random.default_rng(0)

    def random(shape):
        return rng.standard_normal(shape, np.float32)

    rows = []  # (what, per cascade, flops, function, arguments)
    convolutions = sorted((key for key in found if key[0] == "conv_general_dilated"),
                          key=lambda key: -flops(key) * found[key])
    for rank, key in enumerate(convolutions):
        x, kernel = random(key[1]), random(key[2])
        rows.append(("convolution", found[key] // options.steps, flops(key), conv2d, (x, kernel)))
        if rank < 2:
            first = x.transpose(0, 3, 1, 2).copy(), kernel.transpose(3, 2, 0, 1).copy()
            rows.append(("convolution, channels first", 0, flops(key),
                         lambda x, kernel: jax.lax.conv(x, kernel, (1, 1), "SAME"), first))
            rows.append(("convolution's gradient", 0, 2 * flops(key), lambda x, kernel, grad:
                         jax.vjp(conv2d, x, kernel)[1](grad), (x, kernel, random(key[3]))))
    for key, count in found.items():
        if key[0] == "dot_general" and flops(key) > 1e6:
            rows.append(("matrix product", count // options.steps, flops(key),
                         functools.partial(jax.lax.dot_general,
                                           dimension_numbers=ast.literal_eval(key[4])),
                         (random(key[1]), random(key[2]))))
    for level in range(options.pools + 1):
        side = -(-options.size // (1 << options.pools)) << (options.pools - level)
        shape = options.operator_batch, side, side, options.channels << level
        rows.append(("norm and activation", 5 if level < options.pools else 2, 0,
                     lambda x: jax.nn.leaky_relu(instance_norm(x), 0.2), (random(shape),)))
    maps, kspace, mask = batch.measurement.maps, batch.kspace, batch.measurement.mask
    rows += [("Fourier transform of the coils", 2, 0, mri.fft2c, (kspace,)),
             ("reduce", 1, 0, mri.reduce, (kspace, maps)),
             ("expand", 1, 0, mri.expand, (kspace[:, 0], maps)),
             ("normal", 0, 0, mri.normal, (kspace[:, 0], mask, maps)),
             ("data consistency", 1, 0, lambda k, m, y: k - m * (k - y),
              (kspace, mask, batch.measurement.kspace)),
             ("eight CG iterations", 0, 0, cg, (kspace, mask, maps)),
             ("nothing but a call", 0, 0, lambda x: x + 1, (np.float32(0),))]
    programs = [bench.pool.submit(compile_for, row[3], row[4], "tf32") for row in rows]
    bench.settle(programs)

    def alone(program, work):
        program = bench.wait(program)
        args = jax.device_put(program.args)
        out = program.compiled(*args)
        spent = queued_seconds(lambda: program.compiled(*args))
        moved = sum(leaf.nbytes for leaf in jax.tree.leaves((args, out)))
        return {"microseconds": 1e6 * spent, "GFLOPs": work / spent / 1e9,
                "GBs": moved / spent / 1e9}

    for row, program in zip(rows, programs, strict=True):
        bench.add(functools.partial(alone, program, row[2]), what=row[0], per_cascade=row[1],
                  shape=list(np.shape(row[4][0])),
                  kernel=list(np.shape(row[4][1])) if "convolution" in row[0] else None)


def kernels(program, steps=2, most=15):
    """Run a program under the profiler: the kernels that take most time, by name."""
    args = jax.device_put(program.args)
    jax.block_until_ready(program.compiled(*args))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                jax.block_until_ready(program.compiled(*args))
        path = next(Path(folder).rglob("*.trace.json.gz"))
        with gzip.open(path, "rt") as file:
            events = json.load(file)["traceEvents"]
    threads = {(event["pid"], event["tid"]): event["args"]["name"] for event in events
               if event.get("name") == "thread_name"}
    done = [event for event in events if event.get("ph") == "X"]
    # A GPU's kernels are on its streams, with summaries of them on other lines.
    chosen = [event for event in done if threads.get(
        (event["pid"], event["tid"]), "").startswith("Stream")] or [
            event for event in done if "hlo_op" in event.get("args", {})]
    spent, calls, origin = Counter(), Counter(), {}
    for event in chosen:
        spent[event["name"]] += event["dur"]
        calls[event["name"]] += 1
        origin.setdefault(event["name"], event.get("args", {}).get("hlo_op", ""))
    total = sum(spent.values())
    return {"milliseconds": total / steps / 1e3, "kernels": [
        {"name": name[:120], "hlo": origin[name], "calls": calls[name] / steps,
         "milliseconds": time / steps / 1e3, "share": time / total}
        for name, time in spent.most_common(most)]}


def trace(bench, options):
    """The kernels of a training step, by the time that they take."""
    for method in options.traced:
        case = base(options, method=method, work="step")
        bench.add(lambda case=case: kernels(bench.wait(bench.compiled(case))), **case)
