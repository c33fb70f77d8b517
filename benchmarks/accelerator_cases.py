"""What `accelerator.py` measures: programs by their settings, compiled side by side, and clocks.

A case is a dictionary with `method`, `work` ("inference", "step" or "both"), `steps`, `channels`,
`pools`, `size`, `coils`, `batch`, `precision` and `remat`.
"""

import functools
import json
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from common import build_method
from roofline import flops, products

from flatjax import mri
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.simulate import birdcage_maps, host_fft2c, image_phase, smooth_field

# What JAX is told of matrix products in float32; the physics is complex64 in all.
PRECISIONS = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "tensorfloat32"}
IMEX = {"space": {"name": "image", "cg_iterations": 6}, "solver": "imex"}
VARIANTS = {"flat_imex": ("flat", IMEX)}
GATE = threading.Event()  # cleared while something is measured beside which XLA may only trace
GATE.set()


class Program(NamedTuple):
    """A compiled case with its arguments on the host, and what is known without running it."""

    compiled: Any
    args: Any
    facts: dict


def base(options, **more):
    """A case: E2E-VarNet's inference of one slice, unless told otherwise."""
    names = ("steps", "channels", "pools", "size", "coils")
    return {name: getattr(options, name) for name in names} | {
        "method": "varnet", "work": "inference", "batch": 1, "precision": "tf32",
        "remat": False} | more


def both(options, **more):
    return [base(options, work=work, **more) for work in ("step", "inference")]


def plan(options):
    """Cases to compile together, and then the next: the most telling first."""
    few, many = options.batches[0], options.batches[-1]
    first = [*both(options, batch=many), *both(options, method="flat_imex", batch=many)]
    second = [*both(options), base(options, work="step", precision="bfloat16", batch=many),
              base(options, work="step", precision="float32", batch=many),
              base(options, work="step", remat=True, batch=options.largest)]
    third = both(options, method="flat", batch=many) + both(options, coils=1, batch=many)
    third += [base(options, method="flat", steps=steps) for steps in options.cascades]
    third += [base(options, method=method, steps=count, coils=1, channels=options.wide)
              for count in options.evaluations for method in ("mc_ddpm", "dds")]
    third += [base(options, precision=precision, batch=many)
              for precision in ("bfloat16", "float32")]
    if many == few:  # quick
        first, second, third = first[:2], first[-1:], third[4:5] + third[7:8]
    unique = {json.dumps(case): case for case in first + second + third}
    return [[unique.pop(json.dumps(case)) for case in wave if json.dumps(case) in unique]
            for wave in (first, second, third)]


@functools.lru_cache(8)
def make_batch(batch, coils, size):
    """Smooth images of random phase at R about 4, numpy throughout: `mri.Batch`."""
    rng = np.random.default_rng(0)
    shape = (size, size) if np.ndim(size) == 0 else size
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    head = (y**2 + (1.3 * x) ** 2 < 0.8).astype(np.float32)
    image = np.stack([head * np.abs(1 + 0.3 * smooth_field(rng, shape, 0.05))
                      * image_phase(rng, shape) for _ in range(batch)])
    maps = np.repeat(birdcage_maps(coils, shape)[None], batch, 0)
    mask = np.stack([make_mask("random", shape, 4, 0.08, seed)[None] for seed in range(batch)])
    kspace = host_fft2c(maps * image[:, None])
    return mri.Batch(mri.Measurement(mask * kspace, mask, maps), kspace,
                     np.abs(image).astype(np.float32))


def make_method(case):
    """The `Method` of a case; options that it does not have are left out."""
    name, more = VARIANTS.get(case["method"], (case["method"], {}))
    dtype = "bfloat16" if case["precision"] == "bfloat16" else "float32"
    return build_method(name, more, dtype=dtype, remat=case["remat"], steps=case["steps"],
                        channels=case["channels"], pools=case["pools"], samples=1)


@functools.lru_cache(8)
def make_params(method, steps, channels, pools):
    """Random weights, numpy, whose last layers give little, as in a trained network.

    Otherwise round-off grows with every cascade until activations fall on the other side of zero.
    They are those of any precision and any image's size.
    """
    case = {"method": method, "steps": steps, "channels": channels, "pools": pools,
            "precision": "float32", "remat": False}
    shapes = jax.eval_shape(make_method(case).init, jax.random.key(0), make_batch(1, 1, 32))
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        names = [getattr(key, "key", "") for key in path]
        if names[-1] == "eta":
            return np.ones(leaf.shape, np.float32)
        last = 0.1 if "last" in names else 1
        inputs = np.prod(leaf.shape[-4:-1]) if leaf.ndim > 3 else leaf.shape[-2:-1] or 1
        scale = last * (2 / np.max(inputs)) ** 0.5 if names[-1] == "kernel" else 0.01 * last
        return (scale * rng.standard_normal(leaf.shape, np.float32)).astype(np.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def build(case):
    """The function of a case and its arguments, numpy.

    Inference gives the image, or E2E-VarNet's k-space; the step gives loss and gradient: of the
    k-space's mean squared error for E2E-VarNet, which torch computes too, and else its own loss.
    "both", for the comparison of results: image, loss and gradient.
    """
    method = make_method(case)
    batch = make_batch(case["batch"], case["coils"], case["size"])
    params = make_params(*(case[name] for name in ("method", "steps", "channels", "pools")))
    varnet = case["method"] == "varnet"

    def inference(params, measured):
        result = method.reconstruct(params, jax.random.key(0), measured)
        return result.kspace if varnet else result.image

    def loss(params, batch):
        if not varnet:
            return method.loss(params, jax.random.key(0), batch)[0]
        apart = inference(params, batch.measurement) - batch.kspace
        return jnp.mean(jnp.real(apart) ** 2 + jnp.imag(apart) ** 2)

    def both(params, batch):
        result = method.reconstruct(params, jax.random.key(0), batch.measurement)
        return result.image, *jax.value_and_grad(loss)(params, batch)

    if case["work"] == "inference":
        return inference, (params, batch.measurement)
    return {"step": jax.value_and_grad(loss), "both": both}[case["work"]], (params, batch)


def compile_case(case):
    """A case as a `Program`; its times are those beside other compilations."""
    function, args = build(case)
    return compile_for(function, args, case["precision"])


def compile_for(function, args, precision):
    """Trace and compile for the device of the arguments, the default one for numpy's."""
    with jax.default_matmul_precision(PRECISIONS[precision]):
        start = time.perf_counter()
        lowered = jax.jit(function).lower(*args)
        trace_seconds = time.perf_counter() - start
        GATE.wait()
        start = time.perf_counter()
        compiled = lowered.compile()
    facts = {"trace_seconds": trace_seconds, "compile_seconds": time.perf_counter() - start}
    memory = compiled.memory_analysis()
    if memory is not None:
        facts |= {f"{name}_MiB": getattr(memory, f"{name}_size_in_bytes") / 2**20
                  for name in ("temp", "argument", "output")}
        facts["memory_MiB"] = sum(facts[f"{name}_MiB"] for name in ("temp", "argument", "output"))
    return Program(compiled, args, facts)


@functools.lru_cache
def flops_per_slice(method, steps, channels, pools, size):
    """Of convolutions and matrix products in one reconstruction; a step counts as three."""
    case = {"method": method, "steps": steps, "channels": channels, "pools": pools, "size": size,
            "coils": 1, "batch": 1, "precision": "float32", "remat": False, "work": "inference"}
    function, args = build(case)
    found = products(jax.make_jaxpr(function)(*args).jaxpr)
    return sum(flops(key) * count for key, count in found.items())


def seconds_of(call, budget=1.0, most=20):
    """Median seconds of a call, after a first one: at least 3, at most `most`, about `budget`."""
    jax.block_until_ready(call())
    times = []
    while len(times) < 3 or (sum(times) < budget and len(times) < most):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def queued_seconds(call, calls=20, repeats=3):
    """Seconds of one of several calls in the device's queue, where starting it hardly counts."""
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        results = [call() for _ in range(calls)]
        jax.block_until_ready(results[-1])
        times.append((time.perf_counter() - start) / calls)
    return float(np.median(times))


def peaks(size, elements):
    """The device's largest rates: GFLOP/s of products by precision, and GB/s of adding arrays."""
    rates = {}
    for precision in PRECISIONS:
        dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
        matrix = jax.device_put(np.ones((size, size), np.float32)).astype(dtype)
        program = compile_for(lambda a: a @ a, (matrix,), precision)
        spent = queued_seconds(functools.partial(program.compiled, matrix), 3)
        rates[precision] = 2 * size**3 / spent / 1e9
    big = jax.device_put(np.ones(elements, np.float32))
    program = compile_for(lambda x, y: x + y, (big, big + 1), "float32")
    spent = queued_seconds(functools.partial(program.compiled, big, big + 1), 3)
    return {"peak_GFLOPs": rates, "bandwidth_GBs": 3 * big.nbytes / spent / 1e9}
