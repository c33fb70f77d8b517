"""Readers of users' k-space: what was written comes back, and one line for what is broken."""

import io
import itertools
import os
import pickle
import shutil
import subprocess
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from flatjax.data.io.kspace import (
    find_scans,
    open_maps,
    open_mask,
    open_scan,
    slice_with_signal,
)
from flatjax.errors import InputError
from flatjax.mri.host.simulate import host_ifft2c
from tests.support import fastmri_fixture
from tests.support.kspace_fixture import (
    LINES,
    RECON,
    SHAPE,
    bart_order,
    calibrated,
    ismrmrd_kspace,
    kspace,
    write_cfl,
    write_ismrmrd,
    write_matlab,
)


def read(scan):
    return np.stack(list(scan.read(range(scan.shape[0]))))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("packed", ["npy", "npz", "npz compressed"])
def test_arrays_come_back_slice_by_slice(tmp_path, order, dtype, packed):
    values = np.asarray(kspace(), dtype, order=order)
    path = tmp_path / f"scan.{packed[:3]}"
    if packed == "npy":
        np.save(path, values)
    else:
        (np.savez_compressed if "compressed" in packed else np.savez)(path, kspace=values)
    scan = open_scan(path)
    assert scan.shape == SHAPE and scan.name == "scan"
    np.testing.assert_array_equal(read(scan), values.astype(np.complex64))
    one, = scan.read([2])
    np.testing.assert_array_equal(one, values[2])
    assert one.dtype == np.complex64


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("order", ["C", "F"])
def test_fewer_axes_are_one_slice_and_one_coil(tmp_path, axes, order):
    values = np.asarray(kspace()[0, 0] if axes == 2 else kspace()[0], order=order)
    np.save(tmp_path / "scan.npy", values)
    scan = open_scan(tmp_path / "scan.npy")
    assert scan.shape == (1, *(1, 2)[axes - 2:axes - 1], *SHAPE[2:])
    np.testing.assert_array_equal(read(scan)[0], values.reshape(scan.shape[1:]))


def test_an_archive_brings_mask_maps_and_affine(tmp_path):
    maps, mask = kspace(1)[0], np.arange(12) % 3 == 0
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    np.savez(tmp_path / "scan.npz", kspace=kspace(), mask=mask, maps=maps, affine=affine)
    scan = open_scan(tmp_path / "scan.npz")
    np.testing.assert_array_equal(scan.mask, mask[None].astype(np.float32))
    for one in scan.maps(range(3)):
        np.testing.assert_array_equal(one, maps)
    np.testing.assert_array_equal(scan.affine, affine)
    assert scan.spacing == (2.0, 3.0, 4.0) and scan.missing == ()
    np.testing.assert_array_equal(open_mask(tmp_path / "scan.npz", SHAPE[2:]), scan.mask)
    reader = open_maps(tmp_path / "scan.npz", SHAPE)
    np.testing.assert_array_equal(next(reader([2])), maps)
    with pytest.raises(InputError, match="take the maps of this scan"):
        open_maps(tmp_path / "scan.npz", (3, 4, 10, 12))


def test_bart_comes_back(tmp_path):
    values = kspace()
    array = bart_order(values)
    path = write_cfl(tmp_path / "scan.cfl", array, array.shape)
    for name in (path, path.with_suffix(".hdr")):
        scan = open_scan(name)
        assert scan.shape == SHAPE
        np.testing.assert_array_equal(read(scan), values)
    np.testing.assert_array_equal(next(open_maps(path, SHAPE)([1])), values[1])
    # a header may be shorter than sixteen
    short = write_cfl(tmp_path / "short.cfl", array[..., 0, 0, 0], (10, 12, 1, 2))
    np.testing.assert_array_equal(read(open_scan(short))[0], values[0])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_bart_may_have_any_two_of_its_three_axes_in_space(tmp_path, axis):
    values = kspace()
    array = bart_order(values)[:, :, 0]
    array = np.expand_dims(array, axis)
    scan = open_scan(write_cfl(tmp_path / "scan.cfl", array, array.shape))
    np.testing.assert_array_equal(read(scan), values)


def test_a_3d_scan_of_bart_becomes_slices_along_its_readout(tmp_path):
    array = kspace(shape=(20, 4, 16, 24)).T[:, :, None].swapaxes(2, 4)[..., 0]  # x, y, z, coil
    path = write_cfl(tmp_path / "scan.cfl", array, array.shape)
    scan = open_scan(path)
    assert scan.shape == (24, 4, 20, 16)
    if not shutil.which("bart"):
        pytest.skip("bart is not installed")
    subprocess.run(["bart", "fft", "-u", "-i", "7", "scan", "whole"], cwd=tmp_path, check=True)
    whole = np.fromfile(tmp_path / "whole.cfl", "<c8").reshape(4, 20, 16, 24)  # coil, z, y, x
    np.testing.assert_allclose(host_ifft2c(read(scan)), whole.transpose(3, 0, 1, 2), atol=1e-4)


def test_echoes_and_times_of_bart_are_frames(tmp_path):
    values = kspace(shape=(5, 2, 10, 12))
    for axis in (5, 10):
        array = bart_order(values).swapaxes(axis, 13)
        scan = open_scan(write_cfl(tmp_path / "scan.cfl", array, array.shape))
        assert scan.frames == 5 and scan.shape == values.shape
        np.testing.assert_array_equal(read(scan), values)


def test_hdf5_without_a_header_is_read_as_an_archive_of_arrays(tmp_path):
    values, mask = kspace(), np.arange(12) % 3 == 0
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["kspace"], file["mask"], file["affine"] = values, mask, np.diag([2.0, 3.0, 4.0, 1.0])
    scan = open_scan(tmp_path / "scan.h5")
    np.testing.assert_array_equal(read(scan), values)
    np.testing.assert_array_equal(scan.mask, mask[None])
    assert scan.spacing == (2.0, 3.0, 4.0) and scan.missing == ("maps",)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 1, 0)])
@pytest.mark.parametrize("axes", [2, 3, 4])
@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_matlab_files_are_read_in_the_order_of_numpy_or_of_matlab(tmp_path, order, axes, dtype):
    values = kspace().astype(dtype)
    stored = values.transpose(order)
    if axes < 4:
        stored = values[0].transpose([axis - 1 for axis in order if axis > 0])
    stored = values[0, 0] if axes == 2 else stored
    mask = np.arange(10)[:, None] % 2
    scan = open_scan(write_matlab(tmp_path / "scan.mat", kspace=stored, mask=mask))
    whole = values if axes == 4 else values[:1] if axes == 3 else values[:1, :1]
    np.testing.assert_allclose(read(scan), whole, rtol=1e-6)
    np.testing.assert_array_equal(scan.mask, np.broadcast_to(mask, (10, 12)))
    with pytest.raises(InputError, match="of which 12 or 12 may be coils"):
        open_scan(write_matlab(tmp_path / "scan.mat", kspace=np.zeros((12, 12, 12), complex)))
    with pytest.raises(InputError, match="has no array kspace, only data; name"):
        open_scan(write_matlab(tmp_path / "scan.mat", data=stored))


def test_a_mask_of_rows_is_one_of_lines(tmp_path):
    rows = np.arange(10)[:, None] % 2
    np.save(tmp_path / "mask.npy", rows)
    mask = open_mask(tmp_path / "mask.npy", (10, 12))
    np.testing.assert_array_equal(mask, np.broadcast_to(rows, (10, 12)))


def test_names_in_capitals_are_read_too(tmp_path):
    values, array = kspace(), bart_order(kspace())
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", kspace=values, mask=np.ones(12), maps=values)
    write_cfl(tmp_path / "c.cfl", array, array.shape)
    with h5py.File(tmp_path / "d.hdf5", "w") as file:
        file["kspace"] = values
    write_matlab(tmp_path / "e.mat", kspace=values)
    for file in sorted(tmp_path.iterdir()):
        file.rename(file.with_suffix(file.suffix.upper()))
    files = find_scans([tmp_path])
    assert [file.name for file in files] == ["a.NPY", "b.NPZ", "c.CFL", "d.HDF5", "e.MAT"]
    for file in [*files, tmp_path / "c.HDR"]:
        np.testing.assert_array_equal(read(open_scan(file)), values)
    assert open_mask(tmp_path / "b.NPZ", (10, 12)).all()
    for name in ("a.NPY", "b.NPZ", "c.CFL"):
        np.testing.assert_array_equal(next(open_maps(tmp_path / name, SHAPE)([1])), values[1])


def test_fastmri_files_open_on_their_own(tmp_path):
    mask = np.arange(36) % 4 == 0
    mask[14:22] = True
    fastmri_fixture.write(tmp_path / "file1.h5", coils=3, padding=(3, 34), mask=mask)
    scan = open_scan(tmp_path / "file1.h5")
    assert scan.shape == (3, 3, 40, 36) and scan.crop == (24, 24)
    assert scan.spacing == pytest.approx((162.4 / 36, 280 / 40, 4.5)) and scan.affine is None
    with h5py.File(tmp_path / "file1.h5") as file:
        np.testing.assert_array_equal(read(scan), file["kspace"][:])
    assert scan.mask.shape == (1, 36) and scan.mask[0, 0] == 0 == scan.mask[0, 34:].sum()
    assert scan.facts == {"acquisition": "CORPD_FBK", "patient_id": "p0", "acceleration": "4"}
    fastmri_fixture.write(tmp_path / "file2.h5", with_reference=False, attributes=False)
    scan = open_scan(tmp_path / "file2.h5")
    assert scan.shape == (3, 1, 40, 36) and scan.mask is None and scan.crop == (24, 24)
    assert set(scan.missing) == {"acquisition", "patient_id", "reference", "mask"}


def test_ismrmrd_comes_back_as_its_library_wrote_it(tmp_path):
    values = ismrmrd_kspace()
    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", values))
    assert scan.shape == values.shape and scan.crop == RECON
    np.testing.assert_allclose(read(scan), values, rtol=1e-6)
    assert scan.facts == {"protocol": "T2 & more"} and len(scan.missing) == 1
    assert scan.spacing == (3.0, 2.0, 6.0)
    # The center pixel of the cropped image lies at the position of the slice, in RAS.
    for s in range(3):
        np.testing.assert_allclose(scan.affine @ [5, 5, s, 1], [-5, 7, 11 - 6 * s, 1], atol=1e-5)
    # One row down is a step along the readout, one column right along the phase encoding.
    np.testing.assert_allclose(scan.affine @ [0, 1, 0, 0], [0, -2, 0, 0], atol=1e-6)
    np.testing.assert_allclose(scan.affine @ [1, 0, 0, 0], [-3, 0, 0, 0], atol=1e-6)
    scan = open_scan(write_ismrmrd(tmp_path / "scan.h5", values, directions=False))
    assert scan.affine is None and scan.spacing == (3.0, 2.0, 5.0)
    assert scan.missing == ("affine", "noise scan")
    assert scan.doubts[0] == "has no affine: no directions or field of view"


def test_ismrmrd_averages_repeats_and_takes_embedded_calibration_where_nothing_else_is(tmp_path):
    values = ismrmrd_kspace()

    factors = itertools.cycle([1.5, 0.5])  # the same line twice, as far off either way

    def change(one):
        one.data[:] = one.data * next(factors)

    lines = [line for line in range(LINES) for _ in range(2)]
    path = write_ismrmrd(tmp_path / "scan.h5", values, lines=lines, change=change, slices=[0])
    np.testing.assert_allclose(read(open_scan(path))[0], values[0], rtol=1e-5)
    # calibration alone fills line 5; beside the imaging line 0 it is not mixed in
    path = write_ismrmrd(tmp_path / "scan.h5", values,
                         flags={5: ["ACQ_IS_PARALLEL_CALIBRATION"]}, slices=[0],
                         edit=calibrated("embedded"))
    np.testing.assert_allclose(read(open_scan(path))[0], values[0], rtol=1e-6)
    seen = []

    def calibrate_again(one):
        seen.append(one.idx.kspace_encode_step_1)
        if seen.count(5) == 2 and seen[-1] == 5:
            one.set_flag(20)
            one.data[:] = 99

    path = write_ismrmrd(tmp_path / "scan.h5", values, change=calibrate_again, slices=[0],
                         lines=[0, 1, 2, 3, 4, 5, 5, 6, 7, 8], edit=calibrated("interleaved"))
    np.testing.assert_allclose(read(open_scan(path))[0], values[0], rtol=1e-6)


@pytest.mark.parametrize("case, message", [
    ("spiral", "trajectory is 'spiral', expected 'cartesian'"),
    ("reversed", "has reversed readouts"),
    ("3-D", "encodes along kspace_encode_step_2"),
    ("channels", "channels of at least"),
    ("beyond", "lines .* do not fit the encoded matrix"),
    ("no header", "has no dataset dataset/xml"),
    ("hostile", "dataset/xml declares a document type"),
    ("malformed", "dataset/xml is not well-formed"),
    ("images", "has no dataset dataset/data"),
    ("nan", "values that are NaN"),
    ("noise only", "none of 28 readouts is of an image"),
])
def test_broken_ismrmrd_is_refused_in_one_line(tmp_path, case, message):
    path = tmp_path / "scan.h5"
    values = ismrmrd_kspace()
    options = {
        "spiral": {"trajectory": "spiral"},
        "reversed": {"flags": {3: ["ACQ_IS_REVERSE"]}},
        "3-D": {"change": lambda one: setattr(one.idx, "kspace_encode_step_2",
                                              one.idx.kspace_encode_step_1)},
        "beyond": {"shift": 3},
        "noise only": {"flags": {n: ["ACQ_IS_NOISE_MEASUREMENT"] for n in range(LINES)}},
        "nan": {"change": lambda one: one.data.fill(np.nan)},
    }.get(case, {})
    if case == "beyond":
        options = {"change": lambda one: setattr(one.idx, "kspace_encode_step_1", 40)}
    write_ismrmrd(path, values, **options)
    with h5py.File(path, "a") as file:
        if case in ("no header", "hostile", "malformed"):
            text = file["dataset/xml"][0]
            del file["dataset/xml"]
            if case != "no header":
                new = b"<!DOCTYPE a [<!ENTITY b 'c'>]>" + text if case == "hostile" else text[:-9]
                file["dataset"].create_dataset("xml", data=[new], dtype=h5py.string_dtype())
        elif case == "images":
            del file["dataset/data"]
        elif case == "channels":
            row = file["dataset/data"][3]
            row["data"] = row["data"][:-8]
            file["dataset/data"][3] = row
    with pytest.raises(InputError, match=message) as caught:
        read(open_scan(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


class Evil:
    """Unpickling it would leave a file behind."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def broken(tmp_path, case):
    """A file that is broken in one way."""
    path = tmp_path / "scan.npy"
    good = kspace()
    arrays = {"rank 1": good[0, 0, 0], "rank 5": good[None], "real": np.abs(good),
              "real pairs": good.view(np.float32).reshape(*SHAPE, 2),
              "empty": good[:0], "zero": np.zeros_like(good)}
    with_nan = good.copy()
    with_nan[1, 0, 2, 3] = np.nan
    arrays["nan"], arrays["inf"] = with_nan, np.where(np.isnan(with_nan), np.inf, good)
    arrays["range"] = good.astype(np.complex128) * 1e300
    if case in arrays:
        np.save(path, arrays[case])
    elif case == "pickled":
        np.save(path, np.array([Evil(tmp_path / "run")], object), allow_pickle=True)
    elif case == "a pickle":
        path.write_bytes(pickle.dumps(Evil(tmp_path / "run")))
    elif case == "cut short":
        np.save(path, good)
        path.write_bytes(path.read_bytes()[:-100])
    elif case == "cut in its header":
        np.save(path, good)
        path.write_bytes(path.read_bytes()[:50])
    elif case == "nothing":
        path.write_bytes(b"")
    elif case == "huge":
        np.save(path, good)
        path.write_bytes(path.read_bytes().replace(b"(3, 2, 10, 12)", b"(30000, 20000, 10, 12)"))
    elif case == "pickled in npz":
        path = tmp_path / "scan.npz"
        np.savez(path, kspace=np.array([Evil(tmp_path / "run")], object), allow_pickle=True)
    elif case == "huge in npz":
        path = tmp_path / "scan.npz"
        member = io.BytesIO()
        np.save(member, good)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("kspace.npy", member.getvalue().replace(
                b"(3, 2, 10, 12)", b"(30000, 20000, 10, 12)"))
    elif case in ("npz cut short", "not a zip", "npz without kspace", "npz mask", "npz maps",
                  "npz mask values", "npz affine"):
        path = tmp_path / "scan.npz"
        extra = {"npz mask": {"mask": np.ones(13)}, "npz maps": {"maps": good[:, :1]},
                 "npz mask values": {"mask": np.full(12, 2.0)},
                 "npz affine": {"affine": np.zeros((4, 4))}}.get(case, {})
        np.savez(path, **{"k" if "without" in case else "kspace": good}, **extra)
        if case == "npz cut short":
            path.write_bytes(path.read_bytes()[:-100])
        elif case == "not a zip":
            path.write_bytes(b"PK" * 50)
    elif case.startswith("cfl"):
        array = bart_order(good)
        path = write_cfl(tmp_path / "scan.cfl", array, array.shape)
        header = path.with_suffix(".hdr")
        if case == "cfl cut short":
            path.write_bytes(path.read_bytes()[:-8])
        elif case == "cfl without header":
            header.unlink()
        elif case == "cfl words":
            header.write_text("# Dimensions\nten twelve\n")
        elif case == "cfl huge":
            header.write_text("# Dimensions\n99999 99999 1 99999\n")
        elif case == "cfl 3-D":
            header.write_text("# Dimensions\n10 12 1 1 1 2 1 1 1 1 3\n")
        elif case == "cfl empty header":
            header.write_text("")
    elif case.startswith("h5"):
        path = tmp_path / "scan.h5"
        fastmri_fixture.write(path, kspace={"h5 rank": good[:, :, 0, 0], "h5 header": good[0]}.get(
            case, good),
                              **{"ismrmrd_header": None} if case == "h5 header" else {},
                              with_reference=False, shape=SHAPE[2:], crop=(8, 8))
        if case == "h5 cut short":
            path.write_bytes(path.read_bytes()[:2000])
        elif case == "h5 is text":
            path.write_text("kspace")
        elif case == "h5 other":
            with h5py.File(path, "w") as file:
                file["image"] = np.ones(3)
    elif case == "missing":
        path = tmp_path / "none.npy"
    elif case == "folder":
        path.mkdir()
    elif case == "suffix":
        path = tmp_path / "scan.raw2"
        path.write_bytes(b"raw")
    elif case == "old MATLAB":
        path = tmp_path / "scan.mat"
        scipy.io.savemat(path, {"kspace": good})
    elif case == "unreadable":
        np.save(path, good)
    return path


@pytest.mark.parametrize("case, message", [
    ("rank 1", r"shape \(12,\), expected \[ky, kx\]"),
    ("rank 5", r"shape \(1, 3, 2, 10, 12\), expected"),
    ("real", "is float32, expected complex"),
    ("real pairs", r"for real and imaginary parts a and b save a \+ 1j"),
    ("empty", "without a zero"),
    ("zero", "kspace is zero in every slice"),
    ("nan", "slice 1 of the array has 1 values that are NaN or infinite"),
    ("inf", "slice 1 of the array has 1 values that are NaN or infinite"),
    ("range", "are NaN or infinite"),
    ("pickled", "holds pickled Python objects"),
    ("a pickle", "is cut short or damaged, or of another format"),
    ("cut short", "cut short or damaged"),
    ("cut in its header", "cut short or damaged"),
    ("nothing", "is cut short or damaged, or of another format"),
    ("huge", "takes 576000000128 bytes, but there are 5896"),
    ("pickled in npz", "kspace holds pickled Python objects"),
    ("huge in npz", "takes 576000000128 bytes, but there are 5896"),
    ("npz cut short", "cut short or damaged"),
    ("not a zip", "is cut short or damaged, or of another format"),
    ("npz without kspace", "has no array kspace, only k"),
    ("npz mask", r"mask has shape \(13,\), expected \(10, 12\) or \(1, 12\) or \(12,\)"),
    ("npz maps", r"maps have shape \(3, 1, 10, 12\), expected"),
    ("npz mask values", "mask has values from 2 to 2"),
    ("npz affine", "affine cannot be inverted"),
    ("cfl cut short", "has 5752 bytes, but its header declares 5760"),
    ("cfl without header", "scan.hdr: cannot be opened"),
    ("cfl words", "scan.hdr: is cut short or damaged"),
    ("cfl empty header", "scan.hdr: is cut short or damaged"),
    ("cfl huge", "has 5760 bytes, but its header declares 79997600"),
    ("cfl 3-D", "has axes ky, kx, frame, frame, expected"),
    ("h5 rank", "kspace is complex64 of shape"),
    ("h5 header", "there is no ismrmrd_header, so the first axis may be slices or coils"),
    ("h5 cut short", "cut short or damaged"),
    ("h5 is text", "cut short or damaged"),
    ("h5 other", "has neither a dataset kspace"),
    ("missing", "cannot be opened .No such file"),
    ("folder", "cannot be opened .Is a directory"),
    ("suffix", "unknown format '.raw2', expected"),
    ("old MATLAB", "is not of MATLAB 7.3; save it with"),
    ("unreadable", "cannot be opened .Permission denied"),
])
def test_broken_files_are_refused_in_one_line(tmp_path, monkeypatch, case, message):
    path = broken(tmp_path, case)
    if case == "unreadable":  # root may read everything, so it is not chmod that forbids
        def forbidden(*args, **kwargs):
            raise PermissionError(13, "Permission denied")
        monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(InputError, match=message) as caught:
        scan = open_scan(path)
        slice_with_signal(scan)
        read(scan)
    assert str(path.with_suffix("")) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_folders_give_their_files_by_name(tmp_path):
    for name in ("b.npy", "a.npz", "c.txt", ".hidden.npy"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in find_scans([tmp_path])] == ["a.npz", "b.npy"]
    assert find_scans([tmp_path / "c.txt"]) == [tmp_path / "c.txt"]
    with pytest.raises(InputError, match="any.npy: no such file or folder"):
        find_scans([tmp_path / "any.npy"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no file named .npy"):
        find_scans([tmp_path / "empty"])


@pytest.mark.parametrize("values", [np.ones((2, 3, 4)), np.full(12, 0.5), np.zeros(12),
                                    np.ones(12, np.complex64)])
def test_masks_are_of_zeros_and_ones(tmp_path, values):
    np.save(tmp_path / "mask.npy", values)
    with pytest.raises(InputError, match="mask.npy: the array"):
        open_mask(tmp_path / "mask.npy", (10, 12))
    with pytest.raises(InputError, match="expected a mask as .npy or .npz"):
        open_mask(tmp_path / "mask.txt", (10, 12))


def test_all_zero_slices_are_accepted_beside_others(tmp_path):
    values = kspace()
    values[1] = 0
    np.save(tmp_path / "scan.npy", values)
    index, one = slice_with_signal(open_scan(tmp_path / "scan.npy"))
    assert index in (0, 2) and one.any()


@pytest.mark.parametrize("axes, shape", [
    (("slice", "ky", "kx"), (3, 1, 10, 12)), (("kx", "coil", "ky", "frame"), (5, 2, 10, 12)),
    (("frame", "slice", "coil", "ky", "kx"), (15, 2, 10, 12)),
    (("coil", "ky", "kx", "kz"), (10, 2, 6, 12)), (("kz", "kx", "ky", "frame"), (50, 1, 6, 12))])
@pytest.mark.parametrize("suffix", ["npy", "npz", "h5"])
def test_axes_may_be_named(tmp_path, axes, shape, suffix):
    sizes = {"frame": 5, "slice": 3, "kz": 6, "coil": 2, "ky": 10, "kx": 12}
    values = kspace(4, tuple(sizes[name] for name in axes))
    path = tmp_path / f"scan.{suffix}"
    if suffix == "npy":
        np.save(path, values)
    elif suffix == "npz":
        np.savez(path, GRE=values, kspace=values[0])
    else:
        with h5py.File(path, "w") as file:
            file["GRE"] = values
    scan = open_scan(path, array="GRE" * (suffix != "npy"), axes=",".join(axes))
    assert scan.name == "scan" + "_GRE" * (suffix != "npy") and scan.shape == shape
    assert scan.frames == (5 if "frame" in axes else 1)
    order = [name for name in ("frame", "slice", "kz", "coil", "ky", "kx") if name in axes]
    expected = np.einsum(values, [axes.index(name) for name in axes],
                         [axes.index(name) for name in order])
    if "kz" in axes:
        expected = np.fft.fftshift(np.fft.ifft(np.fft.ifftshift(expected, axes=-2), axis=-2,
                                               norm="ortho"), axes=-2)
        expected = np.moveaxis(expected, (order.index("ky"), order.index("kz")),
                               (-3 - ("coil" in axes), -2))
    np.testing.assert_allclose(read(scan), expected.reshape(shape), atol=1e-5)
    np.testing.assert_allclose(next(scan.read([shape[0] - 1])), read(scan)[-1], atol=1e-5)


def test_partitions_are_not_taken_for_slices(tmp_path):
    volume = np.hanning(18)[1:-1, None, None, None] * np.ones((16, 2, 10, 12))
    values = np.fft.fftshift(np.fft.fftn(volume, axes=(0, 2, 3), norm="ortho"), axes=(0, 2, 3))
    np.save(tmp_path / "scan.npy", values)
    with pytest.raises(InputError, match="the first axis, of 16, has most .* --axes=kz,coil,ky,kx"):
        open_scan(tmp_path / "scan.npy")
    assert open_scan(tmp_path / "scan.npy", axes="slice,coil,ky,kx").shape == values.shape
    assert open_scan(tmp_path / "scan.npy", axes="kz,coil,ky,kx").shape == (10, 2, 16, 12)


@pytest.mark.parametrize("axes, message", [
    ("slice,kz,ky,kx", "not both slice and kz"), ("coil,ky,kx", "axes are coil,ky,kx of shape"),
    ("slice,coil,y,kx", "expected a name for each"), ("slice,slice,ky,kx", "expected a name"),
    ("kz,coil,ky,kx", "the readout, ky of 10, is not fully sampled")])
def test_axes_that_cannot_be_are_refused(tmp_path, axes, message):
    values = kspace()
    values[:, :, ::2] = 0
    np.save(tmp_path / "scan.npy", values)
    with pytest.raises(InputError, match=message):
        read(open_scan(tmp_path / "scan.npy", axes=axes))
    write_cfl(tmp_path / "scan.cfl", bart_order(values), bart_order(values).shape)
    with pytest.raises(InputError, match="tells itself .*; leave out --array and --axes"):
        open_scan(tmp_path / "scan.cfl", axes=axes)
