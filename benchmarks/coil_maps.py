"""What coil maps do to the reconstruction of a real scan that is undersampled afterwards.

    pip install sigpy
    python benchmarks/coil_maps.py FULL.npy --output=runs/coil_maps

FULL.npy holds fully sampled k-space, centered, [coil, ky, kx] complex64 or the first slice of
[slice, coil, ky, kx]. It is undersampled with random columns and fully sampled centers of several
widths, a few draws each. The maps are made of the sampled center (ESPIRiT without and with
cropping where its eigenvalue is low, and low-resolution coil images) or of the full scan. CG-SENSE,
with the best of five regularizations for each kind of maps, and the model reconstruct from the same
samples. Prints a table of the mean PSNR (dB) and SSIM inside the head, and writes coil_maps.csv.
"""

import argparse
from functools import partial
from pathlib import Path

import jax
import numpy as np
from real_scans import real_case, scores

from flatjax import load
from flatjax.data.prepare import prepare
from flatjax.evaluation import tables
from flatjax.files import make_folder
from flatjax.methods import cg_sense
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.sensitivities import from_box, from_calibration

LAMS = (0.001, 0.003, 0.01, 0.03, 0.1)
MAPS = {  # of k-space and the size of its sampled center
    "ESPIRiT of the center": from_box,
    **{f"the same, cropped at {crop}": partial(from_box, crop=crop) for crop in (0.8, 0.9, 0.95)},
    "low-resolution coil images": lambda kspace, rows, columns: from_calibration(kspace, columns),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--model", default="multicoil", help="shipped name, or folder of a run")
    parser.add_argument("--acceleration", type=float, default=4.0)
    parser.add_argument("--lines", type=int, nargs="+", default=[10, 16, 24])
    parser.add_argument("--draws", type=int, default=4, help="of the mask")
    parser.add_argument("--output", required=True)
    options = parser.parse_args()
    full = np.load(options.scan, allow_pickle=False).astype(np.complex64)
    full = full[0] if full.ndim == 4 else full
    case, model, sense = real_case(full), load(options.model), cg_sense()
    apply = {"CG-SENSE": jax.jit(sense.reconstruct), "model": jax.jit(model.method.reconstruct)}
    params = {"model": [model.params],
              "CG-SENSE": [{"log_lam": np.float32(np.log(lam))} for lam in LAMS]}
    height, width = full.shape[1:]
    truth = from_box(full, height, width)
    every = MAPS | {"ESPIRiT of the full scan": lambda *_: truth}
    rows = []
    for lines in options.lines:
        for name, maps_of in every.items():
            found = {method: [[] for _ in params[method]] for method in apply}
            for seed in range(options.draws):
                mask = make_mask("random", (height, width), options.acceleration, lines / width,
                                 seed)
                kspace = mask * full
                measured, scale = prepare(kspace, maps=maps_of(kspace, height, lines))
                one = jax.tree.map(lambda x: np.asarray(x)[None], measured)
                for method, weights in params.items():
                    for index, own in enumerate(weights):
                        image = scale * np.asarray(
                            apply[method](own, jax.random.key(0), one).image)[0]
                        found[method][index].append(scores(image, case)["sense"])
            best = {method: max(np.mean(each, axis=1), key=lambda one: one[0])
                    for method, each in found.items()}
            rows.append({"center lines": str(lines), "maps": name, **{
                method: f"{decibel:.2f} / {similarity:.3f}"
                for method, (decibel, similarity) in best.items()}})
    print("\n".join(tables.markdown(list(rows[0]), [list(row.values()) for row in rows])))
    tables.write_csv(make_folder(options.output) / "coil_maps.csv", rows)


if __name__ == "__main__":
    main()
