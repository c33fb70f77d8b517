import gzip
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nibabel
import numpy as np
import pytest

from flatjax import mri
from flatjax.data import slices
from flatjax.data.sets import volume
from flatjax.errors import InputError

SHARED = Path(__file__).parents[4] / "shared" / "data"
SHAPE, SPACING = (19, 22, 31), (2.0, 1.5, 2.5)


def head(shape=SHAPE):
    """A lop-sided ellipsoid `[x, y, z]` with no symmetry, not negative."""
    rng = np.random.default_rng(0)
    axes = [np.linspace(-1.05, 1.05, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = x**2 + y**2 + z**2 < 1
    return (inside * (1 + 0.3 * x + 0.2 * y - 0.1 * z + 0.2 * rng.random(shape))).astype(
        np.float32)


def save(path, data, axes="RAS", spacing=SPACING, image_class=nibabel.Nifti1Image):
    """Write `data`, which is RAS, with its axes stored as the codes say."""
    image = image_class(data, np.diag([*spacing, 1.0]))
    wanted = nibabel.orientations.axcodes2ornt(axes)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), wanted))
    assert nibabel.aff2axcodes(turned.affine) == tuple(axes)
    nibabel.save(turned, path)
    return str(path)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save(tmp_path_factory.mktemp("volume") / "subject-1.nii.gz", head())


def bits(samples):
    return [np.asarray(array).tobytes() for sample in samples for array in sample]


def targets(dataset, name="all"):
    return np.stack([s.target for s in dataset.test[name][0].load()])


def check_contract(sample, coils, shape):
    assert sample.kspace.shape == sample.maps.shape == (coils, *shape)
    assert sample.target.shape == shape
    assert sample.kspace.dtype == sample.maps.dtype == np.complex64
    assert sample.target.dtype == np.float32
    assert sample.target.min() >= 0 and sample.target.max() <= 1
    np.testing.assert_allclose(np.sum(np.abs(sample.maps) ** 2, axis=0), 1, atol=1e-5)
    images = np.asarray(mri.ifft2c(sample.kspace))
    combined = np.abs(np.sum(np.conj(sample.maps) * images, axis=0))
    np.testing.assert_allclose(combined, sample.target, atol=1e-5)


@pytest.mark.parametrize("coils, matrix, orientation, shape", [
    (1, 0, "axial", (22, 19)),
    (4, 0, "coronal", (31, 19)),
    (2, 0, "sagittal", (31, 22)),
    (3, 37, "axial", (37, 37)),
    (1, 40, "coronal", (40, 40)),
])
def test_every_sample_keeps_the_contract(path, coils, matrix, orientation, shape):
    dataset = volume.make(path=path, coils=coils, matrix=matrix, orientation=orientation)
    for sample in dataset.draw(np.random.default_rng(0), 5):
        check_contract(sample, coils, shape)
    assert list(dataset.test) == ["held_out"]
    assert [v.name for v in dataset.test["held_out"]] == ["subject-1"]
    assert [v.name for v in dataset.validation] == ["subject-1_validation"]
    for loaded in (*dataset.test["held_out"], *dataset.validation):
        samples = loaded.load()
        assert len(samples) >= 1
        for sample in samples:
            check_contract(sample, coils, shape)
        assert bits(samples) == bits(loaded.load())


@pytest.mark.parametrize("axes", ["RAS", "LPI", "LAS", "ASL", "PIR", "SRA", "IPL"])
@pytest.mark.parametrize("orientation", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize("matrix", [0, 24])
def test_slices_do_not_depend_on_how_the_file_is_stored(tmp_path, path, axes, orientation,
                                                        matrix):
    options = {"orientation": orientation, "matrix": matrix, "split": False}
    expected = targets(volume.make(path=path, **options))
    stored = save(tmp_path / "turned.nii", head(), axes)
    np.testing.assert_allclose(targets(volume.make(path=stored, **options)), expected, atol=1e-6)


@pytest.mark.parametrize("orientation, upper, left, size", [
    ("axial", (4, 21), (18, 15), (22, 19)),
    ("coronal", (4, 30), (18, 20), (31, 19)),
    ("sagittal", (5, 30), (21, 20), (31, 22)),
])
def test_slices_are_displayed_as_a_radiologist_expects(tmp_path, orientation, upper, left, size):
    # bright voxels at the edge that is to be on top, half as bright ones at that on the left
    a, b = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}[orientation]
    data = np.full(SHAPE, 0.2, np.float32)
    for (i, j), value in ((upper, 1.0), (left, 0.5)):
        where = [slice(None)] * 3
        where[a], where[b] = i, j
        data[tuple(where)] = value
    images = targets(volume.make(path=save(tmp_path / "marks.nii", data),
                                 orientation=orientation, split=False))
    assert images.shape[1:] == size
    for image in images:
        assert np.argwhere(image == 1).tolist() == [[0, size[1] - 1 - upper[0]]]
        assert np.argwhere(image == 0.5).tolist() == [[size[0] - 1 - left[1], 0]]


def test_slices_come_in_anatomical_order(path):
    x, y, z = (volume.make(path=path, orientation=o, split=False)
               for o in ("sagittal", "coronal", "axial"))
    data = head() / head().max()
    np.testing.assert_allclose(targets(z)[:, ::-1, ::-1].transpose(2, 1, 0)[:, :, 5],
                               data[:, :, 5 + np.flatnonzero(_used(data, 2))[0]], atol=1e-6)
    assert len(targets(x)) == _used(data, 0).sum()
    assert len(targets(y)) == _used(data, 1).sum()


def _used(data, axis):
    other = tuple(a for a in range(3) if a != axis)
    areas = (data > slices.TISSUE_LEVEL * np.percentile(data[data > 0], 99)).sum(axis=other)
    return areas >= slices.TISSUE_SHARE * areas.max()


def test_slices_without_tissue_are_left_out(tmp_path):
    data = head((12, 12, 40))
    data[:, :, 20] = 0
    everything = targets(volume.make(path=save(tmp_path / "gap.nii", data), split=False))
    assert len(everything) == _used(data / data.max(), 2).sum() < 39
    assert (everything.max(axis=(1, 2)) > 0.3).all()


def test_the_regions_share_no_slice(path):
    everything = targets(volume.make(path=path, split=False))
    dataset = volume.make(path=path)

    def where(images):
        return {int(np.argmin(np.abs(everything - image).max(axis=(1, 2)))) for image in images}

    drawn = [s.target for s in dataset.draw(np.random.default_rng(0), 200)]
    train = where([min((t, t[:, ::-1]), key=lambda t: np.abs(everything - t).max(
        axis=(1, 2)).min()) for t in drawn])
    test = where(targets(dataset, "held_out"))
    validation = where(np.stack([s.target for s in dataset.validation[0].load()]))
    for a, b in ((train, test), (train, validation), (test, validation)):
        assert min(abs(i - j) for i in a for j in b) > 5 / SPACING[2]
    assert len(train) > len(test) >= len(validation) >= 1


def test_mirrored_only_where_a_mirrored_head_is_a_head(path):
    axial, sagittal = (volume.make(path=path, orientation=o) for o in ("axial", "sagittal"))
    for dataset, expected in ((axial, True), (sagittal, False)):
        drawn = dataset.draw(np.random.default_rng(0), 60)
        seen = {s.target.tobytes() for s in drawn}
        mirrored = {np.ascontiguousarray(s.target[:, ::-1]).tobytes() for s in drawn}
        assert bool(seen & mirrored) is expected


def test_draw_is_a_pure_function_of_its_generator(path):
    dataset = volume.make(path=path, coils=2)
    first = bits(dataset.draw(np.random.default_rng(5), 3))
    np.random.seed(1)
    assert bits(volume.make(path=path, coils=2).draw(np.random.default_rng(5), 3)) == first
    assert bits(dataset.draw(np.random.default_rng(6), 3)) != first
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(
            lambda seed: bits(dataset.draw(np.random.default_rng(seed), 3)), [5] * 16))
    assert together == [first] * 16


def test_all_slices_are_tested_without_a_split(path):
    dataset = volume.make(path=path, split=False)
    assert dataset.validation == [] and list(dataset.test) == ["all"]
    assert targets(dataset).max() == 1
    with pytest.raises(InputError, match="split=False every slice is for testing; set split=True"):
        dataset.draw(np.random.default_rng(0), 1)


def test_field_of_view_is_square_and_in_proportion(tmp_path):
    # a cylinder along z of radius 12 mm, on pixels of 3 x 1 mm
    x, y = np.mgrid[-10:11, -25:26]
    disc = ((3.0 * x) ** 2 + y**2 < 144).astype(np.float32)
    data = np.repeat(disc[:, :, None], 12, axis=2)
    stored = save(tmp_path / "cylinder.nii.gz", data, "ASL", (3.0, 1.0, 4.0))
    image = targets(volume.make(path=stored, matrix=63, split=False))[0]
    # pixels of 1 mm, since the longer side is 63 mm
    assert image.sum() == pytest.approx(3 * disc.sum(), rel=0.08)
    for axis in (0, 1):
        assert (image > 0.5).sum(axis=axis).max() == pytest.approx(22, abs=1.5)


@pytest.mark.parametrize("image_class", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_voxel_types(tmp_path, image_class, dtype):
    data = (200 * head()).astype(dtype)
    stored = save(tmp_path / "typed.nii.gz", data, image_class=image_class)
    dataset = volume.make(path=stored, split=False)
    assert targets(dataset).max() == 1
    assert dataset.test["all"][0].name == "typed"


def test_small_overshoot_and_a_trailing_axis_are_taken(tmp_path):
    data = head()
    data[data == 0] = -0.005 * data.max()
    stored = save(tmp_path / "overshoot.nii", data)
    assert targets(volume.make(path=stored, split=False)).min() == 0
    nibabel.save(nibabel.Nifti1Image(head()[..., None], np.eye(4)), tmp_path / "one.nii")
    dataset = volume.make(path=str(tmp_path / "one.nii"), split=False)
    assert targets(dataset).shape[1:] == (22, 19)


@pytest.mark.parametrize("split", [True, False])
def test_samples_cannot_be_spoilt_by_who_uses_them(path, split):
    dataset = volume.make(path=path, split=split)

    def everything():
        drawn = dataset.draw(np.random.default_rng(0), 30) if split else []
        return drawn + [sample for volumes in dataset.test.values() for sample in volumes[0].load()]

    before = bits(everything())
    for sample in everything():
        for array in (sample.kspace, sample.maps, sample.target):
            array[:] = 0
    assert bits(everything()) == before


def write(path, data, dtype=None):
    nibabel.save(nibabel.Nifti1Image(np.asarray(data, dtype), np.diag([2, 2, 2, 1.0])), path)


def with_value(value):
    data = head()
    data[3, 4, 5] = value
    return data


@pytest.mark.parametrize("data, match", [
    (np.ones((4, 5)), r"shape is \(4, 5.*expected one 3-D volume"),
    (np.ones((4, 5, 6, 3)), r"shape is \(4, 5, 6, 3\), expected one 3-D volume"),
    (with_value(np.nan), "1 voxels are NaN or infinite"),
    (with_value(-np.inf), "1 voxels are NaN or infinite"),
    (np.zeros(SHAPE), "every voxel is 0, expected an image"),
    (np.full(SHAPE, 7.0), "every voxel is 7, expected an image"),
    (-head(), "without negative values"),
    (head() - 0.5, "without negative values"),
    (head().astype(np.complex64), "voxels are complex64, expected real numbers"),
])
def test_unusable_contents_are_refused(tmp_path, data, match):
    write(tmp_path / "odd.nii.gz", data, data.dtype if data.dtype != float else np.float32)
    with pytest.raises(InputError, match=f"odd.nii.gz: .*{match}") as caught:
        volume.make(path=str(tmp_path / "odd.nii.gz"))
    assert "\n" not in str(caught.value)


def test_colors_are_refused(tmp_path):
    rgb = np.zeros((6, 6, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(rgb, np.eye(4)), tmp_path / "rgb.nii")
    with pytest.raises(InputError, match="rgb.nii: .*expected real numbers"):
        volume.make(path=str(tmp_path / "rgb.nii"))


def test_too_few_slices_to_split(tmp_path):
    stored = save(tmp_path / "thin.nii", head((16, 16, 7)), spacing=(1.0, 1.0, 2.0))
    with pytest.raises(InputError, match=r"thin.nii: \d slices .* too few .*at least 9 .*split=F"):
        volume.make(path=stored)
    assert len(targets(volume.make(path=stored, split=False))) <= 7


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0, 20, 200, 347, 360, 0.5, 0.99])
def test_files_cut_short(tmp_path, suffix, kept):
    whole = tmp_path / f"whole{suffix}"
    save(whole, head())
    content = whole.read_bytes()
    length = int(kept * len(content)) if isinstance(kept, float) else kept
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[:length])
    with pytest.raises(InputError, match=f"cut{suffix}: .*damaged.*download or export it again"):
        volume.make(path=str(cut))


def test_compressed_files_cut_before_compression(tmp_path):
    save(tmp_path / "whole.nii", head())
    content = (tmp_path / "whole.nii").read_bytes()
    (tmp_path / "cut.nii.gz").write_bytes(gzip.compress(content[:-5000]))
    with pytest.raises(InputError, match="cut.nii.gz: .*cut short or damaged"):
        volume.make(path=str(tmp_path / "cut.nii.gz"))


def test_files_that_are_not_nifti(tmp_path):
    for name, content in (("text.nii", b"hello " * 200), ("text.nii.gz", b"hello " * 200),
                          ("zipped.nii.gz", gzip.compress(b"hello " * 200))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name}: is cut short or damaged, or of another"):
            volume.make(path=str(tmp_path / name))
    (tmp_path / "image.png").write_bytes(b"")
    with pytest.raises(InputError, match="image.png: expected a name that ends with .nii, .nrrd"):
        volume.make(path=str(tmp_path / "image.png"))


def test_paths_that_cannot_be_opened(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="has no path"):
        volume.make()
    with pytest.raises(InputError, match="absent.nii: cannot be opened .No such file"):
        volume.make(path=str(tmp_path / "absent.nii"))
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(InputError, match="folder.nii: cannot be opened .Is a directory"):
        volume.make(path=str(tmp_path / "folder.nii"))
    locked = save(tmp_path / "locked.nii", head())
    if os.geteuid() == 0:  # root may read anything
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied", locked)

        monkeypatch.setattr(Path, "open", refuse)
    else:
        Path(locked).chmod(0)
    with pytest.raises(InputError, match="locked.nii: cannot be opened .Permission denied"):
        volume.make(path=locked)


def test_a_header_without_voxel_sizes(tmp_path):
    content = bytearray(Path(save(tmp_path / "flat.nii", head())).read_bytes())
    qform_code, row_x = slice(252, 254), slice(280, 284)
    content[qform_code] = bytes(2)
    content[row_x] = bytes(4)
    (tmp_path / "flat.nii").write_bytes(content)
    with pytest.raises(InputError, match="flat.nii: voxels of 0 x 1.5 x 2.5 mm, expected three"):
        volume.make(path=str(tmp_path / "flat.nii"))


@pytest.mark.parametrize("options, match", [
    ({"orientation": "oblique"}, "orientation is 'oblique', expected one of axial, coronal, sag"),
    ({"matrix": 5}, "matrix is 5, expected a whole number from 16 to 1024 or 0"),
    ({"coils": 0}, "coils is 0"),
])
def test_bad_options_are_refused(path, options, match):
    with pytest.raises(InputError, match=match):
        volume.make(path=path, **options)


def test_a_real_head():
    source = SHARED / "cstar_FLAIR.nii.gz"
    if not source.exists():
        pytest.skip("the volume is not here")
    dataset = volume.make(path=str(source), coils=2)
    for sample in (*dataset.draw(np.random.default_rng(0), 2), *dataset.validation[0].load()[:1]):
        check_contract(sample, 2, (160, 124))
    images = targets(dataset, "held_out")
    # the stroke is bright in FLAIR and in the left hemisphere: right of the image
    bright = images > 0.75 * images.max()
    assert bright[:, :, 62:].sum() > 1.5 * bright[:, :, :62].sum()
