"""Where the time of a reconstruction goes, and how far each part is from what the machine can do.

    python benchmarks/roofline.py --size=320 --channels=18 --pools=4 --batch=1

Measures the machine (the largest rate of a matrix product, the bandwidth of adding two arrays too
large for the caches), the whole forward pass of FLAT, and by itself every kind of operator in a
cascade at the shapes that occur: convolutions, norm with activation, pooling with skip
connections' concatenation, and Fourier transforms. The roof of each is the smaller of peak rate
and bandwidth x intensity, where each input and output moves once. Prints JSON.
"""

import argparse
import ast
from collections import Counter

import jax
import jax.numpy as jnp
from common import build_method, in_turn, perturbed, random_batch, report

from flatjax.mri import fft2c
from flatjax.nets.conv import average_pool, conv2d
from flatjax.nets.unet import instance_norm


def products(jaxpr, times=1):
    """Multiply-adds in a jaxpr: `(kind, shapes) -> how often`, loops counted as they run."""
    found = Counter()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in ("conv_general_dilated", "dot_general"):
            found[name, *(tuple(v.aval.shape) for v in (*equation.invars, *equation.outvars)),
                  str(equation.params["dimension_numbers"])] += times
        inner = times * equation.params.get("length", 1) if name == "scan" else times
        for value in equation.params.values():
            value = getattr(value, "jaxpr", value)
            if hasattr(value, "eqns"):
                found += products(value, inner)
    return found


def flops(key):
    kind, left, right, out, numbers = key
    size = 2
    for n in out:
        size *= n
    if kind == "conv_general_dilated":
        return size * right[0] * right[1] * right[2]
    contracted = ast.literal_eval(numbers)[0][0]
    for axis in contracted:
        size *= left[axis]
    return size


def bytes_of(*arrays):
    return sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))


def seconds_of(function, *args, repeats=9):
    compiled = jax.jit(function).lower(*args).compile()
    return in_turn({"it": lambda: compiled(*args)}, repeats)["it"], compiled(*args)


def machine():
    """Peak of matrix products in GFLOP/s, and bandwidth in GB/s."""
    a = jax.random.normal(jax.random.key(0), (3072, 3072))
    seconds, _ = seconds_of(lambda a: a @ a, a)
    big = jnp.ones(1 << 26)
    spent, _ = seconds_of(lambda x, y: x + y, big, big + 1)
    return 2 * 3072**3 / seconds / 1e9, 3 * big.nbytes / spent / 1e9


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("steps", 12), ("channels", 18), ("pools", 4), ("batch", 1),
                          ("size", 320), ("coils", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    peak, bandwidth = machine()
    batch = random_batch(options.batch, options.size, options.coils)
    method = build_method("flat", steps=options.steps, channels=options.channels,
                          pools=options.pools)
    params = perturbed(method.init(jax.random.key(0), batch))

    def forward(params, measured):
        return method.reconstruct(params, jax.random.key(0), measured).image

    whole, _ = seconds_of(forward, params, batch.measurement, repeats=5)
    found = products(jax.make_jaxpr(forward)(params, batch.measurement).jaxpr)
    total = sum(flops(key) * count for key, count in found.items())
    rows = []

    def add(kind, count, work, function, *args):
        seconds, out = seconds_of(function, *args)
        moved = bytes_of(args, out)
        roof = max(work / peak, moved / bandwidth) / 1e9
        rows.append({"kind": kind, "shape": list(args[0].shape), "out": list(out.shape),
                     "per_cascade": count, "microseconds": round(1e6 * seconds),
                     "GFLOP/s": round(work / seconds / 1e9, 1),
                     "GB/s": round(moved / seconds / 1e9, 1), "of_roof": round(roof / seconds, 2),
                     "bound": "compute" if work / peak > moved / bandwidth else "memory"})

    norms = Counter()
    for key, count in found.items():
        kind, left, right, out, _ = key
        if kind != "conv_general_dilated":
            continue
        count //= options.steps
        add("convolution", count, flops(key), conv2d, jnp.ones(left), jnp.ones(right))
        norms[out] += count
    for level in range(options.pools):  # after each transposed convolution
        side = -(-options.size // (1 << options.pools)) << (options.pools - level)
        norms[options.batch, side, side, options.channels << level] += 1
    for shape, count in norms.items():
        add("norm and activation", count, 0,
            lambda x: jax.nn.leaky_relu(instance_norm(x), 0.2), jnp.ones(shape))
    for level in range(options.pools):
        side = -(-options.size // (1 << options.pools)) << (options.pools - level)
        x = jnp.ones((options.batch, side, side, options.channels << level))
        add("pooling", 1, 0, average_pool, x)
        add("concatenation", 1, 0, lambda x, y: jnp.concatenate([x, y], -1), x, x + 1)
    add("Fourier transform", 2, 0, fft2c, batch.kspace)
    shares = Counter()
    for row in rows:
        shares[row["kind"]] += row["per_cascade"] * row["microseconds"] / 1e6 * options.steps
    report(options, peak_GFLOPs=peak, bandwidth_GBs=bandwidth, forward_seconds=whole,
           forward_GFLOP=total / 1e9, forward_of_peak=total / whole / 1e9 / peak,
           seconds_alone=dict(shares), share_of_forward={
               kind: spent / whole for kind, spent in shares.items()}, operators=rows)


if __name__ == "__main__":
    main()
