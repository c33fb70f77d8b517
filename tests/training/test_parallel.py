"""The training step on several devices: what they say to each other, and that they agree."""

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export

from flatjax import config
from flatjax.data import training_batch
from flatjax.methods import METHODS
from flatjax.training.parallel import AXIS, TrainState, make_update, pmapped, shard
from tests.support import toy
from tests.support.build import shrunk

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter",
               "collective-broadcast")
CURVES = """
import jax, numpy as np, optax
from flatjax.training.parallel import AXIS, make_update, shard
from tests.support.build import shrunk
from tests.support import toy
from tests.training.test_parallel import batch, start
jax.config.update("jax_num_cpu_devices", 8)
assert jax.device_count() == 8
curves, method = [], shrunk("flat", pools=0)
for count in (1, 2, 4, 8):
    state, _, optimizer = start(method, optax.sgd(0.1))
    update = jax.pmap(make_update(method, optimizer, axis_name=AXIS), axis_name=AXIS,
                      in_axes=(None, None, 0), out_axes=None, devices=jax.devices()[:count])
    losses = []
    for step in range(4):
        state, metrics = update(state, jax.random.key(1), shard(batch(8, step), count, 1))
        losses.append([float(metrics["loss"]), float(metrics["gradient_norm"])])
    curves.append(losses)
assert abs(curves[0][0][0] - curves[0][-1][0]) > 1e-3, curves
np.testing.assert_allclose(curves, np.broadcast_to(curves[0], np.shape(curves)), rtol=1e-4)
"""


def batch(size, step=0):
    return training_batch(toy.make(), config.Acquisition(), 0, step, size)


def start(method, optimizer):
    params = method.init(jax.random.key(0), batch(1))
    return (TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), {}), method,
            optimizer)


def test_one_reduction_and_no_other_word_between_devices():
    state, method, optimizer = start(toy.flat(), optax.adam(1e-3))
    step = pmapped(make_update(method, optimizer, axis_name=AXIS))
    text = step.lower(state, jax.random.key(0), shard(batch(8), 4, 2)).compile().as_text()
    counts = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    assert counts == dict.fromkeys(COLLECTIVES, 0) | {"all-reduce": 1}


@pytest.mark.slow
def test_one_two_four_and_eight_devices_follow_one_curve():
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", CURVES], check=True, timeout=300, cwd=root,
                   env=os.environ | {"PYTHONPATH": str(root)})


@pytest.mark.parametrize("name", [name for name in METHODS if name not in
                                  ("zero_filled", "cg_sense", "compressed_sensing")])
def test_every_training_step_lowers_for_accelerators(name):
    method = shrunk(name, remat=True, dtype="bfloat16")
    optimizer = optax.adam(1e-3)

    def state():
        params = method.init(jax.random.key(0), batch(1))
        return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), {})

    stacked = jax.tree.map(lambda x: x[None], batch(2))
    update = jax.jit(make_update(method, optimizer))
    key = jax.eval_shape(lambda: jax.random.key(0))
    lowered = export.export(update, platforms=["cuda", "tpu"])(
        jax.eval_shape(state), key, jax.eval_shape(lambda: stacked))
    assert lowered.platforms == ("cuda", "tpu")
    assert "stablehlo.convolution" in lowered.mlir_module() or (
        "net" not in jax.eval_shape(state).params)


def test_the_average_of_the_first_updates_is_of_trained_weights():
    """Its decay grows from 1/10 to the one asked for: `min(decay, (1 + step) / (10 + step))`."""
    state, method, optimizer = start(toy.linear(), optax.sgd(0.1))
    state = state._replace(ema=state.params)
    update = jax.jit(make_update(method, optimizer, ema_decay=0.999))
    ema = state.params
    for step in range(3):
        state, _ = update(state, jax.random.key(1), jax.tree.map(lambda x: x[None], batch(2, step)))
        decay = (1 + step) / (10 + step)
        ema = jax.tree.map(lambda old, new, d=decay: d * old + (1 - d) * new, ema, state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), state.ema,
                 ema)
