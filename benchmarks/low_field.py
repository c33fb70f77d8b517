"""Self-supervised training on real scans of 0.055 T, tried on patients who were not trained on.

    python benchmarks/low_field.py FOLDER --output=runs/low_field --steps=300

FOLDER holds `NAME.npz` of k-space, one coil, `[slice, 1, ky, kx]` complex, centered and fully
sampled, several contrasts in each. The first half of the files, by name, is trained on, the other
half is tested. Every slice is undersampled with a mask of its own, and this is all that the
training sees; it starts from the model, and one contrast of it chooses the checkpoint.

Scores of zero filling, of L1-wavelets, tuned on slices of the training, of the model and of what it
became: the relative error on held-out samples, and PSNR in the object against the full
scans. These have as much noise as the measurements, which no method should predict. Prints a table
and writes it as `low_field.json`, with a figure.
"""

import argparse
import os
from functools import partial
from pathlib import Path

import jax
import numpy as np
from common import environment
from real_scan import error, reconstructor, sparsely

from flatjax import config, load
from flatjax.data import Acquisition
from flatjax.data.acquisition import draw_mask
from flatjax.data.prepare import prepare
from flatjax.evaluation import figures, tables
from flatjax.evaluation.figures import Panel
from flatjax.evaluation.metrics import object_mask, psnr
from flatjax.files import make_folder, write_json
from flatjax.inference.pretrained import folder
from flatjax.methods.self_supervised import split
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.training.train import train

SPARSITIES = (0.002, 0.008, 0.03, 0.1)
SHARE = 0.1


def read(file, acquisition):
    """`{contrast: (full, undersampled)}` of a file, each `[slice, 1, ky, kx]` complex64."""
    with np.load(file, allow_pickle=False) as arrays:
        scans = {name: arrays[name].astype(np.complex64) for name in arrays.files}
    found = {}
    for name, full in scans.items():
        masks = [draw_mask(acquisition, full.shape[2:], (index, *f"{file.stem} {name}".encode()))
                 for index in range(len(full))]
        found[name] = full, full * np.stack(masks)[:, None]
    return found


def learn(files, tested, acquisition, model, output, steps):
    """Train on the undersampled scans of some files alone; the trained model."""
    scans, names = make_folder(output / "scans"), {}
    for file in (*files, *tested):
        names[file] = []
        for name, (_, undersampled) in read(file, acquisition).items():
            names[file].append(f"{file.stem}_{name}")
            np.save(scans / f"{names[file][-1]}.npy", undersampled)
    trained = config.experiment(
        method=load(model).config.method, init_from=str(folder(model)),
        data=config.data("scans", path=str(scans), validation=tuple(names[files[-1]][-1:]),
                         test=tuple(name for file in tested for name in names[file])),
        train=config.training(supervision="self", steps=steps, batch_size=4, learning_rate=3e-4,
                              validate_every=max(1, steps // 6), workers=1))
    train(trained, output / "run")
    return load(output / "run")


def cases(files, acquisition):
    """Per slice: its name, the measurement without held-out samples, these, and the full scan."""
    for file in files:
        for name, (full, undersampled) in read(file, acquisition).items():
            for index, (one, target) in enumerate(zip(undersampled, full, strict=True)):
                measured, scale = prepare(one)
                batch = jax.tree.map(lambda x: np.asarray(x)[None], measured)
                key = jax.random.key(index)
                given, held = jax.device_get(split(key, batch, SHARE, "uniform"))
                image = np.abs(host_ifft2c(target / np.float32(scale)))[0]
                yield f"{file.stem} {name}", given, held[0, 0], measured.kspace, image


def score(kspace, held, measured, image):
    found = np.abs(host_ifft2c(np.asarray(kspace)))[0]
    inside = object_mask(image[None])
    return (error(np.asarray(kspace), measured, held),
            float(psnr(prediction=found[None], target=image[None], mask=inside)))


def tuned(training, candidates):
    """The candidate with the smallest held-out error over slices of the training."""
    def mean(method):
        return np.mean([error(np.asarray(method(given)), measured, held)
                        for _, given, held, measured, _ in training])

    return min(candidates, key=lambda name: mean(candidates[name]))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--output", required=True)
    parser.add_argument("--model", default="multicoil")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--acceleration", type=float, default=2.5)
    options = parser.parse_args()
    output = make_folder(options.output)
    acquisition = Acquisition("gaussian2d", options.acceleration, 0.04)
    files = sorted(options.folder.glob("*.npz"))
    first, second = files[:len(files) // 2], files[len(files) // 2:]
    learned = learn(first, second, acquisition, options.model, output, options.steps)
    sparse = {weight: partial(sparsely, weight=weight) for weight in SPARSITIES}
    training = list(cases(first, acquisition))[::4]
    methods = {"zero-filled": lambda given: given.kspace[0],
               "L1-wavelet": sparse[tuned(training, sparse)],
               "model": partial(reconstructor(load(options.model).method),
                                load(options.model).params),
               "self-supervised": partial(reconstructor(learned.method), learned.params)}
    scores, shown = {name: [] for name in methods}, None
    for _, given, held, measured, image in cases(second, acquisition):
        made = {name: method(given) for name, method in methods.items()}
        for name, kspace in made.items():
            scores[name].append(score(kspace, held, measured, image))
        shown = shown or (made, image)
    means = {name: np.mean(found, axis=0) for name, found in scores.items()}
    print("\n".join(tables.markdown(
        ["method", "held-out error", "PSNR against the full, noisy scan (dB)"],
        [[name, f"{held:.4f}", f"{decibel:.2f}"] for name, (held, decibel) in means.items()])))
    write_json(output / "low_field.json", {
        "scores": {name: np.asarray(found).tolist() for name, found in scores.items()},
        "options": {key: str(value) for key, value in vars(options).items()}, **environment()})
    made, image = shown
    peak = float(np.quantile(image, 0.998))
    figures.save(figures.row([Panel(image, "full scan", 0.0, peak), *(
        Panel(np.abs(host_ifft2c(np.asarray(one)))[0], name, 0.0, peak)
        for name, one in made.items())], "0.055 T"), output / "low_field.png")


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"  # a notebook hands on its own, which need not be there
    main()
