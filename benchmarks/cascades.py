"""What more cascades cost to compile and to hold: 48 against 6.

    python benchmarks/cascades.py

Temporary memory of the training step (`compiled.memory_analysis()`), with and without
rematerialization, and processor seconds to trace and compile inference and training step. Prints
JSON with medians and their ratios.
"""

import argparse

import jax
import numpy as np
from common import build_method, compile_processor_seconds, random_batch, report


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("few", 6), ("many", 48), ("channels", 8), ("pools", 3), ("batch", 4),
                          ("size", 128), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    batch = random_batch(options.batch, options.size)
    found = {}
    for _ in range(options.repeats):
        for steps in (options.few, options.many):
            for remat in (False, True):
                method = build_method("flat", steps=steps, channels=options.channels,
                                      pools=options.pools, remat=remat)
                params = jax.eval_shape(method.init, jax.random.key(0), batch)

                def inference(params, measured, method=method):
                    return method.reconstruct(params, jax.random.key(0), measured).image

                def step(params, batch, method=method):
                    return jax.value_and_grad(method.loss, has_aux=True)(params, None, batch)

                _, forward_seconds = compile_processor_seconds(inference, params,
                                                               batch.measurement)
                compiled, step_seconds = compile_processor_seconds(step, params, batch)
                temporary = compiled.memory_analysis().temp_size_in_bytes / 2**20
                found.setdefault((steps, remat), []).append(
                    (forward_seconds, step_seconds, temporary))
    rows = {remat: {steps: dict(zip(
        ("inference_processor_seconds", "step_processor_seconds", "step_temporary_MiB"),
        np.median(found[steps, remat], axis=0).tolist(), strict=True))
        for steps in (options.few, options.many)} for remat in (False, True)}
    report(options, **{"remat" if remat else "plain": by_steps | {"many_over_few": {
        name: by_steps[options.many][name] / by_steps[options.few][name]
        for name in by_steps[options.few]}} for remat, by_steps in rows.items()})


if __name__ == "__main__":
    main()
