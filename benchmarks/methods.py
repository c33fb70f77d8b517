"""Seconds per slice of every method's reconstruction, with one network for all.

    python benchmarks/methods.py

Each with its default number of steps, but FLAT and E2E-VarNet with 12, DDS with 50 and score-SDE
with 100 network evaluations. Untrained weights: time does not depend on them. Prints JSON: for each
method seconds per slice, network evaluations and compile time; and DDS's seconds over FLAT's.
"""

import argparse

import jax
from common import build_method, compile_, in_turn, perturbed, random_batch, report

from flatjax.methods import METHODS

STEPS = {"flat": {"steps": 12}, "dds": {"steps": 50}, "varnet": {"steps": 12},
         "score_sde": {"steps": 50}}
ALL = [name for name in METHODS if name not in ("zero_filled",)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("channels", 8), ("pools", 3), ("batch", 4), ("size", 128),
                          ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--methods", default=",".join(ALL), help="names, with commas")
    options = parser.parse_args()
    batch = random_batch(options.batch, options.size)
    calls, rows = {}, {}
    for name in options.methods.split(","):
        method = build_method(name, channels=options.channels, pools=options.pools, samples=1,
                              **STEPS.get(name, {}))
        params = perturbed(method.init(jax.random.key(0), batch))

        def reconstruct(params, measured, method=method):
            result = method.reconstruct(params, jax.random.key(0), measured)
            return result.image, result.nfe

        compiled, seconds = compile_(reconstruct, params, batch.measurement)
        calls[name] = lambda compiled=compiled, params=params: compiled(params, batch.measurement)
        rows[name] = {"nfe": int(calls[name]()[1]), "compile_seconds": seconds}
    for name, seconds in in_turn(calls, options.repeats).items():
        rows[name]["seconds_per_slice"] = seconds / options.batch
    ratio = {"dds_over_flat": rows["dds"]["seconds_per_slice"] / rows["flat"]["seconds_per_slice"]
             } if {"dds", "flat"} <= rows.keys() else {}
    report(options, by_method=rows, **ratio)


if __name__ == "__main__":
    main()
