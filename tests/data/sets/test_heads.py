"""The real heads of the package, and what is made of them."""

import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from flatjax import config
from flatjax.data import augment, heads, slices
from flatjax.data.acquisition import Acquisition
from flatjax.data.augment import Augmentation
from flatjax.data.batches import measure_slice, measure_volume, training_batch
from flatjax.data.slices import packaged_array
from flatjax.errors import InputError
from flatjax.experiments.config_file import load_config_file, override
from flatjax.mri import combine
from flatjax.mri.host.simulate import host_fft2c, host_ifft2c

IMAGES = Path(heads.__file__).parents[1] / "images"
PLAIN = Augmentation(matrix=32, gamma=(1.0, 1.0), curve=(0.0, 0.0), inverted=0.0, bias=(0.0, 0.0))


def disc(size=64, radius=0.6):
    y, x = np.mgrid[-1:1:size * 1j, -1:1:size * 1j]
    return ((y**2 + x**2) < radius**2).astype(np.float32) * (0.6 + 0.4 * np.sin(9 * x) ** 2)


def generators(count):
    return [np.random.default_rng(seed) for seed in range(count)]


def test_images_with_their_notices_take_less_than_eight_megabytes():
    names = {path.stem for path in IMAGES.glob("*.npz")}
    assert names == {"patient1", "patient2", "patient3", "patient4", "volunteer", "cstar_t1",
                     "scan"}
    assert sum(path.stat().st_size for path in IMAGES.glob("*.npz")) < 8e6
    assert "CC0 1.0 Universal" in (IMAGES / "LICENSE-patients.txt").read_text()
    assert "Public Domain Dedication" in (IMAGES / "LICENSE-studyforrest.txt").read_text()
    assert "MIT License" in (IMAGES / "LICENSE-scan.txt").read_text()


def test_every_patient_has_four_slices_in_three_contrasts_that_show_one_head():
    for name in (*heads.TRAIN, heads.VALIDATION, heads.TEST):
        images = heads.intensity(packaged_array(name, "images"))
        assert images.shape == (3, 4, 320, 272) and images.max() == 1
        for index in range(4):
            one, two, three = (image > 0.04 * image.max() for image in images[:, index])
            for first, second in ((one, two), (two, three)):
                assert (first & second).sum() > 0.8 * (first | second).sum()


def test_the_volunteer_is_seen_in_three_planes_from_the_right_side():
    axial, coronal, sagittal = heads.volunteer_planes()
    assert min(map(len, (axial, coronal, sagittal))) > 100
    assert axial.shape[1:] == (220, 184) and coronal.shape[1:] == (206, 184)
    assert sagittal.shape[1:] == (206, 220)
    middle = sagittal[len(sagittal) // 2] > heads.AIR
    assert middle[:103].sum() > middle[103:].sum(), "the head is above the neck"


def test_sets_are_split_by_person(monkeypatch):
    read = []
    monkeypatch.setattr(heads, "packaged_array",
                        lambda name, key: read.append(name) or packaged_array(name, key))
    data = heads.make(matrix=32)
    list(data.draw(np.random.default_rng(0), 20))
    assert set(read) == {"patient1", "patient2", "volunteer"}
    for volumes, person in ((data.validation, "patient3"), (data.test["patient"], "patient4")):
        read.clear()
        for volume in volumes:
            volume.load()
        assert set(read) == {person}
        assert len({volume.name for volume in volumes}) == 6


def test_volumes_of_one_contrast_show_the_same_slices_with_other_coils_and_phase():
    first, second = (volume.load() for volume in heads.make(matrix=48).validation[:2])
    for one, two in zip(first, second, strict=True):
        assert np.array_equal(one.target, two.target)
        assert not np.allclose(one.maps, two.maps) and not np.allclose(one.kspace, two.kspace)
        assert one.maps.shape == (12, 48, 48) and int(one.maps.any(axis=(1, 2)).sum()) == 8
    again = heads.make(matrix=48).validation[0].load()
    jax.tree.map(np.testing.assert_array_equal, first, again)


def test_samples_depend_on_the_generator_alone_and_not_on_which_are_read():
    data = heads.make(matrix=32)
    samples = data.draw(np.random.default_rng(4), 6)
    last = samples[5]
    again = list(data.draw(np.random.default_rng(4), 6))
    jax.tree.map(np.testing.assert_array_equal, last, again[5])
    assert len({one.target.tobytes() for one in again}) == 6


def test_the_scan_is_a_head_with_noise_of_its_own_that_is_not_added_again():
    (volume,) = heads.make(matrix=32).test["scan"]
    (one,) = volume.load()
    assert one.kspace.shape == one.maps.shape == (8, 128, 128) and one.target.max() == 1
    image = combine(jnp.asarray(one.kspace)[None], jnp.asarray(one.maps)[None])[0]
    np.testing.assert_allclose(image, one.target, atol=1e-5)
    head = ndimage.binary_fill_holes(one.target > 0.1)
    assert 0.2 < head.mean() < 0.6 and one.target[~head].mean() < 0.05
    corner = host_ifft2c(one.kspace)[:, :16, :16]
    assert 1 < np.sqrt(np.mean(np.abs(corner) ** 2)) / one.noise < 1.4, "and ghosts on top"
    quiet, loud = (measure_slice(one, Acquisition("random", 1.0, 0.0, level), 0,
                                 np.random.default_rng(0)).measurement for level in (0.001, 0.1))
    assert np.array_equal(quiet.kspace, one.kspace) and quiet.noise == np.float32(one.noise)
    added = np.mean(np.abs(loud.kspace - one.kspace) ** 2)
    assert np.isclose(np.sqrt(added + one.noise**2), loud.noise, rtol=0.02)


@pytest.mark.parametrize("cropped", [0.0, 1.0])
def test_the_target_is_what_the_maps_make_of_full_kspace(cropped):
    data = heads.make(matrix=48, cropped=cropped)
    ends = 0
    for one in data.draw(np.random.default_rng(1), 12):
        image = combine(jnp.asarray(one.kspace)[None], jnp.asarray(one.maps)[None])[0]
        np.testing.assert_allclose(image, one.target, atol=2e-6)
        power = np.sum(np.abs(one.maps) ** 2, axis=0)
        assert power.max() < 1 + 1e-5
        ends += power.min() < 1 - 1e-5
    assert ends == 0 if cropped == 0 else ends > 6


def test_as_many_coils_are_drawn_as_the_range_says_and_the_rest_is_zero():
    data = heads.make(matrix=24, coils=5, fewest_coils=2)
    seen = [int(one.maps.any(axis=(1, 2)).sum())
            for one in data.draw(np.random.default_rng(0), 80)]
    assert set(seen) == {2, 3, 4, 5}
    one = heads.make(matrix=24, coils=1, cropped=0.0).draw(np.random.default_rng(0), 1)[0]
    assert one.kspace.shape == (1, 24, 24) and np.all(one.maps == 1)


@pytest.mark.parametrize("coils", [2, 7, 32])
def test_maps_are_normalized_smooth_and_of_different_strength(coils):
    strengths = []
    for rng in generators(12):
        maps = augment.draw_maps(rng, (40, 32), coils)
        assert maps.shape == (coils, 40, 32) and maps.dtype == np.complex64
        np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=0), 1, rtol=1e-4)
        spectrum = np.abs(host_fft2c(maps)) ** 2
        near = spectrum[:, 12:29, 8:25].sum() / spectrum.sum()
        assert near > 0.9
        strengths.append(np.abs(maps).mean(axis=(1, 2)))
    assert np.mean([strength.max() / strength.min() for strength in strengths]) > 1.2


@pytest.mark.parametrize("amplitude", [0.0, 0.5, 2.0])
def test_the_phase_has_the_rms_asked_for_around_one_that_is_anywhere(amplitude):
    around = []
    for rng in generators(40):
        phasors = augment.draw_phase(rng, (48, 40), amplitude)
        np.testing.assert_allclose(np.abs(phasors), 1, rtol=1e-5)
        around.append(np.angle(phasors[24, 20]))
        if amplitude < 1:  # does not wrap when taken relative to its mean
            relative = np.angle(phasors / phasors.mean() * abs(phasors.mean()))
            assert np.isclose(relative.std(), amplitude, rtol=0.05, atol=1e-4)
        else:
            unwrapped = np.unwrap(np.unwrap(np.angle(phasors), axis=0), axis=1)
            assert np.isclose(unwrapped.std(), amplitude, rtol=0.05)
    assert np.histogram(around, 4, (-np.pi, np.pi))[0].min() > 2


def test_low_resolution_is_the_center_of_kspace():
    image = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    for matrix in (32, 33, 48):
        small = np.fft.fft2(augment.low_resolution(image, matrix))
        index = np.rint(np.fft.fftfreq(matrix, 1 / matrix)).astype(int)
        expected = np.fft.fft2(image)[np.ix_(index, index)] * (matrix / 64) ** 2
        inside = np.abs(index) < matrix / 2  # the Nyquist lines of a real image are ambiguous
        np.testing.assert_allclose(small[np.ix_(inside, inside)], expected[np.ix_(inside, inside)],
                                   atol=2e-3)


def test_a_drawn_plane_has_the_size_that_its_field_of_view_says():
    image = disc(200, 0.8)  # 160 mm across at 1 mm
    for rng in generators(8):
        for fov in (200.0, 300.0):
            plane = augment.draw_plane(rng, image, 1.0, fov, 64)
            across = 2 * np.sqrt((plane > 0.3).sum() / np.pi) * fov / 64
            assert plane.max() == 1 and abs(across - 160) < 25


def test_contrast_keeps_the_air_dark_and_the_anatomy():
    image = disc()
    head = augment.support(image, 0.03)
    inverted = augment.change_contrast(np.random.default_rng(0), image, head,
                                       PLAIN._replace(inverted=1.0))
    inside = image > 0
    assert np.corrcoef(inverted[inside], image[inside])[0, 1] < -0.8
    far = head == 0
    assert far.any() and not inverted[far].any()
    same = augment.change_contrast(np.random.default_rng(0), image, head, PLAIN)
    np.testing.assert_allclose(same, image / image.max(), atol=1e-5)


def test_the_support_holds_the_head_and_grows_with_its_margin():
    image = disc()
    areas = []
    for margin in (0.02, 0.06, 0.12):
        inside = augment.support(image, margin)
        assert inside[image > 0].min() > 0.9 and inside[0, 0] == 0
        areas.append(inside.sum())
    assert areas == sorted(areas) and len(set(areas)) == 3


def test_an_empty_image_gives_an_empty_sample():
    sample = augment.augmented_sample(np.zeros((50, 50), np.float32), 1.0, PLAIN,
                                      np.random.default_rng(0))
    assert not sample.target.any() and np.isfinite(sample.kspace).all()


@pytest.mark.parametrize(("options", "message"), [
    ({"coils": 0}, "coils is 0"),
    ({"fewest_coils": 0}, "fewest_coils is 0, expected one of 1, 2, 3"),
    ({"fewest_coils": 5, "coils": 4}, "fewest_coils is 5, expected one of 1, 2, 3, 4"),
    ({"fewest_coils": 1.5}, "fewest_coils is 1.5"),
    ({"fov": ()}, r"fov is \(\)"),
    ({"fov": (300.0, 200.0)}, r"fov is \(300.0, 200.0\)"),
    ({"gamma": (0.0, 1.0)}, "gamma is"),
    ({"curve": (0.0, float("nan"))}, "curve is"),
    ({"phase": ("a", "b")}, "phase is"),
    ({"bias": (-0.1, 0.1)}, "bias is"),
    ({"inverted": 1.5}, "inverted is 1.5, expected a probability"),
    ({"mixed": -0.5}, "mixed is -0.5, expected a probability"),
    ({"matrix": 8}, "matrix is 8"),
])
def test_what_cannot_be_drawn_is_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        heads.make(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [None, b"", b"PK\3\4 cut off"])
def test_missing_or_broken_images_are_told_in_one_line(tmp_path, monkeypatch, content):
    (tmp_path / "images").mkdir()
    if content is not None:
        (tmp_path / "images" / "patient1.npz").write_bytes(content)
    monkeypatch.setattr(slices, "__file__", str(tmp_path / "slices.py"))
    packaged_array.cache_clear()
    with pytest.raises(InputError, match="patient1.npz cannot be read .* install it again"):
        heads.make()
    packaged_array.cache_clear()


def test_the_config_of_many_coils_draws_its_batches_and_volumes():
    full = load_config_file(str(Path(__file__).parents[3] / "configs" / "multicoil.py"))
    full.data.matrix = 32
    acquisition, data = config.make_acquisition(full), config.make_dataset(full)
    batch = training_batch(data, acquisition, 0, 0, 4)
    assert batch.kspace.shape == (4, 12, 32, 32)
    assert batch.measurement.mask.shape == (4, 1, 32, 32) and batch.measurement.noise.shape == (4,)
    kinds = {measure_volume(volume, acquisition)[0].measurement.mask.tobytes()
             for volume in data.validation}
    assert len(data.validation) == len(kinds) == 6
    images = host_ifft2c(batch.kspace)
    assert np.isfinite(images).all()


def test_naming_the_data_set_keeps_the_matrix_and_coils_of_another():
    demo = config.experiment(data=config.data("icbm", matrix=96, coils=2))
    there = override(demo, ["--config.data.name=heads"])
    assert (there.data.matrix, there.data.coils, there.data.fewest_coils) == (96, 2, 1)


def test_stored_images_are_plain_zip_archives():
    for path in IMAGES.glob("*.npz"):
        assert zipfile.ZipFile(path).testzip() is None
