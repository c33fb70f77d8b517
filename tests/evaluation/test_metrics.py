import importlib.util
import math
import pathlib
import warnings

import numpy as np
import pytest

from flatjax.errors import InputError
from flatjax.evaluation import metrics
from flatjax.evaluation.statistics import paired_difference
from flatjax.mri import center_crop

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
_spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
make_golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_golden)

SCORES = (metrics.nmse, metrics.psnr, metrics.ssim)


def our_scores(name, peak=None):
    width = make_golden.VOLUMES[name][1]
    target, pred = (center_crop(v, (width, width)) for v in make_golden.volumes(name))
    scores = (
        metrics.nmse(prediction=pred, target=target),
        metrics.psnr(prediction=pred, target=target, data_range=peak),
    )
    return np.array([*scores, metrics.ssim(prediction=pred, target=target, data_range=peak)])


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.mark.parametrize("name", make_golden.VOLUMES)
def test_equals_fastmri_golden(name):
    golden = np.load(GOLDEN / "fastmri_metrics.npz")
    inputs = [volume.sum() for volume in make_golden.volumes(name)]
    np.testing.assert_allclose(inputs, golden[f"{name}_sum"], rtol=1e-12)
    np.testing.assert_allclose(our_scores(name), golden[name], rtol=1e-9)
    np.testing.assert_allclose(our_scores(name, 500.0), golden[f"{name}_peak"], rtol=1e-9)
    assert abs(golden[name] - golden[f"{name}_peak"])[1:].min() > 1e-3


@pytest.mark.parametrize("name", make_golden.VOLUMES)
@pytest.mark.parametrize("peak", [None, 123.0])
def test_equals_fastmri_live(name, peak):
    for module in ("torch", "fastmri", "runstats"):
        pytest.importorskip(module)
    expected = make_golden.fastmri_scores(name, peak)
    np.testing.assert_allclose(our_scores(name, peak), expected, rtol=1e-9)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 7, 7), (2, 19, 40)])
@pytest.mark.parametrize("unit", [1.0, 3e-6, 4e4])
def test_equals_scikit_image(shape, unit):
    skimage = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    target = unit * rng.random(shape)
    pred = np.abs(target + 0.2 * unit * rng.standard_normal(shape))
    for peak in (None, 2.5 * unit):
        data_range = target.max() if peak is None else peak
        slices = [
            skimage.structural_similarity(x, y, data_range=data_range)
            for x, y in zip(target, pred, strict=True)
        ]
        assert metrics.ssim(prediction=pred, target=target, data_range=peak) == pytest.approx(
            np.mean(slices), abs=1e-6
        )
        expected = skimage.peak_signal_noise_ratio(target, pred, data_range=data_range)
        assert metrics.psnr(prediction=pred, target=target, data_range=peak) == pytest.approx(
            expected, abs=1e-6
        )


def test_float32_input_is_summed_in_float64():
    target, pred = (v.astype(np.float32) for v in make_golden.volumes("even"))
    for score in SCORES:
        exact = score(prediction=pred.astype(np.float64), target=target.astype(np.float64))
        assert isinstance(score(prediction=pred, target=target), float)
        assert score(prediction=pred, target=target) == exact
    large = np.full((4, 300, 300), 2.0**12, np.float32)
    off = large.copy()
    off[0, 0, 0] += 1
    assert metrics.nmse(prediction=off, target=large) == pytest.approx(
        1 / (2**24 * large.size), rel=1e-12
    )


def test_slices_without_error_do_not_spoil_a_difference():
    a, b = np.array([np.inf, 30.0, 31.0, np.inf]), np.array([np.inf, 29.0, 29.0, 28.0])
    found = paired_difference(a, b)
    assert found.mean == pytest.approx(1) and 0 <= found.low < found.high <= 2
    assert np.isnan(paired_difference(a[3:], b[3:]).mean)


def test_values_by_hand():
    target = np.zeros((2, 8, 8))
    target[0, 0, 0], target[1, 3, 3] = 10.0, 5.0
    pred = target.copy()
    pred[1, 3, 3] = 3.0
    assert metrics.nmse(prediction=pred, target=target) == pytest.approx(4 / 125)
    assert metrics.psnr(prediction=pred, target=target) == pytest.approx(
        10 * math.log10(100 / (4 / 128))
    )
    assert metrics.psnr(prediction=pred, target=target, data_range=20) == pytest.approx(
        10 * math.log10(400 / (4 / 128))
    )
    # Constant slices: no variance, so SSIM is its luminance term with the volume's peak of 4.
    flat, half = np.full((2, 9, 9), 4.0), np.full((2, 9, 9), 2.0)
    half[1] = 4.0
    c1 = (0.01 * 4) ** 2
    assert metrics.ssim(prediction=half, target=flat) == pytest.approx(
        ((16 + c1) / (20 + c1) + 1) / 2
    )


def test_scores_are_per_volume_not_means_over_slices():
    target, pred = np.array(make_golden.volumes("even")) * [[[[1]], [[0.5]], [[0.2]], [[0.1]]]]
    pred[0] = (target[0] + pred[0]) / 2
    slices = [(t[None], p[None]) for t, p in zip(target, pred, strict=True)]
    for score in SCORES:
        per_slice = np.mean([score(prediction=p, target=t) for t, p in slices])
        assert abs(score(prediction=pred, target=target) / per_slice - 1) > 0.02
    stacked = np.mean(
        [metrics.ssim(prediction=p, target=t, data_range=target.max()) for t, p in slices]
    )
    assert metrics.ssim(prediction=pred, target=target) == pytest.approx(stacked, rel=1e-12)


def test_ssim_windows_lie_in_the_slice_plane():
    target, pred = make_golden.volumes("even")
    whole = metrics.ssim(prediction=pred, target=target)
    # Rows in another order are other images, slices in another order the same volume.
    assert metrics.ssim(
        prediction=pred[[2, 0, 3, 1]], target=target[[2, 0, 3, 1]]
    ) == pytest.approx(whole, rel=1e-12)
    mixed = np.random.default_rng(0).permutation(40)
    assert abs(metrics.ssim(prediction=pred[:, mixed], target=target[:, mixed]) - whole) > 1e-3


@pytest.mark.parametrize("score", SCORES)
def test_unit_does_not_matter(score):
    target, pred = make_golden.volumes("odd")
    for unit in (1e-9, 1e9):
        assert score(prediction=unit * pred, target=unit * target) == pytest.approx(
            score(prediction=pred, target=target), rel=1e-9
        )


def test_perfect_predictions():
    for volume in (make_golden.volumes("odd")[0], np.zeros((2, 8, 8)), np.full((1, 8, 8), 3.0)):
        assert metrics.nmse(prediction=volume, target=volume) == 0.0
        assert metrics.psnr(prediction=volume, target=volume) == math.inf
        assert metrics.ssim(prediction=volume, target=volume) == pytest.approx(1.0, abs=1e-12)


def test_zero_targets():
    zero, pred = np.zeros((2, 8, 8)), np.zeros((2, 8, 8))
    pred[1] = 1.0
    assert metrics.nmse(prediction=pred, target=zero) == math.inf
    assert metrics.psnr(prediction=pred, target=zero) == -math.inf
    assert metrics.ssim(prediction=pred, target=zero) == 0.5
    assert metrics.psnr(prediction=pred, target=zero, data_range=2.0) == pytest.approx(
        10 * math.log10(4 / 0.5)
    )
    # One empty slice in a volume that is not empty is an ordinary case.
    volume = np.stack([np.zeros((16, 16)), np.ones((16, 16))])
    scores = [score(prediction=volume + 0.1, target=volume) for score in SCORES]
    assert scores[0] == pytest.approx(0.02)
    assert scores[1] == pytest.approx(20.0)
    assert 0 < scores[2] < 1
    assert metrics.ssim(prediction=0 * volume, target=volume) == pytest.approx(
        (1 + 1e-4 / (1 + 1e-4)) / 2
    )


def test_diverged_predictions_are_not_hidden():
    target, pred = make_golden.volumes("odd")
    pred[0, 20, 20] = np.nan
    assert all(math.isnan(score(prediction=pred, target=target)) for score in SCORES)
    pred[0, 20, 20] = np.inf
    assert metrics.nmse(prediction=pred, target=target) == math.inf
    assert metrics.psnr(prediction=pred, target=target) == -math.inf


@pytest.mark.parametrize("score", SCORES)
def test_bad_volumes_are_refused(score):
    good = np.ones((2, 8, 9))
    with pytest.raises(InputError, match=r"has shape \(2, 9, 8\) and target \(2, 8, 9\), expected"):
        score(prediction=np.ones((2, 9, 8)), target=good)
    # numpy would broadcast these two without a word.
    with pytest.raises(ValueError, match=r"\(1, 8, 9\) and target \(2, 8, 9\), .*center_crop"):
        score(prediction=good[:1], target=good)
    with pytest.raises(InputError, match=r"\(8, 9\) and target \(8, 9\), .*slice as x\[None\]"):
        score(prediction=good[0], target=good[0])
    with pytest.raises(InputError, match=r"\(0, 8, 9\) and target \(0, 8, 9\), .*out a zero"):
        score(prediction=good[:0], target=good[:0])
    with pytest.raises(
        InputError, match="prediction is complex64 and .*, expected real magnitudes"
    ):
        score(prediction=good.astype(np.complex64), target=good)


@pytest.mark.parametrize("score", [metrics.psnr, metrics.ssim])
@pytest.mark.parametrize("peak", [-1.0, math.nan, math.inf])
def test_bad_data_range_is_refused(score, peak):
    with pytest.raises(InputError, match=f"the data range is {peak}, expected .* pass data_range"):
        score(prediction=np.ones((1, 8, 8)), target=np.ones((1, 8, 8)), data_range=peak)


def test_ssim_refuses_slices_below_its_window():
    with pytest.raises(InputError, match=r"\(9, 8, 6\), expected slices of at least 7 x 7; the"):
        metrics.ssim(prediction=np.ones((9, 8, 6)), target=np.ones((9, 8, 6)))


def test_the_object_is_a_disc_with_its_hole_and_a_margin_and_no_speck():
    y, x = np.mgrid[:64, :80]
    radius = np.hypot(y - 30, x - 40)
    disc = radius < 20
    target = np.stack([np.where(disc & (radius > 6), 100.0, 0.0), np.zeros((64, 80))])
    noisy = np.hypot(
        target + np.random.default_rng(0).normal(size=target.shape),
        np.random.default_rng(1).normal(size=target.shape),
    )
    mask = metrics.object_mask(noisy)
    assert mask.dtype == bool and mask[0][disc].all() and not mask[1].any()
    assert not mask[0][radius > 20 + 3 * math.sqrt(2) + 1].any()
    np.testing.assert_array_equal(metrics.object_mask(1e-9 * noisy), mask)
    assert metrics.object_mask(0 * target).all()


def test_inside_a_mask_scores_are_those_of_its_pixels():
    target, pred = make_golden.volumes("even")
    mask = np.zeros(target.shape, bool)
    mask[:, 8:30, 5:25] = True
    inside = {"prediction": pred, "target": target, "mask": mask}
    error = np.mean((target - pred)[mask] ** 2)
    assert metrics.psnr(**inside) == pytest.approx(10 * math.log10(target.max() ** 2 / error))
    # Windows around a pixel of the mask are those of the box that is 3 pixels larger.
    box = {"prediction": pred[:, 5:33, 2:28], "target": target[:, 5:33, 2:28]}
    assert metrics.ssim(**inside) == pytest.approx(metrics.ssim(**box, data_range=target.max()))
    pred = np.where(mask, pred, 0)
    assert metrics.psnr(**inside | {"prediction": pred}) == metrics.psnr(**inside)
    whole = {"prediction": pred, "target": target}
    for score in (metrics.psnr, metrics.ssim):
        assert score(**whole, mask=np.ones_like(mask)) == pytest.approx(score(**whole), rel=1e-12)


def test_psnr_per_step():
    target, pred = make_golden.volumes("tall")
    states = np.stack([pred, (pred + target) / 2, target, 0 * target])
    curve = metrics.psnr_per_step(trajectory=states, target=target)
    assert curve.shape == (4,) and curve.dtype == np.float64
    assert curve[0] == metrics.psnr(prediction=pred, target=target)
    assert curve[1] == pytest.approx(curve[0] + 20 * math.log10(2))
    assert curve[2] == math.inf
    assert curve[3] == metrics.psnr(prediction=0 * target, target=target)


@pytest.mark.parametrize(
    "curve, expected",
    [
        ([20, 22, 21.5, 25, 22, 22], (2, 3.5)),
        ([20, 19.999], (1, 0.001)),
        ([1, 2, 2, 3], (0, 0.0)),
        ([5], (0, 0.0)),
        ([5, 4, math.nan, math.nan, 3, 2], (3, math.inf)),
        ([math.inf, math.inf, 3], (1, math.inf)),
        ([-math.inf, -math.inf, 3], (0, 0.0)),
    ],
)
def test_psnr_drops(curve, expected):
    count, total = metrics.psnr_drops(np.array(curve))
    assert (type(count), type(total)) == (int, float)
    assert (count, total) == pytest.approx(expected)


def test_straightness():
    line = np.linspace(0, 1, 5)[:, None, None] * np.array([3 + 4j, -2j])
    corner = np.array([[0, 0], [3, 0], [3, 4j], [3, 4j], [3, 4j]])[:, None]
    back = np.array([[0, 0], [1, 1j], [0, 0], [1, 1j], [0, 0]])[:, None]
    still = np.ones((5, 1, 2))
    states = np.concatenate([line, corner, back, still], axis=1).astype(np.complex64)
    result = metrics.straightness(states)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result[-1], [1, 5 / 7, 0, 1], atol=1e-6)
    np.testing.assert_allclose(result[:, 1], [1, 1, 5 / 7, 5 / 7, 5 / 7], atol=1e-6)
    np.testing.assert_allclose(result[:, 2], [1, 1, 0, 1 / 3, 0], atol=1e-6)
    assert (result <= 1).all()
    np.testing.assert_array_equal(metrics.straightness(states[:1]), np.ones((1, 4)))


def test_straightness_sums_over_all_axes_but_steps_and_batch():
    rng = np.random.default_rng(1)
    states = rng.standard_normal((6, 3, 2, 4, 5)) + 1j * rng.standard_normal((6, 3, 2, 4, 5))
    result = metrics.straightness(states)[-1]
    moves = np.diff(states, axis=0).reshape(5, 3, -1)
    expected = abs(moves.sum(0)) ** 2
    expected = np.sqrt(expected.sum(-1)) / np.linalg.norm(moves, axis=-1).sum(0)
    np.testing.assert_allclose(result, expected, rtol=1e-12)


def test_path_distance():
    rng = np.random.default_rng(2)
    ideal = rng.standard_normal((3, 2, 4, 4)) + 1j * rng.standard_normal((3, 2, 4, 4))
    scale = np.array([[1, 1.5], [2, 1 + 1j], [0, 1]])
    result = metrics.path_distance(ideal * scale[:, :, None, None], ideal)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, [[0, 0.5], [1, 1], [1, 0]], atol=1e-12)
    at_zero = metrics.path_distance(np.array([[[0j], [1j]]]), np.zeros((1, 2, 1)))
    np.testing.assert_array_equal(at_zero, [[0, math.inf]])


def test_path_distance_refuses_other_shapes():
    with pytest.raises(InputError, match=r"shape \(3, 2, 4\) and the ideal path \(3, 1, 4\), exp"):
        metrics.path_distance(np.ones((3, 2, 4)), np.ones((3, 1, 4)))
