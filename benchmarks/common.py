"""What the benchmarks share: data, clocks, and what machine and versions a figure belongs to."""

import json
import operator
import os
import time
from functools import reduce
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from flatjax import config, mri
from flatjax.options import flattened

jax.config.update("jax_enable_compilation_cache", False)  # compiling is measured


def random_batch(batch, size, coils=1):
    """Slices of noise, R about 3.3: `mri.Batch`."""
    keys = jax.random.split(jax.random.key(0), 4)
    shape = (batch, size, size)
    image = jax.random.normal(keys[0], shape) + 1j * jax.random.normal(keys[1], shape)
    maps = jnp.exp(2j * jnp.pi * jax.random.uniform(keys[3], (batch, coils, 1, 1)))
    maps = jnp.broadcast_to(maps / coils**0.5, (batch, coils, size, size)).astype(jnp.complex64)
    mask = (jax.random.uniform(keys[2], (batch, 1, 1, size)) < 0.3).astype(jnp.float32)
    kspace = mri.expand(image, maps)
    return mri.Batch(mri.Measurement(mask * kspace, mask, maps), kspace, jnp.abs(image))


def build_method(name, more=MappingProxyType({}), **wanted):
    """The `Method` of that name, with those of the wanted options that it or its parts have.

    `more` is handed to `config.method` before.
    """
    section = config.method(name, **more)
    for key in flattened(section):
        *parents, leaf = key.split(".")
        if leaf in wanted:
            reduce(operator.getitem, parents, section)[leaf] = wanted[leaf]
    return config.make_method(config.experiment(method=section))


def perturbed(params, by=0.01):
    """Weights away from their initial values, where none is zero."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return jax.tree.unflatten(tree, [leaf + by * jax.random.normal(key, leaf.shape)
                                     for leaf, key in zip(leaves, keys, strict=True)])


def compile_(function, *args):
    """The compiled function, and the seconds that tracing and compiling it took."""
    start = time.perf_counter()
    compiled = jax.jit(function).lower(*args).compile()
    return compiled, time.perf_counter() - start


def compile_processor_seconds(function, *args):
    """The compiled function, and processor seconds, which other programs do not lengthen."""
    start = time.process_time()
    compiled = jax.jit(function).lower(*args).compile()
    return compiled, time.process_time() - start


def in_turn(functions, repeats):
    """Median seconds of each of several functions by name, called one after the other."""
    seconds = {name: [] for name in functions}
    for function in functions.values():
        jax.block_until_ready(function())
    for _ in range(repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            jax.block_until_ready(function())
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def difference(ours, theirs):
    """Norm of the difference over the norm, over all leaves together."""
    pairs = [(np.asarray(a), np.asarray(b)) for a, b in
             zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True)]
    apart = sum(float(np.sum(np.abs(a - b) ** 2)) for a, b in pairs)
    return (apart / sum(float(np.sum(np.abs(b) ** 2)) for _, b in pairs)) ** 0.5


def environment():
    """What figures belong to: device, processor, load and versions."""
    processor = next((line.partition(":")[2].strip() for line in
                      Path("/proc/cpuinfo").read_text().splitlines()
                      if line.startswith("model name")), "")
    return {"device": jax.devices()[0].device_kind, "processor": processor,
            "cores": os.cpu_count(), "load": [round(load, 1) for load in os.getloadavg()],
            "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")}}


def report(options, **results):
    """Print JSON: the options, the results, and what they were measured on."""
    print(json.dumps(vars(options) | results | environment(), indent=2))
