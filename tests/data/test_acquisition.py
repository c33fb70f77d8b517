"""Acquisitions drawn from ranges: what is drawn, what is refused, what stays as it was."""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest

from flatjax import config
from flatjax.data import Acquisition, Sample, training_batch
from flatjax.data.acquisition import check_acquisition, draw_mask, draw_noise
from flatjax.data.base import DataSet, Volume
from flatjax.data.batches import measure_slice, measure_volume
from flatjax.errors import InputError
from flatjax.mri.host.masks import make_mask, seed_from_name
from flatjax.mri.host.patterns import KINDS
from flatjax.mri.sampling import achieved_acceleration

WIDE = Acquisition(("random", "equispaced", "gaussian1d", "gaussian2d"), (2.0, 10.0), (0.03, 0.2),
                   (0.001, 0.03), lines="both", partial_fourier=(0.7, 1.9), bank=4)


def sample(rng, coils=3, present=3, size=32):
    maps = np.zeros((coils, size, size), np.complex64)
    maps[:present] = present**-0.5
    kspace = (rng.standard_normal(maps.shape) * (maps != 0)).astype(np.complex64)
    return Sample(kspace, maps, np.ones((size, size), np.float32))


def constant(size=32, coils=3, present=3):
    one = sample(np.random.default_rng(0), coils, present, size)
    return DataSet(lambda rng, n: [one] * n, [], {})


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_with_one_r_gives_the_mask_of_make_mask(kind):
    acquisition = Acquisition(kind, 4.0, 0.08, 0.01)
    same = acquisition._replace(mask=(kind,), acceleration=(4.0,), center_fraction=(0.08, 0.08))
    expected = make_mask(kind, (24, 40), 4.0, 0.08, 7)
    assert np.array_equal(draw_mask(acquisition, (24, 40), 7), expected)
    assert np.array_equal(draw_mask(same, (24, 40), 7), expected)
    assert draw_noise(acquisition, 7) == 0.01


def test_noise_is_log_uniform_in_its_range():
    levels = np.log([draw_noise(WIDE, seed) for seed in range(2000)])
    low, high = np.log(WIDE.noise)
    assert low <= levels.min() and levels.max() <= high
    counts = np.histogram(levels, 4, (low, high))[0]
    assert np.all(np.abs(counts - 500) < 100)


@pytest.mark.parametrize("kind", ["random", "gaussian1d", "gaussian2d", "poisson"])
def test_acceleration_is_drawn_from_its_range(kind):
    acquisition = Acquisition((kind,), (2.0, 8.0), (0.03, 0.2))
    shape = (1, 4000) if kind == "random" else (48, 48)  # a random mask meets R on average
    drawn = [achieved_acceleration(draw_mask(acquisition, shape, seed)) for seed in range(80)]
    assert 1.9 <= min(drawn) < 3 and 6.5 < max(drawn) <= 8.8
    assert abs(np.mean(drawn) - 5) < 1


def test_equispaced_lines_are_a_whole_number_apart():
    acquisition = Acquisition(("equispaced",), (2.5, 6.5), (0.0, 0.1))
    gaps = set()
    for seed in range(60):
        lines = np.flatnonzero(draw_mask(acquisition, (4, 240), seed)[0])
        gaps.add(int(np.diff(lines).max()))
    assert gaps == {3, 4, 5, 6}


def test_lines_run_along_columns_or_rows_or_both():
    for lines, expected in (("columns", {0}), ("rows", {1}), ("both", {0, 1})):
        acquisition = Acquisition("random", 4.0, 0.1, lines=lines)
        along = set()
        for seed in range(20):
            mask = np.broadcast_to(draw_mask(acquisition, (32, 40), seed), (32, 40))
            along.add(int(np.ptp(mask, axis=1).max() == 0))
        assert along == expected


def test_partial_fourier_leaves_out_one_end_of_one_axis():
    acquisition = Acquisition("random", 1.0, 0.0, partial_fourier=(0.6, 1.2))
    missing, ends = [], set()
    for seed in range(200):
        mask = draw_mask(acquisition, (40, 40), seed)
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert np.array_equal(mask, np.outer(rows, columns)) and mask[20, 20] == 1
        assert rows.all() or columns.all()
        missing.append(1 - mask.mean())
        if missing[-1]:
            ends.add((bool(rows.all()), bool(mask[0, 0])))
    assert max(missing) <= 0.4 and len(ends) == 4
    assert 0.2 < np.mean(np.array(missing) == 0) < 0.5


def test_masks_of_one_acquisition_have_one_shape_whatever_their_kind():
    assert {draw_mask(WIDE, (32, 40), seed).shape for seed in range(30)} == {(32, 40)}


def test_a_bank_holds_so_many_masks_in_four_mirror_images():
    acquisition = Acquisition("poisson", 4.0, 0.03, bank=3)
    masks = {draw_mask(acquisition, (32, 32), seed).tobytes() for seed in range(120)}
    assert len(masks) == 12


def test_columns_outside_the_padding_are_never_sampled():
    for seed in range(20):
        mask = draw_mask(WIDE, (32, 40), seed, (4, 36))
        assert not mask[:, :4].any() and not mask[:, 36:].any() and mask.any()


def test_only_coils_that_see_anything_have_noise_and_the_level_is_told():
    level = 0.2
    rng = np.random.default_rng(1)
    one = sample(rng, coils=5, present=3, size=64)
    measured = measure_slice(one, Acquisition("random", 1.0, 0.0, level), 0, rng).measurement
    assert measured.noise == np.float32(level)
    added = measured.kspace - one.kspace
    assert not added[3:].any()
    assert np.isclose(np.sqrt(np.mean(np.abs(added[:3]) ** 2)), level, rtol=0.02)


def test_no_added_noise_is_unknown_noise():
    one = sample(np.random.default_rng(0))
    assert measure_slice(one, Acquisition(), 0, np.random.default_rng(0)).measurement.noise is None


def test_a_batch_does_not_depend_on_the_thread_or_on_what_was_drawn_before():
    data = constant()
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda step: training_batch(data, WIDE, 3, step, 4), range(6)))
    for step in (5, 0):
        again = training_batch(data, WIDE, 3, step, 4)
        jax.tree.map(np.testing.assert_array_equal, again, batches[step])
    assert not np.array_equal(batches[0].measurement.mask, batches[1].measurement.mask)


def test_each_slice_of_a_batch_is_acquired_in_its_own_way_and_a_volume_in_one():
    noise = training_batch(constant(), WIDE, 0, 0, 8).measurement.noise
    assert noise.shape == (8,) and len(set(noise.tolist())) == 8
    volume = Volume("a", lambda: [sample(np.random.default_rng(0))] * 3)
    slices = measure_volume(volume, WIDE)
    assert len({float(one.measurement.noise) for one in slices}) == 1
    assert all(np.array_equal(one.measurement.mask, slices[0].measurement.mask) for one in slices)
    other = measure_volume(volume._replace(name="b"), WIDE)
    assert other[0].measurement.noise != slices[0].measurement.noise
    assert slices[0].measurement.noise == np.float32(draw_noise(WIDE, seed_from_name("a")))


@pytest.mark.parametrize(("change", "message"), [
    ({"mask": ()}, r"acquisition.mask is \(\), expected at least one kind"),
    ({"mask": ("random", "pois")}, "mask is 'pois'"),
    ({"acceleration": ()}, r"acquisition.acceleration is \(\)"),
    ({"acceleration": (8.0, 2.0)}, r"acquisition.acceleration is \(8.0, 2.0\), .* low <= high"),
    ({"acceleration": (2.0, 4.0, 8.0)}, "acquisition.acceleration"),
    ({"acceleration": ("a", "b")}, "acquisition.acceleration"),
    ({"acceleration": (0.5, 4.0)}, "acceleration is 0.5"),
    ({"acceleration": (4.2, 4.8)}, "'equispaced' needs a whole number and none lies between"),
    ({"center_fraction": (0.2, 0.1)}, "acquisition.center_fraction"),
    ({"center_fraction": (0.2, 0.3)}, "center of a 'random' mask holds"),
    ({"center_fraction": (0.05, 1.0)}, "center_fraction is 1.0"),
    ({"noise": (0.0, 0.1)}, "acquisition.noise"),
    ({"noise": (0.1, float("nan"))}, "acquisition.noise"),
    ({"noise": -1.0}, "acquisition.noise is -1"),
    ({"partial_fourier": 0.5}, "acquisition.partial_fourier"),
    ({"lines": "diagonal"}, "acquisition.lines is 'diagonal'"),
    ({"bank": -1}, "acquisition.bank"),
])
def test_what_cannot_be_drawn_is_refused_in_one_line(change, message):
    with pytest.raises(InputError, match=message) as caught:
        check_acquisition(WIDE._replace(**change))
    assert "\n" not in str(caught.value)


def test_a_config_takes_ranges_and_keeps_them_as_json():
    full = config.experiment(acquisition=config.acquisition(**WIDE._asdict()))
    again = config.from_json(config.to_json(full))
    assert config.make_acquisition(again) == config.make_acquisition(full) == WIDE
