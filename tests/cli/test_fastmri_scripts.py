"""fastMRI's files through the two scripts, to results that its own evaluation reads and scores."""

import csv
import json
from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest

from flatjax import cli
from tests.support.fastmri_fixture import NAMES, write_folder

CONFIGS = Path(__file__).parents[2] / "configs"


def run(program, *options):
    cli.main([program, *options])


def by_fastmris_definition(target, found):
    """PSNR, SSIM and NMSE as `fastmri.evaluate` computes them, by scikit-image."""
    skimage = pytest.importorskip("skimage.metrics")
    side = target.shape[-1]

    def square(volume):
        top, left = ((n - side) // 2 for n in volume.shape[1:])
        return volume[:, top:top + side, left:left + side]

    target, found = square(target), square(found)
    peak = target.max()
    return (skimage.peak_signal_noise_ratio(target, found, data_range=peak),
            np.mean([skimage.structural_similarity(a, b, data_range=peak)
                     for a, b in zip(target, found, strict=True)]),
            np.linalg.norm(target - found) ** 2 / np.linalg.norm(target) ** 2)


@pytest.mark.parametrize("challenge", ["singlecoil", "multicoil"])
def test_fastmris_evaluation_scores_what_the_scripts_write(challenge, tmp_path):
    folder, workdir = tmp_path / "files", tmp_path / "run"
    write_folder(folder, challenge)
    run("train", f"--config={CONFIGS / f'fastmri_knee_{challenge}.py'}",
        f"--workdir={workdir}", f"--config.data.path={folder}",
        "--config.method.network.channels=2", "--config.method.network.pools=0",
        "--config.method.schedule.steps=2", "--config.train.steps=1",
        "--config.train.warmup_steps=0", "--config.train.accumulate=1",
        "--config.train.batch_size=4", "--config.evaluation.figures=0")
    run("evaluate", f"--workdir={workdir}")
    targets, results = folder / f"{challenge}_val", workdir / "eval" / "reconstructions"
    files = sorted(path.name for path in targets.glob("*.h5"))
    assert sorted(path.name for path in results.iterdir()) == files
    with (workdir / "eval" / "metrics.csv").open() as file:
        scores = {f"{Path(row['volume']).stem}.h5": [float(row[key]) for key in (
            "psnr", "ssim", "nmse")] for row in csv.DictReader(file)}
    for name in files:
        with h5py.File(targets / name) as target, h5py.File(results / name) as found:
            expected = by_fastmris_definition(target[NAMES[challenge]][()],
                                              found["reconstruction"][()])
        np.testing.assert_allclose(scores[name], expected, rtol=1e-4)
    if all(map(find_spec, ("torch", "fastmri", "runstats"))):
        from fastmri.evaluate import evaluate
        means = evaluate(Namespace(target_path=targets, predictions_path=results,
                                   acquisition=None, acceleration=None), NAMES[challenge]).means()
        metrics = json.loads((workdir / "eval" / "metrics.json").read_text())["method"]
        for name in ("psnr", "ssim", "nmse"):
            assert metrics[name]["mean"] == pytest.approx(np.squeeze(means[name.upper()]), rel=1e-4)
