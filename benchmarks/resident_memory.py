"""Peak resident memory of one training step above what the process held before, and torch's.

    python benchmarks/resident_memory.py

Each in a process of its own, measured the same way: the highest resident size (VmHWM) after two
steps, less that just before the network and its data are made; weights and gradients count.
E2E-VarNet's cascades, the mean squared error of the k-space; flatjax plain and with
rematerialization, at a first start, which compiles, and at a second, which does not. Needs torch
and fastmri, see torch_varnet.py, unless --without-torch. Prints JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def status_mib(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines()
                if line.startswith(key))
    return int(line.split()[1]) / 1024


def flatjax_step(options, remat):
    import jax
    import jax.numpy as jnp
    from common import build_method, random_batch

    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

    jax.block_until_ready(jnp.fft.fft2(jnp.ones((8, 8))) @ jnp.ones((8, 8)))  # start the backend
    before = status_mib("VmRSS")
    batch = random_batch(options.batch, options.size)
    method = build_method("varnet", steps=options.steps, channels=options.channels,
                          pools=options.pools, remat=remat)
    shapes = jax.eval_shape(method.init, jax.random.key(0), batch)
    params = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01, leaf.dtype), shapes)

    def loss(params, batch):
        result = method.reconstruct(params, jax.random.key(0), batch.measurement)
        return jnp.mean(jnp.abs(result.kspace - batch.kspace) ** 2)

    step = jax.jit(jax.value_and_grad(loss)).lower(params, batch).compile()
    for _ in range(2):
        jax.block_until_ready(step(params, batch))
    return status_mib("VmHWM") - before


def torch_step(options):
    import torch
    from torch_varnet import fastmri_varnet

    torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3))
    before = status_mib("VmRSS")
    net = fastmri_varnet().VarNet(num_cascades=options.steps, chans=options.channels,
                                  pools=options.pools)
    shape = (options.batch, 1, options.size, options.size, 2)
    kspace, maps = torch.randn(shape), torch.ones(shape)
    mask = torch.rand(options.batch, 1, 1, options.size, 1) < 0.3
    for _ in range(2):
        net.cascades.zero_grad()
        state = mask * kspace
        measured = state
        for cascade in net.cascades:
            state = cascade(state, measured, mask, maps)
        (state - kspace).square().sum(-1).mean().backward()
    return status_mib("VmHWM") - before


VARIANTS = {"plain": lambda options: flatjax_step(options, False),
            "remat": lambda options: flatjax_step(options, True), "torch": torch_step}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("steps", 12), ("channels", 18), ("pools", 4), ("batch", 1),
                          ("size", 320)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--without-torch", action="store_true")
    parser.add_argument("--variant", choices=VARIANTS, help="measure one, in this process")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(VARIANTS[options.variant](options)))
        return
    peaks = {}
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        for name in list(VARIANTS)[:2 if options.without_torch else 3]:
            for start in ("first", "second")[:1 if name == "torch" else 2]:
                done = subprocess.run([sys.executable, *sys.argv, f"--variant={name}"], check=True,
                                      stdout=subprocess.PIPE, text=True, env=environment)
                label = name if name == "torch" else f"{name}_{start}_start"
                peaks[label] = json.loads(done.stdout.splitlines()[-1])
    from common import report
    ratios = {} if options.without_torch else {
        name: peaks["torch"] / peak for name, peak in peaks.items() if name != "torch"}
    report(options, peak_above_baseline_MiB=peaks, torch_over_flatjax=ratios)


if __name__ == "__main__":
    main()
