"""The trajectory of an image: measures against their definitions, figure and animation."""

import csv

import jax
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from flatjax import mri
from flatjax.data import Acquisition
from flatjax.data.batches import measure_volume, stack
from flatjax.evaluation import animation, figures, metrics
from flatjax.evaluation.evaluate import _draw
from flatjax.evaluation.scoring import ALONG, measures_of, score_volume, scorer
from flatjax.methods import Method, Reconstruction
from tests.support import toy

TIMES = np.array([1.0, 0.6, 0.3, 0.0], np.float32)


@pytest.fixture(scope="module")
def volumes():
    return [(v.name, measure_volume(v, Acquisition())) for v in toy.make().test["main"]]


def score(volumes, states_of, times=TIMES):
    """A method that goes through `states_of(batch)`, `[4, batch, coil, ky, kx]`."""
    batches = stack([one for _, slices in volumes for one in slices])
    states = iter(np.split(states_of(batches), len(volumes), axis=1))
    out = []
    for name, slices in volumes:
        own = next(states)

        def reconstruct(params, rng, measurement, *, trajectory=False, own=own):
            return Reconstruction(mri.combine(own[-1], measurement.maps), own[-1], own, times, 3,
                                  steps=np.arange(4))

        method = Method(None, None, reconstruct)
        out.append(score_volume(scorer(method, "sense"), {}, jax.random.key(0), name, slices, 3))
    return out


def measured(scored):
    return [measures_of(volume, along=True) for volume in scored]


def along_of(scored):
    """The measures of the states of all volumes, `[states, slices]` by name."""
    found = measured(scored)
    return {key: np.concatenate([one.states[key] for one in found], axis=1) for key in ALONG}


def ideal(batch):
    return np.stack([(1 - t) * batch.kspace + t * batch.measurement.kspace for t in TIMES])


def test_the_ideal_path_is_straight_and_keeps_the_measured_data(volumes):
    scored = score(volumes, ideal)
    along = along_of(scored)
    assert all(values.shape == (4, 6) for values in along.values())
    np.testing.assert_allclose(along["path_distance"], 0, atol=1e-5)
    np.testing.assert_allclose(along["straightness"], 1, atol=1e-5)
    np.testing.assert_allclose(along["residual"], 0, atol=1e-5)
    assert (np.diff(along["psnr"], axis=0) > 0).all() and (along["ssim"][-1] > 0.999).all()


@pytest.fixture(scope="module")
def bent(volumes):
    """Through a state of half the size and off the measured data."""
    def states(batch):
        out = ideal(batch)
        out[1] = 0.5 * batch.kspace
        out[3] = out[2]
        return out

    return score(volumes, states, times=None)


def test_measures_are_those_of_their_definitions(volumes, bent):
    along = along_of(bent)
    np.testing.assert_allclose(bent[0].times, [1, 2 / 3, 1 / 3, 0], rtol=1e-6)
    batch = stack(volumes[1][1])
    peak = batch.target.max()
    half = np.abs(mri.combine(0.5 * batch.kspace, batch.measurement.maps))
    for index in range(3):
        pair = {"prediction": np.asarray(half)[index][None], "target": batch.target[index][None]}
        assert along["psnr"][1, 3 + index] == pytest.approx(
            metrics.psnr(**pair, data_range=float(peak)), abs=1e-3)
        assert along["ssim"][1, 3 + index] == pytest.approx(
            metrics.ssim(**pair, data_range=float(peak)), abs=1e-4)
    np.testing.assert_allclose(along["residual"][1], 0.5, rtol=1e-5)
    t = 2 / 3
    expected = (1 - t) * batch.kspace + t * batch.measurement.kspace
    apart = (np.linalg.norm((0.5 * batch.kspace - expected).reshape(3, -1), axis=1)
             / np.linalg.norm(expected.reshape(3, -1), axis=1))
    np.testing.assert_allclose(along["path_distance"][1, 3:], apart, rtol=1e-4)
    np.testing.assert_array_equal(along["straightness"][3], along["straightness"][2])
    assert (along["straightness"][2] < 0.99).all()


def test_the_table_has_a_row_for_every_image_and_state(bent, tmp_path):
    assert len(_draw(tmp_path, measured(bent), [one.at(1) for one in bent], "bent", 6)) == 2
    rows = list(csv.DictReader((tmp_path / "trajectory.csv").open()))
    assert len(rows) == 24 and [row["state"] for row in rows[:5]] == ["0", "1", "2", "3", "0"]
    assert [row["image"] for row in rows[::4]] == ["a 0", "a 1", "a 2", "b 0", "b 1", "b 2"]
    times = np.tile(bent[0].times[:, None], 6)
    for key, expected in {**along_of(bent), "times": times}.items():
        values = np.array([float(row[key]) for row in rows]).reshape(6, 4).T
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-12)


def test_the_figure_shows_means_and_bands_of_every_method(volumes, bent):
    found = {"ideal": score(volumes, ideal), "bent": bent}
    figure = figures.trajectories({name: measured(one) for name, one in found.items()},
                                  {"ideal": "flat", "bent": "varnet"}, 9)
    *shown, key = figure.axes
    assert len(shown) == 5
    for axes in shown:
        assert len(axes.lines) == 2 and len(axes.collections) == 2
    for line, one in zip(shown[0].lines, found.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), along_of(one)["psnr"].mean(axis=1))
    assert key.get_legend().get_title().get_text().startswith("mean over 6 of 9 slices")
    low, high = shown[4].get_ylim()
    assert low > 1e-4 and high < 10, "a residual of zero at the start leaves room for the others"
    alone = figures.trajectories({"bent": measured(bent)}, {"bent": "flat"}, 6)
    assert len(alone.axes[0].lines) == 7, "and every image of a single method"
    plt.close("all")


def test_a_name_is_drawn_as_it_is_beside_powers_of_ten(bent, tmp_path, monkeypatch):
    name = "$x_{$ \udcff"  # no formula, and a byte that is no UTF-8
    figure = figures.trajectories({name: measured(bent)}, {name: "flat"}, 6)
    figures.save(figure, tmp_path / "drawn.png")
    (legend,) = figure.axes[5].get_legend().get_texts()
    assert legend.get_text() == "$x {$ \\udcff" and not legend.get_parse_math()
    power = figure.axes[2].get_yticklabels()[0]
    assert "10^" in power.get_text() and power.get_parse_math()
    monkeypatch.setattr(animation, "_FRAMES", 1)
    animation.animate(tmp_path / "forming.gif", {name: bent[0].at(0)})
    assert {path.name for path in tmp_path.iterdir()} == {"drawn.pdf", "drawn.png", "forming.gif"}


def test_the_animation_starts_at_the_start_and_holds_the_result(bent, tmp_path, monkeypatch):
    dark, bright = np.zeros((2, 12, 10)), np.ones((2, 12, 10))
    dark[1], bright[0] = 1, 0.5
    late = bent[1].at(2)._replace(times=np.array([1.0, 0.0]), states=dark[:, None],
                                  target=bright[1:])
    early = late._replace(times=np.array([1.0, 0.5]), states=bright[:, None])
    monkeypatch.setattr(animation, "_FRAMES", 8)
    monkeypatch.setattr(animation, "_HELD", 2)
    animation.animate(tmp_path / "forming.gif", {"late": late, "early": early})
    with Image.open(tmp_path / "forming.gif") as movie:
        columns = []
        for frame in range(movie.n_frames):
            movie.seek(frame)
            row = np.asarray(movie.convert("L"))[movie.height // 2 + 10]
            columns.append([row[movie.width * part // 6] for part in (1, 3, 5)])
    first, last = columns[0], columns[-1]
    assert first[0] < 30 and 100 < first[1] < 160 and first[2] > 220
    assert min(last) > 220
    assert [c[0] > 220 for c in columns].index(True) > [c[1] > 220 for c in columns].index(True)
    assert {path.name for path in tmp_path.iterdir()} == {"forming.gif"}


def test_a_slice_alone_is_that_of_its_volume(bent):
    one = bent[1].at(2)
    assert one.name == "b, slice 3 of 3" and one.std is None
    for key in ("target", "zero_filled", "reconstruction", "residual"):
        np.testing.assert_array_equal(getattr(one, key), getattr(bent[1], key)[2:])
    for key in ("states", "straightness", "path_distance", "residuals"):
        np.testing.assert_array_equal(getattr(one, key), getattr(bent[1], key)[:, 2:])
    assert not np.shares_memory(one.states, bent[1].states)
