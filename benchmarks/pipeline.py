"""Whether training waits for its data: the real pipeline against one batch held in memory.

    python benchmarks/pipeline.py

The training of singlecoil, batches made ahead in threads as in `train.py`, in turn with as many
steps on a fixed batch; prints JSON: slices per second of both and their ratio. The updates of
both are the same compiled step. Takes processor time from the step on a machine whose cores all
compute.
"""

import argparse
import time
from contextlib import closing

import jax
import numpy as np
from common import report

from flatjax import config as configuration
from flatjax.data import training_batch
from flatjax.data.batches import prefetch
from flatjax.experiments.config_file import load_config_file
from flatjax.training.parallel import AXIS, make_update, pmapped, shard
from flatjax.training.train import initial_state, make_optimizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", default="singlecoil")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    config = load_config_file(options.config)
    train = configuration.make_training(config, 1)
    method, dataset = configuration.make_method(config), configuration.make_dataset(config)
    acquisition = configuration.make_acquisition(config)

    def make_batch(step):
        return shard(training_batch(dataset, acquisition, 0, step, train.batch_size), 1,
                     train.accumulate)

    optimizer = make_optimizer(train)
    held = make_batch(0)
    state = initial_state(method, optimizer, train, jax.random.key(0),
                          jax.tree.map(lambda x: x[0, 0], held))
    update = pmapped(make_update(method, optimizer, axis_name=AXIS))
    state, _ = update(state, jax.random.key(0), held)

    def rate(batches):
        nonlocal state
        start, count, metrics = time.perf_counter(), 0, None
        for batch in batches:
            before = metrics
            state, metrics = update(state, jax.random.key(0), batch)
            if before is not None:
                jax.device_get(before)  # as training does, one step behind
            count += 1
        jax.block_until_ready(state)
        return count * train.batch_size / (time.perf_counter() - start)

    def real(first):
        steps = range(first, first + options.steps)
        with closing(prefetch(make_batch, steps, workers=train.workers)) as batches:
            return rate(batches)

    rates = {"pipeline": [], "held": []}
    for repeat in range(options.repeats):
        rates["held"].append(rate([held] * options.steps))
        rates["pipeline"].append(real(repeat * options.steps))
    start = time.process_time()
    for step in range(20):
        make_batch(step)
    alone = (time.process_time() - start) / 20
    medians = {name: float(np.median(values)) for name, values in rates.items()}
    report(options, slices_per_second=medians,
           pipeline_over_held=medians["pipeline"] / medians["held"],
           processor_seconds_per_batch=alone)


if __name__ == "__main__":
    main()
