"""The shipped model and CG-SENSE on scans of many sizes, coils, accelerations and noise levels.

    python benchmarks/robustness.py --output=runs/robustness

Slices of the test patient of the data set `heads`, one of each contrast, are seen by random arrays
and undersampled. From a usual case (128 x 128, 8 coils, random columns with R = 4 and 8 % center,
noise .01) one property is changed at a time. Mask, coil maps (ESPIRiT) and scale are found in the
k-space, as for a scan. CG-SENSE has the best of three regularizations in each case. Prints a table
of the mean PSNR in dB inside the head, and writes it as robustness.csv.
"""

import argparse
from pathlib import Path

import jax
import numpy as np
from tqdm import tqdm

from flatjax import load, metrics
from flatjax.data import Acquisition, augment, heads
from flatjax.data.batches import measure_slice
from flatjax.data.prepare import prepare
from flatjax.data.slices import make_sample, packaged_array, resample
from flatjax.evaluation import tables
from flatjax.files import make_folder
from flatjax.methods import cg_sense

USUAL = Acquisition("random", 4.0, 0.08, noise=0.01)
LAMS = (0.001, 0.01, 0.1)
CASES = {
    "the usual case": {},
    "64 x 64, 16 % center": {"shape": (64, 64), "center_fraction": 0.16},  # fewer make no maps
    **{f"{y} x {x}": {"shape": (y, x)} for y, x in (
        (256, 256), (512, 512), (192, 128), (101, 149))},
    **{f"{coils} coil{'s' * (coils > 1)}": {"coils": coils} for coils in (1, 2, 4, 16, 32, 64)},
    "R = 1": {"acceleration": 1.0},
    "R = 2, 16 % center": {"acceleration": 2.0, "center_fraction": 0.16},
    "R = 8": {"acceleration": 8.0},
    "Poisson-disc, R = 8": {"mask": "poisson", "acceleration": 8.0},
    "partial Fourier .6": {"partial_fourier": 0.6},
    **{f"noise {noise:g}": {"noise": noise} for noise in (0.001, 0.03, 0.1)},
}


def slices(shape=(128, 128), coils=8, **changes):
    """A measured slice and its target for each contrast."""
    size = max(shape)
    for contrast in range(len(heads.CONTRASTS)):
        rng = np.random.default_rng([contrast, *shape, coils])
        image = heads.intensity(packaged_array(heads.TEST, "images")[contrast, 2])
        square = np.clip(resample(image, (heads.PIXEL_MM,) * 2, heads.FOV_MM, size), 0, None)
        top, left = ((size - n) // 2 for n in shape)
        target = square[top:top + shape[0], left:left + shape[1]] / square.max()
        sample = make_sample(target, augment.draw_phase(rng, shape, 1.0),
                             augment.draw_maps(rng, shape, coils))
        yield measure_slice(sample, USUAL._replace(**changes), contrast, rng)


def scores(found, reconstruct, params):
    """PSNR (dB) inside the head of each slice."""
    out = []
    for batch in found:
        measured, scale = prepare(batch.measurement.kspace)
        one = jax.tree.map(lambda x: np.asarray(x)[None], measured)
        image = scale * np.asarray(reconstruct(params, jax.random.key(0), one).image)
        target = batch.target[None]
        out.append(metrics.psnr(prediction=image, target=target,
                                mask=metrics.object_mask(target)))
    return np.array(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="multicoil", help="shipped name, or folder of a run")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    model, sense = load(options.model), cg_sense()
    flat = jax.jit(model.method.reconstruct)
    classical = jax.jit(sense.reconstruct)
    rows = []
    for name, changes in tqdm(CASES.items(), desc="robustness", unit="case"):
        found = list(slices(**changes))
        best = max((scores(found, classical, {"log_lam": np.float32(np.log(lam))})
                    for lam in LAMS), key=np.mean)
        own = scores(found, flat, model.params)
        rows.append({"case": name, "CG-SENSE": f"{best.mean():.2f}",
                     options.model: f"{own.mean():.2f}",
                     "smallest gain": f"{(own - best).min():+.2f}"})
    print("\n".join(tables.markdown(list(rows[0]), [list(row.values()) for row in rows])))
    tables.write_csv(make_folder(Path(options.output)) / "robustness.csv", rows)


if __name__ == "__main__":
    main()
