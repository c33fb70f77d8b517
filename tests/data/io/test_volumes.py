import gzip
import itertools
import os
import struct
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from flatjax.data.io.volumes import (
    Raw,
    format_of,
    read_magnitude,
    read_oriented,
    read_volume,
    stem,
)
from flatjax.data.io.volumes.raw import known_grid
from flatjax.data.sets import volume
from flatjax.errors import InputError
from tests.support.volume_fixture import (
    SHAPE,
    SPACING,
    head,
    packed,
    write_minc1,
    write_minc2,
    write_nifti,
    write_nrrd,
    write_raw,
)

SHARED = Path(__file__).parents[4] / "shared" / "data"
NIBABEL = Path(nibabel.__file__).parent / "tests" / "data"
HEAD = np.round(200 * head()).astype(np.uint8)


def check(path, atol=0.0, expected=HEAD, spacing=SPACING, raw=None):
    found, size = read_volume(path, raw)
    assert found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, expected, atol=atol)
    assert size == pytest.approx(spacing)


@pytest.mark.parametrize("options", [
    {}, {"encoding": "raw"}, {"encoding": "bzip2"}, {"space": "right-anterior-superior"},
    {"space": "left-anterior-superior"}, {"stored": (2, 0, 1)}, {"stored": (1, 2, 0)},
    {"skip": b"12345"}, {"skip": b"12345", "encoding": "raw"},
    *({"encoding": encoding, "byte_skip": "-1", "skip": b"anything"}
      for encoding in ("raw", "gzip", "bzip2")),
    {"space": "", "space_directions": None, "spacings": "2 1.5 2.5"},
    {"kinds": None, "extra": "key:=value\nspace origin: (1,2,3)\nspace units: \"mm\" \"mm\""},
    {"dimension": "4", "sizes": "1 19 22 31", "space": "right-anterior-superior",
     "space_directions": "none (2,0,0) (0,1.5,0) (0,0,2.5)"},
])
def test_nrrd(tmp_path, options):
    check(write_nrrd(tmp_path / "head.nrrd", HEAD, **options))
    check(write_nrrd(tmp_path / "head.nrrd.gz", HEAD, **options))
    voxels = "voxels.raw.gz" if options.get("encoding", "gzip") == "gzip" else "voxels.raw"
    if voxels == "voxels.raw":
        check(write_nrrd(tmp_path / "head.nhdr", HEAD, beside=voxels, **options))


@pytest.mark.parametrize("encoding", ["raw", "gzip", "bzip2"])
def test_voxels_at_the_end_of_an_nrrd_are_those_that_pynrrd_reads(tmp_path, encoding):
    nrrd = pytest.importorskip("nrrd")
    path = write_nrrd(tmp_path / "head.nrrd", HEAD, encoding=encoding, byte_skip="-1",
                      skip=b"anything", space="right-anterior-superior")
    np.testing.assert_array_equal(read_volume(path)[0], nrrd.read(str(path))[0])


@pytest.mark.parametrize("write, name", [
    (write_nifti, "a.nii"), (write_nifti, "a.nii.gz"), (write_nrrd, "a.nrrd"),
    (write_minc1, "a.mnc"), (write_minc2, "a.mnc.gz")])
def test_names_in_capitals_are_read_too(tmp_path, write, name):
    path = write(tmp_path / name, HEAD)
    check(path.rename(tmp_path / name.upper()), atol=1)


@pytest.mark.parametrize("dtype", ["uint8", "<i2", ">i2", ">u2", "<i4", "<f4", ">f8"])
def test_nrrd_types(tmp_path, dtype):
    check(write_nrrd(tmp_path / "head.nrrd", HEAD.astype(dtype)))


def test_a_real_nrrd():
    file = SHARED / "brain1_t1ce.nrrd"
    if not file.exists():
        pytest.skip("the volume is not here")
    found, spacing = read_volume(file)
    assert found.shape == (256, 256, 25) and spacing == pytest.approx((0.78125, 0.78125, 6.5))
    content = file.read_bytes()
    stored = np.frombuffer(gzip.decompress(content[content.index(b"\n\n") + 2:]), "<i2")
    # left-posterior-superior, the second axis with a negative step: right to left, anterior up
    np.testing.assert_array_equal(found, stored.reshape(25, 256, 256).T[::-1])
    dataset = volume.make(path=str(file), split=False)
    assert dataset.test["all"][0].name == "brain1_t1ce"


@pytest.mark.parametrize("write", [write_minc1, write_minc2])
@pytest.mark.parametrize("options", [
    {}, {"per_slice": False}, {"dtype": "int16"}, {"dtype": "float32"}, {"dtype": "uint8"},
    {"axes": ("xspace", "zspace", "yspace")}, {"flipped": ("zspace", "xspace")},
])
def test_minc_is_read_as_nibabel_reads_it(tmp_path, write, options):
    path = write(tmp_path / "head.mnc", HEAD, **options)
    check(path, atol=0.6)
    image = nibabel.as_closest_canonical(nibabel.load(path))
    np.testing.assert_allclose(read_volume(path)[0], image.get_fdata(), atol=1e-4)
    check(write(tmp_path / "head.mnc.gz", HEAD, **options), atol=0.6)


@pytest.mark.parametrize("write", [write_minc1, write_minc2])
def test_minc_without_its_optional_fields(tmp_path, write):
    data = HEAD.copy()
    data[0, 0, :] = np.where(np.arange(31) % 2, 0, 255)  # each slice or the whole spans the type
    options = {"dtype": "uint8", "attributes": False}
    check(write(tmp_path / "head.mnc", data, **options), 0.6, data, (1.0, 1.0, 1.0))


@pytest.mark.parametrize("name", ["tiny.mnc", "small.mnc", "minc1-no-att.mnc", "minc1_1_scale.mnc",
                                  "minc2_1_scale.mnc", "minc2-no-att.mnc"])
def test_the_minc_files_of_nibabel(name):
    if not (NIBABEL / name).exists():
        pytest.skip("nibabel came without its test data")
    image = nibabel.as_closest_canonical(nibabel.load(NIBABEL / name))
    found, spacing = read_volume(NIBABEL / name)
    np.testing.assert_allclose(found, image.get_fdata(), rtol=1e-5, atol=1e-4)
    assert spacing == pytest.approx(nibabel.affines.voxel_sizes(image.affine))


@pytest.mark.parametrize("name", ["minc1_4d.mnc", "minc2_4d.mnc", "minc2-4d-d.mnc"])
def test_minc_of_several_volumes_is_refused(name):
    if not (NIBABEL / name).exists():
        pytest.skip("nibabel came without its test data")
    with pytest.raises(InputError, match=f"{name}: its shape is .*one 3-D volume"):
        read_volume(NIBABEL / name)


@pytest.mark.parametrize("dtype, order", [("uint8", "zyx"), ("int16", "zyx"), ("uint16", "xyz"),
                                          ("int16be", "yxz"), ("float32", "zxy")])
def test_raw_voxels_as_they_are_described(tmp_path, dtype, order):
    stored = np.dtype(dtype.removesuffix("be")).newbyteorder(">" if dtype[-2:] == "be" else "<")
    raw = Raw(SHAPE, dtype, order, SPACING)
    for name in ("head.raw", "head.raw.gz"):
        check(write_raw(tmp_path / name, HEAD, stored, order), raw=raw)
    turned = Raw(SHAPE, dtype, order.replace("y", "Y"), SPACING)
    check(tmp_path / "head.raw", raw=turned, expected=HEAD[:, ::-1])


def test_raw_voxels_as_their_name_says(tmp_path):
    one = (1.0, 1.0, 1.0)
    check(write_raw(tmp_path / "head_19x22x31_int16.raw", HEAD, "<i2"), spacing=one)
    check(write_raw(tmp_path / "head_19x22x31.rawb.gz", HEAD), spacing=one)
    check(write_raw(tmp_path / "head_19x22x31.raws", HEAD, "<i2"), spacing=one)
    check(write_raw(tmp_path / "a_19x22x31_uint16be.raw", HEAD, ">u2"), spacing=one)


@pytest.mark.parametrize("name, shape, spacing", [
    ("t1_icbm_normal_1mm_pn3_rf20.rawb", (181, 217, 181), (1, 1, 1)),
    ("T2_ICBM_normal_3mm_pn0_rf0.rawb.gz", (181, 217, 60), (1, 1, 3)),
    ("pd_ai_msles2_5mm_pn9_rf40.rawb.gz", (181, 217, 36), (1, 1, 5)),
    ("t1_icbm_normal_7mm_pn3_rf20.rawb.gz", (181, 217, 26), (1, 1, 7)),
    ("t1_icbm_normal_9mm_pn3_rf20.rawb.gz", (181, 217, 20), (1, 1, 9)),
    ("phantom_1.0mm_normal_crisp.rawb.gz", (181, 217, 181), (1, 1, 1)),
    ("subject04_crisp_v.rawb.gz", (362, 434, 362), (0.5, 0.5, 0.5)),
    ("subject54_t1w_p4.rawb.gz", (256, 256, 181), (1, 1, 1)),
])
def test_brainwebs_names_tell_the_grid(tmp_path, name, shape, spacing):
    assert known_grid(name) == (shape, spacing)
    if shape[2] == 20:
        content = np.zeros(shape[::-1], np.uint8)
        content[3, 4, 5] = 7  # z, y, x
        found, size = read_volume(packed(tmp_path / name, content.tobytes()))
        assert found.shape == shape and size == spacing
        assert np.argwhere(found).tolist() == [[5, 4, 3]]


def test_a_volume_of_any_format_is_a_data_set(tmp_path):
    expected = read_magnitude(write_nifti(tmp_path / "h.nii.gz", HEAD))[0]
    files = [write_nrrd(tmp_path / "h.nrrd", HEAD), write_minc1(tmp_path / "h.mnc.gz", HEAD),
             write_minc2(tmp_path / "g.MNC", HEAD), write_raw(tmp_path / "h.rawb", HEAD)]
    options = {"raw_shape": SHAPE, "raw_spacing": SPACING, "split": False}
    images = [np.stack([s.target for s in volume.make(path=str(file), **options).test["all"][0]
                        .load()]) for file in (tmp_path / "h.nii.gz", *files)]
    for image in images:
        np.testing.assert_allclose(image, images[0], atol=0.005)
    assert images[0].max() == expected.max() == 1


def test_names():
    assert format_of("a.b.NII.gz") == ".nii" and stem("a.b.NII.gz") == "a.b"
    assert format_of("a.gz") == format_of("a.png") == format_of("nii") == ""
    assert stem("phantom_1.0mm_normal_crisp.rawb.gz") == "phantom_1.0mm_normal_crisp"


@pytest.mark.parametrize("write, name", [
    (write_nifti, "a.nii"), (write_nifti, "a.nii.gz"), (write_nrrd, "a.nrrd"),
    (write_nrrd, "a.nrrd.gz"), (write_minc1, "a.mnc"), (write_minc1, "a.mnc.gz"),
    (write_minc2, "a.mnc"), (write_minc2, "a.mnc.gz"), (write_raw, "a_19x22x31.rawb"),
    (write_raw, "a_19x22x31.rawb.gz"),
])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.4, 0.97])
def test_files_cut_short(tmp_path, write, name, kept):
    content = write(tmp_path / name, HEAD).read_bytes()
    (tmp_path / name).write_bytes(content[:int(kept * len(content))])
    with pytest.raises(InputError, match=f"{name}: .*(again|under this name)") as caught:
        read_volume(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.nhdr", "a.mnc", "a.mnc.gz"])
@pytest.mark.parametrize("content", [b"hello " * 200, b"\x89HDF\r\n\x1a\n" + bytes(99),
                                     b"CDF\x01" + bytes(99), b"NRRD0004\n\n", b"NRRD0004\n" * 99])
def test_files_of_another_kind(tmp_path, name, content):
    packed(tmp_path / name, content)
    with pytest.raises(InputError, match=f"{name}: ") as caught:
        read_volume(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options, match", [
    ({"type": "block"}, "its voxels are of type 'block', .* expected real numbers"),
    ({"type": None}, "its voxels are of type ''"),
    ({"sizes": "19 22 -31"}, "shape is .19, 22, -31., expected one 3-D"),
    ({"sizes": "19 22"}, "space directions .* not those of 2 axes"),
    ({"sizes": "19 22 many"}, "sizes has '19 22 many', expected numbers"),
    ({"sizes": "19 22 31000000000"}, "holds 12958 bytes of voxels, expected 12958000000000"),
    ({"sizes": "19 22 32"}, "holds 12958 bytes of voxels, expected 13376"),
    ({"sizes": "3 19 22 31", "dimension": "4",
      "space_directions": "none (2,0,0) (0,1.5,0) (0,0,2.5)"}, "expected one 3-D volume"),
    ({"space": "left-posterior-superior-time"}, "its space is 'left-posterior-superior-time'"),
    ({"extra": 'space units: "mm" "um" "mm"'}, "its space units are um, expected mm"),
    ({"space_directions": "(1,0,0) (0,1,0)"}, "space directions .* not those of 3 axes"),
    ({"space_directions": "(1,0,0) (0,1,0) (0,0,0)"}, "voxels of 1 x 1 x 0 mm"),
    ({"space_directions": "(1,0,0) (1,0,0) (0,0,nan)"}, "voxels of 1 x 1 x nan mm"),
    ({"space_directions": "(1,0,0) (1,0,0) (0,0,1)"}, "three different directions"),
    ({"encoding": "ascii"}, "encoding 'ascii' .*expected real numbers, one of raw, gzip"),
    ({"byte_skip": "-2"}, "byte skip is -2, expected a whole number, or -1"),
    ({"byte_skip": "99999999999"}, "holds 0 bytes of voxels"),
    ({"data_file": "../../etc/passwd"}, "data file is '../../etc/passwd', expected the name of on"),
    ({"data_file": "/etc/passwd"}, "data file is '/etc/passwd', expected"),
    ({"data_file": "a%03d.raw 1 9 1"}, "data file is 'a%03d.raw 1 9 1', expected"),
    ({"data_file": "absent.raw"}, "data file is 'absent.raw', expected"),
])
def test_bad_nrrd_headers(tmp_path, options, match):
    path = write_nrrd(tmp_path / "bad.nrrd", HEAD, **options)
    with pytest.raises(InputError, match=f"bad.nrrd: .*{match}"):
        read_volume(path)


def test_nifti_that_does_not_tell_its_axes_is_taken_as_stored(tmp_path):
    data = np.random.default_rng(0).random((5, 6, 7)).astype(np.float32)
    image = nibabel.Nifti1Image(data, None)
    image.header.set_zooms((2.0, 1.5, 3.0))
    nibabel.save(image, tmp_path / "x.nii")
    found, affine, _axes, told = read_oriented(tmp_path / "x.nii")
    np.testing.assert_array_equal(found, data)
    np.testing.assert_array_equal(affine, np.diag([2.0, 1.5, 3.0, 1.0]))
    assert not told and read_oriented(write_nifti(tmp_path / "y.nii", data))[3]


@pytest.mark.parametrize("unit, factor", [("unknown", 1), ("mm", 1), ("micron", 1e-3),
                                          ("meter", 1e3)])
def test_nifti_in_other_units_is_placed_in_mm(tmp_path, unit, factor):
    """As ITK has it; nibabel gives the file's numbers."""
    affine = np.array([[2, 0, 0, 7], [0, 3, 0, -9], [0, 0, 5, 11], [0, 0, 0, 1]]) / factor
    image = nibabel.Nifti1Image(HEAD, affine)
    image.header.set_xyzt_units(unit, "msec")
    nibabel.save(image, tmp_path / "x.nii")
    np.testing.assert_allclose(read_oriented(tmp_path / "x.nii")[1][:3], affine[:3] * factor)


def test_nrrd_without_a_byte_order(tmp_path):
    path = write_nrrd(tmp_path / "bad.nrrd", HEAD.astype(np.int16), endian=None)
    with pytest.raises(InputError, match="bad.nrrd: .* endian '', expected .* little or big"):
        read_volume(path)


def test_declared_sizes_are_checked_before_memory_is_taken(tmp_path):
    path = write_nifti(tmp_path / "vast.nii", HEAD)
    content = bytearray(path.read_bytes())
    content[42:48] = struct.pack("<3h", 32000, 32000, 32000)
    for name in ("vast.nii", "vast.nii.gz"):
        with pytest.raises(InputError, match=f"{name}: its header declares 32768000000000 bytes"):
            read_volume(packed(tmp_path / name, bytes(content)))
    with h5py.File(tmp_path / "vast.mnc", "w") as file:
        image = file.create_dataset("minc-2.0/image/0/image", (9000, 9000, 9000), "u1", chunks=True)
        image.attrs["dimorder"] = np.bytes_("zspace,yspace,xspace")
    with pytest.raises(InputError, match="vast.mnc: .* takes 729000000000 bytes, more than"):
        read_volume(tmp_path / "vast.mnc")


def test_minc_voxels_in_another_file_are_refused(tmp_path):
    (tmp_path / "secret").write_bytes(bytes(60))
    with h5py.File(tmp_path / "a.mnc", "w") as file:
        image = file.create_dataset("minc-2.0/image/0/image", (3, 4, 5), "u1",
                                    external=[(str(tmp_path / "secret"), 0, 60)])
        image.attrs["dimorder"] = np.bytes_("zspace,yspace,xspace")
    with pytest.raises(InputError, match="a.mnc: minc-2.0/image/0/image lies in another file"):
        read_volume(tmp_path / "a.mnc")


def test_minc_with_parts_missing(tmp_path):
    with h5py.File(tmp_path / "a.mnc", "w") as file:
        file["image"] = 3
    with pytest.raises(InputError, match="a.mnc: has no dataset minc-2.0.*, only image"):
        read_volume(tmp_path / "a.mnc")
    write_minc2(tmp_path / "b.mnc", HEAD)
    with h5py.File(tmp_path / "b.mnc", "r+") as file:
        file["minc-2.0/dimensions/yspace"].attrs["spacing"] = np.bytes_("irregular")
    with pytest.raises(InputError, match="b.mnc: .*Irregular spacing not supported"):
        read_volume(tmp_path / "b.mnc")


@pytest.mark.parametrize("raw, name, match", [
    (Raw(), "a.raw", "has no header, and its name does not tell its shape and dtype; set data.raw"),
    (Raw(SHAPE), "a.raw", "does not tell its shape and dtype; set"),
    (Raw(SHAPE, "int16"), "a.raw", "holds 12958 bytes of voxels, expected 25916"),
    (Raw((19, 22, 30), "uint8"), "a.raw", "holds more than 12540 bytes, expected that many for"),
    (Raw((19, 22), "uint8"), "a.raw", r"raw_shape is \(19, 22\), .* expected three whole numbers"),
    (Raw((19, 22, 0), "uint8"), "a.raw", r"raw_shape is \(19, 22, 0\)"),
    (Raw(SHAPE, "object"), "a.raw", "raw_dtype 'object', .* one of uint8"),
    (Raw(SHAPE, "uint8", "zzx"), "a.raw", "raw_order 'zzx'"),
    (Raw(SHAPE, "uint8", "zyx", (1, 1, 0)), "a.raw", r"raw_spacing \(1, 1, 0\)"),
    (Raw((99999, 99999, 99999)), "a.rawb.gz", "holds .* bytes of voxels, expected 999970000299999"),
])
def test_raw_voxels_that_are_not_as_described(tmp_path, raw, name, match):
    path = write_raw(tmp_path / name, HEAD)
    with pytest.raises(InputError, match=match):
        read_volume(path, raw)


@pytest.mark.parametrize("write, name", [
    (write_nrrd, "a.nrrd"), (write_minc1, "a.mnc"), (write_minc2, "a.mnc")])
@pytest.mark.parametrize("fill, match", [
    (np.nan, "voxels are NaN or infinite"), (0, "every voxel is 0, expected an image"),
    (-1, "without negative values")])
def test_contents_that_are_no_image(tmp_path, write, name, fill, match):
    data = head()
    data[:, 3:9] = fill
    options = {} if write is write_nrrd else {"dtype": "float32"}
    path = write(tmp_path / name, 0 * data if fill == 0 else data, **options)
    with pytest.raises(InputError, match=f"{name}: .*{match}"):
        read_magnitude(path)


@pytest.mark.parametrize("name", ["a.nrrd", "a.mnc", "a.rawb"])
def test_paths_that_cannot_be_opened(tmp_path, monkeypatch, name):
    with pytest.raises(InputError, match=f"{name}: cannot be opened .No such file"):
        read_volume(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=f"{name}: cannot be opened .Is a directory"):
        read_volume(tmp_path / name)
    locked = tmp_path / f"locked-{name}"
    locked.write_bytes(b"")
    if os.geteuid() == 0:  # root may read anything
        def refuse(*_, **__):
            raise PermissionError(13, "Permission denied", str(locked))

        monkeypatch.setattr(Path, "open", refuse)
    else:
        locked.chmod(0)
    with pytest.raises(InputError, match=f"locked-{name}: cannot be opened .Permission denied"):
        read_volume(locked)


def test_volumes_are_placed_as_nibabel_places_them(tmp_path):
    turn = np.array([[0.1, -2.0, 0.2], [-1.4, 0.1, 0.1], [0.1, 0.2, 2.5]])
    image = nibabel.Nifti1Image(HEAD, np.block([[turn, np.array([[3], [-4], [5]])],
                                                [np.zeros((1, 3)), 1]]))
    nibabel.save(image, tmp_path / "head.nii")
    paths = [tmp_path / "head.nii", NIBABEL / "tiny.mnc", NIBABEL / "minc2_1_scale.mnc"]
    for path in filter(Path.exists, paths):
        canonical = nibabel.as_closest_canonical(nibabel.load(path))
        voxels, affine, *_ = read_oriented(path)
        np.testing.assert_allclose(affine, canonical.affine, atol=1e-4)
        assert voxels.shape == canonical.shape


@pytest.mark.parametrize("origin, position", [("(1,2,3)", (-1, -2, 3)),
                                              ("(nan,nan,nan)", (0, 0, 0))])
def test_an_nrrd_is_placed_by_its_origin(tmp_path, origin, position):
    path = write_nrrd(tmp_path / "head.nrrd", HEAD, extra=f"space origin: {origin}")
    _voxels, affine, *_ = read_oriented(path)
    stored = np.abs(affine[:3, :3]).max(axis=0)
    np.testing.assert_allclose(stored, SPACING)
    corners = [affine @ [*np.array(at) * (np.array(HEAD.shape) - 1), 1]
               for at in itertools.product((0, 1), repeat=3)]
    assert any(np.allclose(corner[:3], position) for corner in corners)
    with pytest.raises(InputError, match="space origin .1.0, 2.0."):
        read_oriented(write_nrrd(tmp_path / "head.nrrd", HEAD, extra="space origin: (1,2)"))


@pytest.mark.parametrize("write, name, options", [
    (write_nifti, "a.nii", {}), (write_nifti, "a.nii.gz", {}),
    (write_nrrd, "a.nrrd", {"encoding": "raw"}), (write_nrrd, "a.nrrd", {}),
    (write_minc1, "a.mnc", {}), (write_minc2, "a.mnc", {"chunks": True, "compression": "gzip"}),
])
def test_spoilt_bytes_are_read_or_refused_in_one_line(tmp_path, capfd, write, name, options):
    content = write(tmp_path / name, HEAD[:7, :8, :9], **options).read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        spoilt = bytearray(content)
        for at in rng.integers(min(len(spoilt), 3000), size=3):
            spoilt[at] = rng.choice([0, 1, 127, 128, 255, spoilt[at] ^ 4])
        (tmp_path / name).write_bytes(spoilt)
        try:
            assert read_volume(tmp_path / name)[0].ndim == 3
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and str(error).startswith(str(tmp_path / name))
    assert refused > 0
    assert capfd.readouterr().err == ""
