"""The update across devices: `jax.pmap` and `jax.shard_map`, with and without a donated state.

    python benchmarks/devices.py --devices=4

Simulated CPU devices, FLAT's training step with Adam and averaged weights, in turn in one process.
Prints JSON for each: median milliseconds, the last loss, MiB of the program's arguments, results,
temporary memory and results that take the place of arguments, and how many collectives it has.
"""

import argparse
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from common import in_turn, report
from jax.sharding import Mesh, PartitionSpec as P

from flatjax import data
from flatjax.methods import flat
from flatjax.training.parallel import AXIS, TrainState, make_update, pmapped, shard

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute")


def sharded(update, donate):
    def local(state, rng, batch):
        return update(state, rng, jax.tree.map(lambda x: x[0], batch))

    mesh = Mesh(np.array(jax.devices()), (AXIS,))
    return jax.jit(jax.shard_map(local, mesh=mesh, in_specs=(P(), P(), P(AXIS)), out_specs=P(),
                                 check_vma=False), donate_argnums=(0,) if donate else ())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("devices", 4), ("size", 64), ("steps", 4), ("channels", 8),
                          ("pools", 3), ("repeats", 9)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", options.devices)
    batch = data.training_batch(data.icbm.make(matrix=options.size), data.Acquisition(), 0, 0,
                                options.devices)
    batch = shard(batch, options.devices, 1)
    method = flat.make(steps=options.steps, channels=options.channels, pools=options.pools)
    optimizer = optax.adam(1e-3)
    params = method.init(jax.random.key(0), jax.tree.map(lambda x: x[0, 0], batch))
    update = make_update(method, optimizer, ema_decay=0.9, axis_name=AXIS)
    updates = {"pmap": pmapped(update),
               "pmap, donated": jax.pmap(update, axis_name=AXIS, in_axes=(None, None, 0),
                                         out_axes=None, donate_argnums=(0,)),
               "shard_map": sharded(update, False), "shard_map, donated": sharded(update, True)}
    state, losses, programs = {}, {}, {}
    for name, function in updates.items():
        copy = jax.tree.map(jnp.copy, (params, params))
        state[name] = TrainState(jnp.zeros((), jnp.int32), copy[0], optimizer.init(params), copy[1])
        program = function.lower(state[name], jax.random.key(1), batch).compile()
        memory, text = program.memory_analysis(), program.as_text()
        programs[name] = {f"{kind}_MiB": getattr(memory, f"{kind}_size_in_bytes") / 2**20
                          for kind in ("argument", "output", "temp", "alias")}
        programs[name] |= {kind: len(re.findall(rf" {kind}(?:-start)?\(", text))
                           for kind in COLLECTIVES}

    def step(name):
        state[name], metrics = updates[name](state[name], jax.random.key(1), batch)
        losses[name] = metrics["loss"]
        return losses[name]

    seconds = in_turn({name: lambda name=name: step(name) for name in updates}, options.repeats)
    report(options, **{name: {"milliseconds": 1e3 * seconds[name], "loss": float(losses[name]),
                              **programs[name]} for name in updates})


if __name__ == "__main__":
    main()
