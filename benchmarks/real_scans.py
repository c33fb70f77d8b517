"""Real scans, fully sampled, undersampled afterwards: models beside methods without training.

    pip install sigpy
    python benchmarks/real_scans.py FOLDER --model=multicoil --output=docs/real_scans

FOLDER holds k-space, centered and fully sampled: `.npy` of [slice, coil, ky, kx], or `.npz` of
several such arrays. Every slice is undersampled by five kinds of masks, several draws of each.
Sensitivity maps come from the sampled center alone (ESPIRiT) and are the same for all methods. Like
those of `flatjax reconstruct`, they are not cropped, unless --crop gives an eigenvalue.
sigpy's SENSE, L1-wavelet and total-variation reconstructions have their weights tuned on simulated
slices (the validation patient of the data set `heads`), for each kind of mask. Models run as they
are. Nothing is tuned on the scans.

PSNR and SSIM are taken inside the object, against two references: the full scan combined by maps
of its own center (`sense`), and its root sum of squares (`rss`), which noise makes too bright
where the object is dark. Prints `real_scans.md` and writes it with `real_scans.csv`, the weights
that were chosen and a figure for each scan.
"""

import argparse
import csv
import itertools
import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import sigpy
from common import environment
from sigpy.mri.app import L1WaveletRecon, SenseRecon, TotalVariationRecon
from tqdm import tqdm

from flatjax import config, load
from flatjax.data.prepare import prepare
from flatjax.errors import InputError
from flatjax.evaluation import figures
from flatjax.evaluation.metrics import object_mask, psnr, ssim
from flatjax.files import make_folder, write_json, write_text
from flatjax.mri.espirit import espirit
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.sensitivities import from_box
from flatjax.mri.host.simulate import complex_noise, host_ifft2c
from flatjax.mri.sampling import calibration_size

LINES = 24  # of the center of equispaced masks
MASKS = {  # name: kind, R, and the center as a share or a number of lines
    "random 4": ("random", 4, 0.08), "equispaced 4": ("equispaced", 4, LINES),
    "equispaced 5": ("equispaced", 5, 0.08), "equispaced 6": ("equispaced", 6, LINES),
    "poisson 8": ("poisson", 8, 0.08)}
CLASSICAL = {  # name: sigpy's app and the weights to choose from, for images with maximum 1
    "SENSE": (SenseRecon, (0.001, 0.003, 0.01, 0.03, 0.1)),
    "L1-wavelet": (L1WaveletRecon, (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008)),
    "TV": (TotalVariationRecon, (0.0003, 0.001, 0.003, 0.01, 0.03))}
BOX = 48  # lines of the full scan's own maps
TUNING_NOISE = (0.003, 0.014)
SHOWN = "poisson 8"


class Case(NamedTuple):
    """A slice to reconstruct: `[coil, ky, kx]` complex64, references `[y, x]`, object `[y, x]`."""

    kspace: np.ndarray
    references: dict[str, np.ndarray]
    inside: np.ndarray


def draw_mask(name, shape, seed):
    kind, acceleration, center = MASKS[name]
    share = center / shape[1] if center >= 1 else center
    return make_mask(kind, shape, acceleration, share, seed)


def real_case(kspace):
    images = host_ifft2c(kspace)
    rss = np.sqrt(np.sum(np.abs(images) ** 2, axis=0))
    references = {"sense": rss, "rss": rss}
    if len(kspace) > 1:
        box = tuple(min(BOX, n) for n in kspace.shape[1:])
        maps = np.asarray(espirit(kspace, box, crop=0).maps)
        references["sense"] = np.abs(np.sum(np.conj(maps) * images, axis=0))
    return Case(kspace, references, object_mask(references["sense"][None])[0])


def simulated_cases():
    """Slices of the validation patient, all contrasts, at two levels of noise."""
    volumes = config.make_dataset(load("multicoil").config).validation
    rng = np.random.default_rng(0)
    for volume, noise in itertools.product(volumes[::2], TUNING_NOISE):
        sample = volume.load()[1]
        kspace = sample.kspace[np.any(sample.kspace != 0, axis=(1, 2))]
        noisy = kspace + complex_noise(rng, kspace.shape, noise)
        yield Case(noisy.astype(np.complex64), {"sense": sample.target, "rss": sample.target},
                   object_mask(sample.target[None])[0])


def read_scans(folder):
    """`{name: [slice, coil, ky, kx]}` of a folder's arrays."""
    scans = {}
    for file in sorted(Path(folder).iterdir()):
        if file.suffix == ".npy":
            scans[file.stem] = np.load(file, allow_pickle=False)
        elif file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as arrays:
                scans |= {f"{file.stem} {name}": arrays[name] for name in arrays.files}
    for name, scan in scans.items():
        if scan.ndim != 4 or not np.iscomplexobj(scan):
            raise InputError(f"{folder}/{name} has shape {scan.shape} and {scan.dtype}, expected "
                             "complex [slice, coil, ky, kx]")
    return scans


class Trained:
    """A trained model as it is."""

    def __init__(self, name):
        self.trained = load(name)
        self.jitted = jax.jit(lambda params, measured: self.trained.method.reconstruct(
            params, jax.random.key(0), measured).image)

    def reconstruct(self, measured, weight=None):
        """Magnitude `[y, x]` in the unit of the measurement."""
        batch = jax.tree.map(lambda array: array[None], measured)
        return np.asarray(self.jitted(self.trained.params, batch))[0]


class Classical:
    """One of sigpy's reconstructions, on the scale of a zero-filled image with maximum 1."""

    def __init__(self, name):
        self.app, self.weights = CLASSICAL[name]

    def reconstruct(self, measured, weight):
        """Magnitude `[y, x]` in the unit of the measurement."""
        scale = zero_filled(measured).max()
        image = self.app(measured.kspace / scale, measured.maps, weight, show_pbar=False).run()
        return np.abs(image) * scale


def zero_filled(measured, weight=None):
    return np.abs(np.sum(np.conj(measured.maps) * host_ifft2c(measured.kspace), axis=0))


def scores(image, case):
    """`{reference: (PSNR, SSIM)}` inside the object."""
    mask = case.inside[None]
    return {name: tuple(float(measure(prediction=image[None], target=target[None], mask=mask))
                        for measure in (psnr, ssim))
            for name, target in case.references.items()}


def prepared(case, mask_name, seed, crop):
    """The measurement and its scale, or None where its center is too small to make maps of."""
    kspace = case.kspace * draw_mask(mask_name, case.kspace.shape[1:], seed)
    try:
        measured, scale = prepare(kspace)
        if crop == 0 or len(kspace) == 1:
            return measured, scale
        box = calibration_size(measured.mask[0])
        return prepare(kspace, maps=from_box(kspace, *map(int, box), crop))
    except InputError:
        return None


def tune(methods, crop):
    """`{method: {mask: weight}}`, by the mean PSNR over the simulated slices."""
    cases = list(simulated_cases())
    chosen = {name: dict.fromkeys(MASKS) for name in methods}
    tuned = {name: method for name, method in methods.items() if name in CLASSICAL}
    for mask, (name, method) in tqdm(list(itertools.product(MASKS, tuned.items())), "tune"):
        def mean_psnr(weight, mask=mask, method=method):
            found = []
            for seed, case in enumerate(cases):
                measured, scale = prepared(case, mask, seed, crop)
                found.append(scores(method.reconstruct(measured, weight) * scale, case)["sense"][0])
            return float(np.mean(found))

        chosen[name][mask] = max(method.weights, key=mean_psnr)
    return chosen


def run(scans, methods, chosen, draws, crop):
    """Rows of scores, and the images of each scan's first slice and draw of the mask shown."""
    rows, shown = [], {}
    for scan, kspace in tqdm(scans.items(), "scans"):
        cases = [real_case(one.astype(np.complex64)) for one in kspace]
        for mask, seed, (index, case) in itertools.product(MASKS, range(draws), enumerate(cases)):
            ready = prepared(case, mask, seed, crop)
            if ready is None:
                continue
            measured, scale = ready
            images = {"zero-filled": zero_filled(measured) * scale} | {
                name: method.reconstruct(measured, chosen[name][mask]) * scale
                for name, method in methods.items()}
            for name, image in images.items():
                rows += [{"scan": scan, "mask": mask, "seed": seed, "slice": index, "method": name,
                          "reference": reference, "psnr": decibel, "ssim": similarity}
                         for reference, (decibel, similarity) in scores(image, case).items()]
            if mask == SHOWN and seed == index == 0:
                shown[scan] = case, measured.mask[0], images
    return rows, shown


def summarize(rows):
    """One row for each scan, mask, method and reference: means over slices and draws."""
    groups = {}
    for row in rows:
        key = tuple((name, row[name]) for name in ("scan", "mask", "method", "reference"))
        groups.setdefault(key, []).append((row["psnr"], row["ssim"]))
    for key, found in groups.items():
        decibel, similarity = np.mean(found, axis=0)
        yield {**dict(key), "psnr": round(decibel, 2), "ssim": round(similarity, 4),
               "count": len(found)}


def table(means, reference):
    """PSNR / SSIM by scan, mask and method, as Markdown."""
    cells = {}
    for row in means:
        if row["reference"] == reference:
            cells.setdefault((row["scan"], row["mask"]), {})[row["method"]] = (
                f"{row['psnr']:.2f} / {row['ssim']:.3f}")
    names = next(iter(cells.values()))
    lines = [f"| scan | mask | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    return "\n".join(lines + [f"| {scan} | {mask} | {' | '.join(found.values())} |"
                              for (scan, mask), found in cells.items()])


@figures.styled
def draw(case, mask, images):
    """Reference and images in one window, below each its error inside the object."""
    target = case.references["sense"]
    figure = figures.blank((figures.WIDE, figures.height_of(1 + len(images), target)))
    figures.panels(figure, images, target, [name for name in images if name != "zero-filled"],
                   inside=case.inside)
    figure.suptitle(f"sampled with R = {mask.size / mask.sum():.1f}; scores and errors in the head")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", required=True,
                        help="shipped name or packed folder; may be repeated")
    parser.add_argument("--output", required=True)
    parser.add_argument("--draws", type=int, default=3, help="of each kind of mask")
    parser.add_argument("--crop", type=float, default=0.0, help="of ESPIRiT's eigenvalue")
    options = parser.parse_args()
    scans = read_scans(options.folder)
    output = make_folder(options.output)
    methods = {name: Classical(name) for name in CLASSICAL} | {
        Path(name).name: Trained(name) for name in options.model}
    chosen = tune(methods, options.crop)
    rows, shown = run(scans, methods, chosen, options.draws, options.crop)
    means = list(summarize(rows))
    titles = {"sense": "Against the full scan combined by its own maps", "rss":
              "Against its root sum of squares"}
    text = "\n\n".join(f"{title}, PSNR (dB) / SSIM in the object:\n\n{table(means, reference)}"
                       for reference, title in titles.items())
    print(text)
    write_text(output / "real_scans.md", text + "\n")
    with (output / "real_scans.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, means[0])
        writer.writeheader()
        writer.writerows(means)
    write_json(output / "weights.json", {
        "weights": chosen, "draws": options.draws, "crop": options.crop,
        "sigpy": sigpy.__version__, **environment()})
    for scan, parts in shown.items():
        figures.save(draw(*parts), output / f"{scan.replace(' ', '_')}.png")


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"  # a notebook hands on its own, which need not be there
    main()
