import importlib.util
import math
import pathlib
import time
import warnings

import numpy as np
import pytest

from flatjax.errors import InputError
from flatjax.mri.host import masks, patterns
from flatjax.mri.host.masks import make_mask, seed_from_name
from flatjax.mri.sampling import achieved_acceleration, pattern, valid_columns

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
_spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make_golden.py")
make_golden = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(make_golden)

EXACT = ("gaussian1d", "gaussian2d", "poisson")
SETTINGS = [(4, 0.08), (8, 0.04), (12, 0.02)]


def center_of(n, length):
    """The `length` middle indices; an odd one out lies below n // 2 for even n, above for odd n."""
    start = n // 2 - (length - n % 2) // 2
    return slice(start, start + length)


@pytest.mark.parametrize("kind", patterns.FASTMRI_KINDS)
@pytest.mark.parametrize("width", make_golden.MASK_WIDTHS)
def test_equals_fastmri_golden(kind, width):
    golden = np.load(GOLDEN / "fastmri_masks.npz")[f"{kind}_{width}"]
    ours = np.array(
        [
            [make_mask(kind, (5, width), *setting, seed)[0] for seed in make_golden.MASK_SEEDS]
            for setting in make_golden.MASK_SETTINGS
        ]
    )
    np.testing.assert_array_equal(ours, golden)


@pytest.mark.parametrize("kind", patterns.FASTMRI_KINDS)
def test_equals_fastmri_live(kind):
    pytest.importorskip("torch")
    pytest.importorskip("fastmri")
    settings = [(2, 0.1), (4, 0.0), (5, 0.033), (6, 0.05), (16, 0.01)]
    if kind in ("random", "equispaced_fraction"):
        settings.append((4.5, 0.06))
    for width in (64, 99, 218, 332, 640):
        for setting in settings:
            for seed in range(40):
                expected = make_golden.fastmri_mask(kind, width, *setting, seed)
                ours = make_mask(kind, (1, width), *setting, seed)[0]
                np.testing.assert_array_equal(ours, expected, f"{width} {setting} {seed}")


@pytest.mark.parametrize("kind", patterns.KINDS)
@pytest.mark.parametrize("shape", [(31, 48), (40, 33)])
def test_shape_dtype_and_values(kind, shape):
    mask = make_mask(kind, shape, 4, 0.08, 0)
    assert mask.shape == ((1, shape[1]) if kind in patterns.LINE_KINDS else shape)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0.0, 1.0}


@pytest.mark.parametrize("kind", patterns.KINDS)
def test_seed_alone_decides(kind):
    def draw(seed):
        return make_mask(kind, (64, 96), 8, 0.04, seed)

    np.random.seed(0)
    first = draw((1, 2, 3))
    before = np.random.get_state()[1].copy()
    np.random.seed(99)
    np.testing.assert_array_equal(draw((1, 2, 3)), first)
    np.random.seed(0)
    draw(5)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    distinct = {draw(seed).tobytes() for seed in range(20)}
    # An equispaced mask has R offsets to choose from, and no other freedom.
    assert len(distinct) >= (6 if kind in patterns.FASTMRI_KINDS and kind != "random" else 20)


def test_seed_from_name_is_fastmris():
    assert seed_from_name("ab.h5") == (97, 98, 46, 104, 53)
    names = [make_mask("random", (1, 320), 4, 0.08, seed_from_name(n)) for n in ("a.h5", "b.h5")]
    assert (names[0] != names[1]).any()


@pytest.mark.parametrize("kind", patterns.LINE_KINDS)
@pytest.mark.parametrize("width", [99, 100, 128, 372])
@pytest.mark.parametrize("acceleration, fraction", SETTINGS)
def test_center_lines_are_sampled(kind, width, acceleration, fraction):
    lines = round(width * fraction)
    assert lines >= 2
    for seed in range(5):
        mask = make_mask(kind, (1, width), acceleration, fraction, seed)
        assert mask[0, center_of(width, lines)].all()


@pytest.mark.parametrize("kind", patterns.PLANE_KINDS)
@pytest.mark.parametrize("shape", [(64, 64), (65, 48)])
@pytest.mark.parametrize("acceleration, fraction", SETTINGS)
def test_center_box_is_sampled(kind, shape, acceleration, fraction):
    box = tuple(center_of(n, round(n * math.sqrt(fraction))) for n in shape)
    area = (box[0].stop - box[0].start) * (box[1].stop - box[1].start) / (shape[0] * shape[1])
    assert area == pytest.approx(fraction, rel=0.15)
    assert make_mask(kind, shape, acceleration, fraction, 0)[box].all()


def test_center_is_not_larger_than_asked():
    assert masks.center_mask("poisson", (100, 200), 0.04).sum() == 20 * 40
    assert masks.center_mask("random", (100, 200), 0.04).sum() == 8
    assert masks.center_mask("radial", (4, 400), 0.001).sum() == 13
    assert masks.center_mask("radial", (1, 400), 0.04).sum() == 16
    assert not masks.center_mask("radial", (4, 400), 0).any()


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("shape", [(128, 128), (61, 90), (1, 200)])
@pytest.mark.parametrize("acceleration, fraction", [*SETTINGS, (1.3, 0.04), (2.5, 0.0)])
def test_exact_kinds_sample_the_rounded_number(kind, shape, acceleration, fraction):
    mask = make_mask(kind, shape, acceleration, fraction, 3)
    assert mask.sum() == round(mask.size / acceleration)


@pytest.mark.parametrize("kind", ["radial", "radial_uniform"])
@pytest.mark.parametrize("shape", [(256, 256), (200, 161)])
@pytest.mark.parametrize("acceleration, fraction", [*SETTINGS, (2, 0.1), (4, 0.0)])
def test_radial_kinds_come_within_half_a_spoke(kind, shape, acceleration, fraction):
    mask = make_mask(kind, shape, acceleration, fraction, 3)
    assert achieved_acceleration(mask) == pytest.approx(acceleration, rel=0.03)
    target = mask.size / acceleration
    assert abs(mask.sum() - target) <= 0.51 * max(shape)


@pytest.mark.parametrize("acceleration, fraction", SETTINGS)
def test_line_kinds_achieved_acceleration(acceleration, fraction):
    def lines(kind):
        draws = [make_mask(kind, (1, 368), acceleration, fraction, seed) for seed in range(300)]
        return np.mean([mask.sum() for mask in draws])

    nominal = 368 / acceleration
    assert lines("random") == pytest.approx(nominal, rel=0.03)
    assert lines("equispaced_fraction") == pytest.approx(nominal, rel=0.03)
    # R-th lines everywhere and the center's other lines on top, fastMRI's own definition.
    center = round(368 * fraction)
    for kind in ("equispaced", "magic"):
        assert lines(kind) == pytest.approx(nominal + center * (1 - 1 / acceleration), rel=0.03)


def test_equispaced_is_equispaced():
    mask = make_mask("equispaced", (1, 100), 5, 0, 4)[0]
    assert len(set(np.flatnonzero(mask) % 5)) == 1
    assert mask.sum() == 20


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("width", [127, 128])
def test_magic_halves_do_not_repeat_each_other(seed, width):
    frequencies = np.flatnonzero(make_mask("magic", (1, width), 4, 0, seed)[0]) - width // 2
    assert len(frequencies) >= 28
    assert not set(frequencies) & set(-frequencies)


@pytest.mark.parametrize("kind", patterns.KINDS)
def test_acceleration_one_samples_everything(kind):
    mask = make_mask(kind, (12, 17), 1, 0.08, 0)
    assert mask.shape[1] == 17 and mask.all()
    cut = make_mask(kind, (12, 17), 1, 0.08, 0, padding=(2, 16))
    assert cut[:, 2:16].all() and not cut[:, :2].any() and not cut[:, 16:].any()


@pytest.mark.parametrize("kind", patterns.KINDS)
def test_padding_is_neither_sampled_nor_counted(kind):
    shape, padding = (80, 120), (15, 109)
    for seed in range(5):
        mask = make_mask(kind, shape, 4, 0.06, seed, padding)
        assert not mask[:, :15].any() and not mask[:, 109:].any()
        if kind in patterns.FASTMRI_KINDS:
            whole = make_mask(kind, shape, 4, 0.06, seed)
            np.testing.assert_array_equal(mask[:, 15:109], whole[:, 15:109])
        else:
            tolerance = 0.05 if "radial" in kind else 0.03
            assert achieved_acceleration(mask[:, 15:109]) == pytest.approx(4, rel=tolerance)


def test_fastmri_kinds_budget_the_full_width():
    # fastMRI draws first and cuts afterwards; 24 of these 40 columns alone would be beyond R = 4.
    mask = make_mask("random", (1, 100), 4, 0.24, 0, padding=(30, 70))
    assert mask[0, center_of(100, 24)].all()
    with pytest.raises(InputError, match="'gaussian1d' mask holds 24 of 40 points .*tion 4; lower"):
        make_mask("gaussian1d", (1, 100), 4, 0.24, 0, padding=(30, 70))


def test_valid_columns():
    assert valid_columns(3).tolist() == [True] * 3
    assert valid_columns(4, (1, 3)).tolist() == [False, True, True, False]


def test_what_a_mask_samples_is_told():
    lines = make_mask("equispaced", (40, 36), 4, 0.1, 0)
    for mask, expected in ((lines, "columns"), (lines * np.ones((40, 1)), "columns"),
                           (np.stack([lines, np.roll(lines, 1)]), "columns"),
                           ((np.arange(40) > 9)[:, None] * lines, "columns"),
                           (np.broadcast_to(lines, (40, 36)).T, "rows"),
                           (make_mask("poisson", (40, 36), 4, 0.1, 0), "points"),
                           (np.ones((1, 36)), "full"), (np.ones((40, 36)), "full"),
                           (np.outer(np.arange(40) > 9, np.arange(36) < 30), "full")):
        assert pattern(np.asarray(mask)) == expected


def test_achieved_acceleration():
    mask = np.array([[1, 0, 0, 0, 1, 0]], np.float32)
    assert achieved_acceleration(mask) == 3.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert achieved_acceleration(0 * mask) == math.inf


@pytest.mark.parametrize("shape, share", [((96, 96), 0.12), ((60, 100), 0.25), ((70, 45), 0.03)])
def test_poisson_minimum_distance(shape, share):
    allowed = ~masks.center_mask("poisson", shape, 0.02)
    count = round(share * allowed.size)
    mask, radius = patterns.poisson_disc(allowed, count, np.random.RandomState(1))
    assert mask.sum() == count and not (mask & ~allowed).any()
    points, radii = np.argwhere(mask), radius[mask]
    distance = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    np.fill_diagonal(distance, np.inf)
    assert (distance >= np.minimum(radii[:, None], radii[None])).all()
    # Radii up to 1 would bind nobody on a grid; and the darts are packed, not merely apart.
    assert np.median(radii) > 1.0 and radius.max() > 2.0
    nearest = distance.min(axis=1)
    assert np.median(nearest / radii) < 1.8


def test_poisson_radius_grows_from_the_center():
    _, radius = patterns.poisson_disc(np.ones((80, 80), bool), 800, np.random.RandomState(0))
    row = radius[40, 40:]
    assert (np.diff(row) > 0).all()
    assert radius[40, 0] / radius[40, 40] == pytest.approx(1 + patterns.POISSON_GROWTH)


def test_poisson_is_fast_enough():
    start = time.process_time()
    make_mask("poisson", (256, 256), 4, 0.04, 0)
    assert time.process_time() - start < 2.0


@pytest.mark.parametrize("kind", ["gaussian1d", "gaussian2d", "poisson"])
def test_variable_density_kinds_prefer_low_frequencies(kind):
    drawn = sum(make_mask(kind, (96, 96), 6, 0, seed) for seed in range(20))
    drawn = drawn[0] if kind == "gaussian1d" else drawn[47:50].sum(0)
    inner, outer = drawn[33:64].sum(), drawn[:15].sum() + drawn[-16:].sum()
    assert inner > 2.5 * outer > 0


@pytest.mark.parametrize("kind", ["radial", "radial_uniform"])
def test_radial_lines_run_through_the_center(kind):
    mask = make_mask(kind, (101, 75), 10, 0, 2)
    assert mask[50, 37] == 1
    np.testing.assert_array_equal(mask, mask[::-1, ::-1])
    # Away from the center it is lines, not a filled plane: a ring sees single points.
    assert 0.05 < np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean() < 0.2


@pytest.mark.parametrize("kind, ratio", [("radial_uniform", (1.0, 1.25)), ("radial", (1.5, 2.9))])
def test_radial_angles(kind, ratio):
    mask = make_mask(kind, (201, 201), 15, 0, 0)
    y, x = np.nonzero(mask)
    rim = np.maximum(abs(y - 100), abs(x - 100)) == 100
    angles = np.sort(np.unique(np.arctan2(y[rim] - 100, x[rim] - 100).round(6)))
    gaps = np.diff(angles)
    assert len(angles) > 20
    assert ratio[0] <= gaps.max() / gaps.min() <= ratio[1]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kind": "spiral"}, "mask is 'spiral', expected one of random, .*radial_uniform"),
        ({"acceleration": 0.5}, "acceleration is 0.5, expected a finite number >= 1; 1 samples"),
        ({"acceleration": math.inf}, "acceleration is inf, expected a finite number"),
        ({"acceleration": math.nan}, "acceleration is nan, expected a finite number"),
        ({"center_fraction": 1}, "center_fraction is 1, expected 0 <= .* < 1; 0.08 is customary"),
        ({"center_fraction": -0.1}, "center_fraction is -0.1, expected 0 <="),
        ({"kind": "equispaced", "acceleration": 4.5}, "acceleration is 4.5, but 'equispaced' .*eq"),
        ({"kind": "magic", "acceleration": 4.5}, "acceleration is 4.5, but 'magic' .*whole number"),
    ],
)
def test_bad_arguments_are_refused(change, message):
    good = dict(kind="random", shape=(64, 64), acceleration=4, center_fraction=0.08, seed=0)
    make_mask(**good)
    with pytest.raises(InputError, match=message):
        make_mask(**{**good, **change})


@pytest.mark.parametrize("kind", [k for k in patterns.KINDS if k not in ("equispaced", "magic")])
def test_center_beyond_the_budget_is_refused(kind):
    message = f"'{kind}' mask holds .* points .*0.2.* too many for acceleration 8; lower center_fr"
    with pytest.raises(InputError, match=message):
        make_mask(kind, (100, 100), 8, 0.2, 0)


@pytest.mark.parametrize("kind", ["random", "equispaced_fraction", "gaussian1d", "poisson"])
def test_center_that_fills_the_budget_is_all_there_is(kind):
    mask = make_mask(kind, (100, 100), 4, 0.25, 0)
    np.testing.assert_array_equal(mask, masks.center_mask(kind, (100, 100), 0.25))


def test_equispaced_takes_any_center():
    assert make_mask("equispaced", (1, 100), 8, 0.5, 0)[0, center_of(100, 50)].all()


@pytest.mark.parametrize("fraction", [0.25, 0.3])
def test_magic_refuses_a_center_of_one_over_r(fraction):
    make_mask("magic", (1, 100), 4, 0.24, 0)
    with pytest.raises(InputError, match=f"'magic' .*n {fraction}.* acceleration 4; lower"):
        make_mask("magic", (1, 100), 4, fraction, 0)
