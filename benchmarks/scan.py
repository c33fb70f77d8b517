"""What `lax.scan` over the cascades costs against the same cascades unrolled.

    python benchmarks/scan.py

Times the training step (loss and gradient) of a 12-cascade FLAT both ways in turn, after showing
that the gradients are equal, and prints JSON: medians in seconds, their ratio, compile times.
"""

import argparse
import json
import platform
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from common import build_method

from flatjax import mri
from flatjax.flow import scan as flow_scan


def unrolled_scan(body, carry, xs):
    outputs = []
    for index in range(len(jax.tree.leaves(xs)[0])):
        carry, output = body(carry, jax.tree.map(lambda x, i=index: x[i], xs))
        outputs.append(output)
    return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def random_batch(batch, size):
    keys = jax.random.split(jax.random.key(0), 3)
    image = (jax.random.normal(keys[0], (batch, size, size))
             + 1j * jax.random.normal(keys[1], (batch, size, size)))
    maps = jnp.ones((batch, 1, size, size), jnp.complex64)
    mask = (jax.random.uniform(keys[2], (batch, 1, 1, size)) < 0.3).astype(jnp.float32)
    kspace = mri.expand(image, maps)
    return mri.Batch(mri.Measurement(mask * kspace, mask, maps), kspace, jnp.abs(image))


def compiled(method, params, batch, scan):
    gradient = jax.value_and_grad(method.loss, has_aux=True)
    with mock.patch.object(flow_scan.lax, "scan", scan):
        start = time.perf_counter()
        step = jax.jit(lambda p, b: gradient(p, None, b)).lower(params, batch).compile()
    return step, time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("steps", 12), ("channels", 8), ("pools", 3), ("batch", 4),
                          ("size", 128), ("repeats", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    method = build_method("flat", steps=options.steps, channels=options.channels,
                          pools=options.pools)
    batch = random_batch(options.batch, options.size)
    params = jax.tree.map(lambda x: x + 0.01 * jax.random.normal(jax.random.key(1), x.shape),
                          method.init(jax.random.key(0), batch))
    variants = {name: compiled(method, params, batch, scan)
                for name, scan in (("scan", jax.lax.scan), ("unrolled", unrolled_scan))}
    gradients = [step(params, batch)[1] for step, _ in variants.values()]
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-3 * float(jnp.abs(a).max() + 1e-6))
    seconds = {name: [] for name in variants}
    for _ in range(options.repeats):
        for name, (step, _) in variants.items():
            start = time.perf_counter()
            jax.block_until_ready(step(params, batch))
            seconds[name].append(time.perf_counter() - start)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    print(json.dumps(vars(options) | {
        "median_seconds": medians, "scan_over_unrolled": medians["scan"] / medians["unrolled"],
        "compile_seconds": {name: spent for name, (_, spent) in variants.items()},
        "device": str(jax.devices()[0].device_kind), "machine": platform.machine(),
        "jax": jax.__version__}, indent=2))


if __name__ == "__main__":
    main()
