"""Held-out k-space of a real multi-coil scan, predicted by what saw the rest of it.

    python benchmarks/real_scan.py SCAN.npy --output=runs/real_scan
    python benchmarks/real_scan.py SCAN.npy --output=runs/real_scan --adapt=5
    python benchmarks/real_scan.py FULL.npy --output=runs/brain --undersample=poisson,8,0.08

SCAN.npy holds undersampled Cartesian k-space, [coil, ky, kx] complex64, centered, zero where not
sampled, with a fully sampled box in its center. No full reference exists, so methods are judged
by measured points that they were not given: a tenth of all, drawn at random outside the box, which
coil maps are made from. CG-SENSE's regularization and iterations, and the sparsity weight of
compressed sensing, are tuned on a second tenth; then every method reconstructs from the other
nine. The model was trained on simulated coils and heads, has never seen a real scan, and is not
tuned. As a control, slices of its own validation volumes, simulated with known maps, go through
the same.

With --adapt the model is also fine-tuned for so many minutes on what it is given of the scan, see
docs/self_supervised.md, so the held-out tenth is not a part of that. A fully sampled scan is
undersampled with --undersample; its other samples are then scored, too, as "unsampled".

Prints two tables and writes real_scan.json and real_scan.{png,pdf}.
"""

import argparse
import itertools
import os
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.patches import Rectangle

from flatjax import config as configuration, load
from flatjax.data.acquisition import Acquisition, draw_mask
from flatjax.data.batches import measure_volume
from flatjax.evaluation import figures
from flatjax.files import make_folder, write_json
from flatjax.inference.adapt import adapt
from flatjax.methods import compressed_sensing
from flatjax.mri import Measurement, combine, expand, normal, zero_filled
from flatjax.mri.espirit import espirit
from flatjax.mri.host.sensitivities import from_calibration
from flatjax.mri.linalg import conjugate_gradient
from flatjax.mri.sampling import calibration_size, central, distance_from_center

LAMBDAS = (0.0, 0.001, 0.003, 0.01, 0.02, 0.05, 0.1, 0.3)  # A^H A is at most 1
ITERATIONS = (2, 3, 5, 8, 12, 20, 30, 50)
SPARSITIES = (0.0003, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03)
ACQUISITION = Acquisition("poisson", 8.0, 0.04, noise=0.01)  # of the control, as the scan's
RINGS = (0.0, 0.2, 0.4, 0.7, 1.5)  # distance from the center of k-space, 1 at an edge


def split(mask, box, rng):
    """The test tenth, the tuning tenth and the rest of the measured points, float32 masks."""
    outside = mask.copy()
    outside[box] = False
    tenth = round(mask.sum() / 10)
    drawn = rng.permutation(np.flatnonzero(outside))
    test, tuning = (np.zeros(mask.shape, np.float32) for _ in range(2))
    test.flat[drawn[:tenth]] = 1
    tuning.flat[drawn[tenth:2 * tenth]] = 1
    return test, tuning, mask - test - tuning


def error(predicted, kspace, points):
    """Relative l2 error over the points and all coils."""
    return float(np.linalg.norm(points * (predicted - kspace)) / np.linalg.norm(points * kspace))


def measurement(kspace, maps, points):
    return Measurement(jnp.asarray(points * kspace)[None], jnp.asarray(points)[None, None],
                       jnp.asarray(maps)[None])


@partial(jax.jit, static_argnames="iterations")
def cg_sense(measured, lams, iterations):
    """Minimizers of `||A x - y||^2 + lam ||x||^2` as k-space, one for each of `lams`."""
    _, mask, maps, _ = measured
    lams = lams[:, None, None]

    def regularized(image):
        return normal(image, mask, maps) + lams * image

    right = jnp.broadcast_to(zero_filled(measured), (len(lams), *maps.shape[-2:]))
    return expand(conjugate_gradient(regularized, right, jnp.zeros_like(right), iterations), maps)


def reconstructor(method):
    reconstruct = jax.jit(method.reconstruct)
    return lambda params, measured: reconstruct(params, jax.random.key(0), measured).kspace[0]


_SPARSE = reconstructor(compressed_sensing(steps=100))


def sparsely(measured, weight):
    return _SPARSE({"log_lam": jnp.log(weight)}, measured)


def tune(measured, score):
    """The settings of the methods that have some whose k-space has the best score."""
    table = {}
    for iterations in ITERATIONS:
        candidates = np.asarray(cg_sense(measured, jnp.asarray(LAMBDAS), iterations))
        table |= {(lam, iterations): score(one)
                  for lam, one in zip(LAMBDAS, candidates, strict=True)}
    return {"cg_sense": min(table, key=table.get),
            "sparsity": min(SPARSITIES, key=lambda one: score(sparsely(measured, one)))}


class Adapted:
    """A model as a function of measurements, fine-tuned on each before, or as it was last."""

    def __init__(self, trained, minutes):
        self.trained, self.minutes, self.params = trained, minutes, trained.params
        self.reconstruct = reconstructor(trained.method)

    def __call__(self, measured):
        """Its k-space `[coil, ky, kx]`."""
        self.params, errors = adapt(self.trained.method, self.trained.params, [
            jax.tree.map(lambda one: one[0], measured)], minutes=self.minutes)
        print(f"adapted: validation error {errors[0]:.4f} -> {min(errors):.4f} after "
              f"{len(errors) - 1} validations", flush=True)
        return self.last(measured)

    def last(self, measured):
        """The same without fine-tuning."""
        return self.reconstruct(self.params, measured)


def predictions(measured, models, settings):
    """k-space by every method."""
    lam, iterations = settings["cg_sense"]
    return {"zero-filled": expand(zero_filled(measured), measured.maps)[0],
            "CG-SENSE": cg_sense(measured, jnp.asarray([lam]), iterations)[0],
            "compressed sensing": sparsely(measured, settings["sparsity"]),
            **{name: model(measured) for name, model in models.items()}}


def one_draw(kspace, mask, box, maps, models, rng, full=None):
    """Errors and settings of every method for one draw of the held-out points."""
    test, tuning, rest = split(mask, box, rng)
    fewer, given = (measurement(kspace, maps, points) for points in (rest, rest + tuning))
    settings = tune(fewer, lambda one: error(one, kspace, tuning))
    distance = distance_from_center(mask.shape)
    rings = {f"{low:g}-{high:g}": test * ((distance >= low) & (distance < high))
             for low, high in itertools.pairwise(RINGS)}
    errors = {name: {"all": error(one, kspace, test)} | {
        ring: error(one, kspace, points) for ring, points in rings.items() if points.any()} | (
            {} if full is None else {"unsampled": error(one, full, ~mask)})
        for name, one in predictions(given, models, settings).items()}
    noise = noise_bound(kspace, mask) * np.sqrt(test.sum() * len(kspace))
    return errors, settings | {
        "test_points": int(test.sum()), "acceleration": mask.size / float((rest + tuning).sum()),
        "noise_over_test": float(noise / np.linalg.norm(test * kspace))}


def simulated_slices(trained):
    """The middle slice of each validation volume as measured: k-space, mask, box and maps."""
    for volume in configuration.make_dataset(trained).validation:
        slices = measure_volume(volume, ACQUISITION)
        kspace, mask, maps, _ = slices[len(slices) // 2].measurement
        present = np.any(kspace != 0, axis=(1, 2))
        yield kspace[present], mask[0] > 0, calibration_box(mask[0]), maps[present]


def calibration_box(mask):
    rows, columns = map(int, calibration_size(mask))
    return central(mask.shape[0], rows), central(mask.shape[1], columns)


def collect(draws):
    """`{method: {part of k-space: [error of each draw]}}`."""
    first, _ = draws[0]
    return {name: {part: [errors[name][part] for errors, _ in draws] for part in parts}
            for name, parts in first.items()}


def print_table(title, scores):
    parts = list(next(iter(scores.values())))
    print(f"\n| {title} | {' | '.join(parts)} |\n|{'---|' * (len(parts) + 1)}")
    for name, by_part in scores.items():
        cells = [f"{np.mean(one):.3f} ± {np.std(one):.3f}" if part == "all" else
                 f"{np.mean(one):.3f}" for part, one in by_part.items()]
        print(f"| {name} | {' | '.join(cells)} |")


def noise_bound(kspace, mask):
    """Root mean square of the outermost twentieth of the points: noise, and a little signal."""
    distance = np.where(mask, distance_from_center(mask.shape), -1)
    far = distance >= np.quantile(distance[mask], 0.95)
    return float(np.sqrt(np.mean(np.abs(kspace[:, far]) ** 2)))


@figures.styled
def draw(images, errors, acceleration):
    """The methods' images from all measured points in one gray window, and their centers."""
    height, width = next(iter(images.values())).shape
    ratio = height / width
    figure = figures.blank((figures.WIDE, figures.WIDE / len(images) * (ratio + 1) + 0.75))
    peak = max(np.quantile(image, 0.995) for image in images.values())
    look = {"cmap": "gray", "vmin": 0, "vmax": peak}
    top, left, side = (round(part * height) for part in (0.3, 0.22, 0.32))
    panels = figure.subplots(2, len(images), height_ratios=(ratio, 1)).T
    for (name, image), (above, below) in zip(images.items(), panels, strict=True):
        above.imshow(image, **look)
        above.add_patch(Rectangle((left, top), side, side, fill=False, color=figures.COLORS[0]))
        above.set_title(f"{name}\nheld-out error {errors[name]:.3f}")
        below.imshow(image[top:top + side, left:left + side], **look)
        for one in (above, below):
            one.set_axis_off()
    figure.suptitle(f"{height} x {width}, R = {acceleration:.1f}; below, the framed part")
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--model", default="multicoil", help="shipped name, or folder of a run")
    parser.add_argument("--output", required=True)
    parser.add_argument("--sensitivities", default="espirit",
                        choices=("espirit", "low_resolution"))
    parser.add_argument("--crop", type=float, default=0.8, help="of ESPIRiT's eigenvalue")
    parser.add_argument("--draws", type=int, default=5, help="of the held-out points")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adapt", type=float, default=0.0, help="minutes of fine-tuning")
    parser.add_argument("--undersample", help="a full scan: KIND,R,CENTER")
    options = parser.parse_args()
    output = make_folder(options.output)
    kspace, full = np.load(options.scan, allow_pickle=False).astype(np.complex64), None
    kspace = kspace.reshape(kspace.shape[-3:])
    if options.undersample:
        kind, acceleration, center = options.undersample.split(",")
        full = kspace
        kspace = full * draw_mask(Acquisition(kind, float(acceleration), float(center)),
                                  full.shape[1:], options.seed)
    mask = np.any(kspace != 0, axis=0)
    box = calibration_box(mask)
    rows, columns = (one.stop - one.start for one in box)
    start = time.perf_counter()
    if options.sensitivities == "espirit":
        maps = np.asarray(espirit(kspace, (rows, columns), crop=options.crop).maps)
    else:
        maps = from_calibration(kspace, columns)
    print(f"{kspace.shape} k-space, R = {mask.size / mask.sum():.2f}, maps from {rows} x {columns}"
          f" in {time.perf_counter() - start:.1f} s; noise at most {noise_bound(kspace, mask):.4f}")

    trained = load(options.model)
    models = {"FLAT": partial(reconstructor(trained.method), trained.params)}
    tuned = Adapted(trained, options.adapt)
    more = {"FLAT, adapted": tuned} if options.adapt else {}

    rng = np.random.default_rng(options.seed)
    draws = [one_draw(kspace, mask, box, maps, models | more, rng, full)
             for _ in range(options.draws)]
    settings = [one for _, one in draws]
    scores = collect(draws)
    print_table("held-out error, real scan", scores)
    floor = np.mean([one["noise_over_test"] for one in settings])
    print(f"\nmean ± std over {len(draws)} draws; noise alone would give at most {floor:.3f}\n"
          f"tuned, last draw: {settings[-1]}")
    control = collect([one_draw(*one, models, rng) for one in simulated_slices(trained.config)])
    print_table("held-out error, simulated", control)

    last = settings[-1]
    measured = measurement(kspace, maps, mask.astype(np.float32))
    complete = predictions(measured, models | dict.fromkeys(more, tuned.last), last)
    images = {name: np.asarray(combine(one[None], measured.maps)[0])
              for name, one in complete.items()}
    figure = draw(images, {name: np.mean(one["all"]) for name, one in scores.items()},
                  mask.size / mask.sum())
    figures.save(figure, output / "real_scan.png")
    write_json(output / "real_scan.json", {
        "errors": scores, "control": control, "settings": settings, "model": options.model,
        "noise_bound": noise_bound(kspace, mask), "seed": options.seed,
        "sensitivities": options.sensitivities,
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores"})


if __name__ == "__main__":
    os.environ["MPLBACKEND"] = "agg"  # a notebook hands on its own, which need not be there
    main()
