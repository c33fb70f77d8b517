import importlib.machinery
import importlib.util
import pathlib
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import jax
import numpy as np
import pytest

from flatjax import mri
from flatjax.data import slices
from flatjax.data.sets import icbm
from flatjax.errors import InputError
from flatjax.mri.host import simulate

ROOT = pathlib.Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
SMALL = 48


@pytest.fixture(scope="module")
def dataset():
    return icbm.make(matrix=SMALL)


def bits(samples):
    return [np.asarray(array).tobytes() for sample in samples for array in sample]


def check_contract(sample, coils, shape):
    assert sample.kspace.shape == sample.maps.shape == (coils, *shape)
    assert sample.target.shape == shape
    assert sample.kspace.dtype == sample.maps.dtype == np.complex64
    assert sample.target.dtype == np.float32
    assert np.isfinite(sample.kspace).all() and np.isfinite(sample.target).all()
    assert sample.target.min() >= 0 and sample.target.max() <= 1 + 1e-6
    np.testing.assert_allclose(np.sum(np.abs(sample.maps) ** 2, axis=0), 1, atol=1e-5)
    images = np.asarray(mri.ifft2c(sample.kspace))
    combined = np.abs(np.sum(np.conj(sample.maps) * images, axis=0))
    np.testing.assert_allclose(combined, sample.target, atol=1e-5)


@pytest.mark.parametrize("coils, matrix", [(1, 32), (3, 33)])
def test_every_sample_keeps_the_contract(coils, matrix):
    dataset = icbm.make(matrix=matrix, coils=coils)
    trained = dataset.draw(np.random.default_rng(0), 4)
    assert len(trained) == 4
    for sample in trained:
        check_contract(sample, coils, (matrix, matrix))
        assert sample.target.max() == pytest.approx(1, abs=1e-6)
    volumes = [*dataset.validation, *dataset.test["held_out"], *dataset.test["other_head"]]
    for volume in volumes:
        samples = volume.load()
        for sample in samples:
            check_contract(sample, coils, (matrix, matrix))
        assert max(s.target.max() for s in samples) == pytest.approx(1, abs=1e-6)
    assert len({volume.name for volume in volumes}) == len(volumes)


def test_test_sets_and_their_volumes(dataset):
    assert list(dataset.test) == ["held_out", "other_head"]
    assert [v.name for v in dataset.test["held_out"]] == [f"icbm_test_{c}"
                                                          for c in ("T1", "T2", "PD")]
    assert [v.name for v in dataset.validation] == [f"icbm_validation_{c}"
                                                    for c in ("T1", "T2", "PD")]
    assert {len(v.load()) for v in dataset.test["held_out"]} == {16}
    assert {len(v.load()) for v in dataset.validation} == {8}
    assert [len(v.load()) for v in dataset.test["other_head"]] == [16]


def test_draw_is_a_pure_function_of_its_generator(dataset):
    np.random.seed(0)
    first = bits(dataset.draw(np.random.default_rng(5), 3))
    np.random.seed(1)
    assert bits(icbm.make(matrix=SMALL).draw(np.random.default_rng(5), 3)) == first
    rng = np.random.default_rng(5)
    assert bits(dataset.draw(rng, 1) + dataset.draw(rng, 2)) == first
    assert bits(dataset.draw(np.random.default_rng(6), 3)) != first
    targets = [s.target for s in dataset.draw(np.random.default_rng(7), 8)]
    assert len({t.tobytes() for t in targets}) == 8


def test_threads_change_nothing():
    dataset = icbm.make(matrix=SMALL, coils=2)
    alone = [bits(dataset.draw(np.random.default_rng(seed), 2)) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(
            lambda seed: bits(dataset.draw(np.random.default_rng(seed), 2)), range(8)))
    assert together == alone


def test_fixed_volumes_are_the_same_every_time(dataset):
    subset = icbm.make(matrix=SMALL, contrasts=["PD"])
    dataset.draw(np.random.default_rng(3), 2)
    pd = dataset.test["held_out"][2]
    assert [v.name for v in subset.test["held_out"]] == [pd.name]
    # the phases belong to the contrast, whichever others are asked for
    assert bits(subset.test["held_out"][0].load()) == bits(pd.load())
    assert bits(pd.load()) == bits(pd.load())


def test_regions_are_apart():
    split = icbm.region_split()
    assert all(len(region) for region in split.values())
    assert min(split["train"]) == icbm.FIRST_SLICE and max(split["train"]) == icbm.LAST_SLICE
    for a, b in combinations(split, 2):
        distances = np.abs(split[a][:, None] - split[b])
        assert distances.min() > slices.GAP_MM  # slices are 1 mm thick: 5 whole ones between


def changed(template, region):
    maps = {name: array.copy() for name, array in template.items()}
    for array in maps.values():
        array[region] = 255 - array[region]
    return maps


def test_no_draw_depends_on_a_voxel_outside_the_training_region(monkeypatch, dataset):
    template, split = icbm.load_template(), icbm.region_split()
    expected = bits(dataset.draw(np.random.default_rng(1), 12))
    held_out = bits(dataset.test["held_out"][0].load())
    elsewhere = np.setdiff1d(np.arange(len(template["t1"])), split["train"])
    monkeypatch.setattr(icbm, "load_template", lambda: changed(template, elsewhere))
    other = icbm.make(matrix=SMALL)
    assert bits(other.draw(np.random.default_rng(1), 12)) == expected
    assert bits(other.test["held_out"][0].load()) != held_out
    monkeypatch.setattr(icbm, "load_template", lambda: changed(template, split["train"][:4]))
    other = icbm.make(matrix=SMALL)
    assert bits(other.draw(np.random.default_rng(1), 12)) != expected
    assert bits(other.test["held_out"][0].load()) == held_out


def test_contrasts_look_as_they_should(dataset):
    split, template = icbm.region_split(), icbm.load_template()
    anatomy = icbm.build_anatomy(template, split["test"], SMALL)
    brain = anatomy.support > 0.95
    pure = {"gm": (anatomy.gm > 0.95) & brain, "wm": (anatomy.wm > 0.95) & brain,
            "csf": (anatomy.gm + anatomy.wm < 0.1) & brain}
    means = {}
    for volume in dataset.test["held_out"]:
        target = np.stack([s.target for s in volume.load()])
        means[volume.name[-2:]] = {name: target[where].mean() for name, where in pure.items()}
    assert means["T1"]["wm"] > 1.1 * means["T1"]["gm"]
    assert means["T1"]["gm"] > 1.5 * means["T1"]["csf"]
    assert means["T2"]["csf"] > 1.8 * means["T2"]["gm"]
    assert means["T2"]["gm"] > 1.1 * means["T2"]["wm"]
    assert means["PD"]["gm"] > 1.05 * means["PD"]["wm"]


def test_training_contrasts_are_those_asked_for():
    # the bright fluid of T2 is little of the head
    typical = {}
    for name in ("T1", "T2", "PD"):
        drawn = icbm.make(matrix=SMALL, contrasts=(name,)).draw(np.random.default_rng(0), 20)
        typical[name] = np.mean([np.median(s.target[s.target > 0.05]) for s in drawn])
    assert typical["T2"] + 0.1 < typical["T1"] < typical["PD"] - 0.04


def test_heads_are_the_right_way_up(dataset):
    template = icbm.load_template()
    cerebellum = template["gm"][icbm.FIRST_SLICE:icbm.FIRST_SLICE + 5].sum(axis=(0, 2))
    assert np.average(np.arange(len(cerebellum)), weights=cerebellum) > len(cerebellum) / 2 + 10
    # the stroke is in the left hemisphere, which a radiologist sees on the right
    targets = np.stack([s.target for s in dataset.test["other_head"][0].load()])
    left_of_image, right_of_image = np.array_split(targets[6:9], 2, axis=2)
    assert right_of_image.sum() < 0.97 * left_of_image.sum()
    rows = targets[0].sum(axis=1)
    assert np.average(np.arange(SMALL), weights=rows) > SMALL / 2


def test_heads_lie_inside_the_field_of_view(dataset):
    targets = np.stack([s.target for s in dataset.draw(np.random.default_rng(2), 100)])
    border = np.concatenate([targets[:, [0, -1]].reshape(100, -1),
                             targets[:, :, [0, -1]].reshape(100, -1)], axis=1)
    assert np.mean(border.max(axis=1) > 0.05) < 0.05
    assert np.median((targets > 0.1).mean(axis=(1, 2))) > 0.15


def test_the_packaged_head_is_what_its_script_writes(tmp_path, monkeypatch):
    source = SHARED / "cstar_T1.nii.gz"
    if not source.exists():
        pytest.skip("the source volume is not here")
    spec = importlib.util.spec_from_file_location(
        "make_head", ROOT / "tests" / "golden" / "make_head.py")
    make_head = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_head)
    make_head.main(str(source), tmp_path / "head.npz")
    with np.load(tmp_path / "head.npz") as made, \
            np.load(make_head.FOLDER / "cstar_t1.npz") as packaged:
        assert sorted(made) == sorted(packaged) == ["index", "slices", "spacing"]
        for name in made:
            np.testing.assert_array_equal(made[name], packaged[name])


@pytest.mark.parametrize("options, match", [
    ({"contrasts": ("T1", "FLAIR")}, "'FLAIR'., expected a list of some of T1, T2, PD"),
    ({"contrasts": ()}, "contrasts is"),
    ({"contrasts": "T1"}, "contrasts is 'T1', expected a list"),
    ({"matrix": 8}, "matrix is 8, expected a whole number from 16 to 1024"),
    ({"matrix": 0}, "matrix is 0"),
    ({"matrix": 64.5}, "matrix is 64.5"),
    ({"coils": 0}, "coils is 0, expected a whole number from 1 to 128"),
    ({"coils": 1.5}, "coils is 1.5"),
])
def test_bad_options_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        icbm.make(**options)


@pytest.mark.parametrize("found", [None, importlib.machinery.ModuleSpec("nilearn", None)])
def test_a_nilearn_without_the_maps_is_named(monkeypatch, found):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    with pytest.raises(InputError, match="which is missing: pip install .* 'nilearn"):
        icbm.load_template.__wrapped__()


def test_nilearn_is_not_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "nilearn", raising=False)
    icbm.load_template.__wrapped__()
    assert "nilearn" not in sys.modules


@pytest.mark.parametrize("shape", [(8, 8), (2, 7, 8), (3, 9, 5), (1, 7)])
def test_host_transform_is_the_device_transform(shape):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)
    assert simulate.host_fft2c(x).dtype == simulate.host_ifft2c(x).dtype == np.complex64
    assert simulate.host_fft2c(x.real).dtype == np.complex64
    np.testing.assert_allclose(simulate.host_fft2c(x), jax.device_get(mri.fft2c(x)), atol=1e-5)
    np.testing.assert_allclose(simulate.host_ifft2c(x), jax.device_get(mri.ifft2c(x)),
                               atol=1e-5)
    np.testing.assert_allclose(simulate.host_ifft2c(simulate.host_fft2c(x)), x, atol=1e-5)


def test_spin_echo_signal():
    signal = simulate.spin_echo(np.array([[1000.0], [100.0], [0.5]]), 1000, 100)
    np.testing.assert_allclose(signal, 0.5 * (1 - np.exp(-1)) * np.exp(-1))
    assert simulate.spin_echo(icbm.TISSUES, 1e9, 0) == pytest.approx(icbm.TISSUES[2])


@pytest.mark.parametrize("scale", [0.1, 0.3])
def test_smooth_fields_have_unit_spread_and_the_asked_length(scale):
    rng = np.random.default_rng(0)
    fields = np.stack([simulate.smooth_field(rng, (60, 100), scale) for _ in range(200)])
    assert fields.dtype == np.float32
    np.testing.assert_allclose(fields.mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(fields.std(axis=(1, 2)), 1, rtol=1e-4)
    length = round(scale * 100)
    near, far = (np.mean(fields[..., :-n] * fields[..., n:]) for n in (length // 2, 2 * length))
    assert near > 0.6 and far < 0.2


@pytest.mark.parametrize("matrix", [30, 61, 90])
def test_resampling_keeps_levels_place_and_symmetry(matrix):
    y, x = np.mgrid[-30:31, -20:21]
    blob = np.exp(-((y - 6) ** 2 + (x + 4) ** 2) / 40).astype(np.float32)
    out = slices.resample(blob[None], (1.0, 1.0), 61.0, matrix)[0]
    pixel = 61 / matrix
    at = (np.arange(matrix) - (matrix - 1) / 2) * pixel
    assert np.sum(out) * pixel**2 == pytest.approx(blob.sum(), rel=1e-2)
    assert np.average(at, weights=out.sum(axis=1)) == pytest.approx(6, abs=0.05)
    assert np.average(at, weights=out.sum(axis=0)) == pytest.approx(-4, abs=0.05)
    flipped = slices.resample(blob[None, ::-1, ::-1], (1.0, 1.0), 61.0, matrix)[0]
    np.testing.assert_allclose(flipped[::-1, ::-1], out, atol=1e-5)
    flat = slices.resample(np.ones((61, 61), np.float32), (1.0, 1.0), 40.0, matrix)
    np.testing.assert_allclose(flat, 1, atol=1e-5)


def test_resampling_keeps_out_aliases():
    stripes = np.tile(1.0 * (np.arange(120) % 2), (120, 1)).astype(np.float32)
    out = slices.resample(stripes, (1.0, 1.0), 60.0, 40)
    np.testing.assert_allclose(out, 0.5, atol=0.05)


@pytest.mark.parametrize("spacing", [0.5, 1.0, 2.0, 3.3, 5.0, 8.0])
def test_every_split_has_its_gaps(spacing):
    gap = int(np.ceil(slices.GAP_MM / spacing))
    for count in range(2 * gap + 3, 260):
        train, validation, test = slices.split_slices(count, spacing).values()
        assert len(train) and len(validation) and len(test)
        assert max(map(max, (train, validation, test))) < count
        for a, b in ((train, validation), (train, test), (validation, test)):
            assert (np.abs(a[:, None] - b).min() - 1) * spacing >= slices.GAP_MM - 1e-6
        assert abs(test.mean() - (count - 1) / 2) <= 0.5
        assert len(train) >= len(test) or count < 6 * gap + 8
    with pytest.raises(InputError, match=f"at least {2 * gap + 3} are needed"):
        slices.split_slices(2 * gap + 2, spacing)

def test_the_field_of_view_is_drawn_and_zooms():
    """A head covers as much less of a larger field of view as its area is larger."""
    def share(fov):
        samples = icbm.make(matrix=SMALL, fov=fov).draw(np.random.default_rng(3), 30)
        return np.mean([np.mean(sample.target > 0.1) for sample in samples])

    assert share((466.0, 466.0)) == pytest.approx(share((233.0, 233.0)) / 4, rel=0.2)
    near, far = (icbm.make(matrix=SMALL, fov=fov).draw(np.random.default_rng(3), 1)[0].target
                 for fov in ((160.0, 256.0), (233.0, 233.0)))
    assert (near != far).any()


@pytest.mark.parametrize("fov", [(256.0, 160.0), (50.0, 200.0), (200.0,), (float("nan"), 200.0)])
def test_a_bad_field_of_view_is_refused(fov):
    with pytest.raises(InputError, match="the least and the largest field of view in mm"):
        icbm.make(matrix=SMALL, fov=fov)
