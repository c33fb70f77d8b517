"""What files hold: a row for what is good, a line for what is broken, a picture."""

import matplotlib.pyplot as plt
import nibabel
import numpy as np
import pytest

from flatjax import cli
from flatjax.data.io.kspace import find_mask, open_scan, slice_with_signal
from flatjax.inference.inspection import draw, inspect_files
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.simulate import complex_noise, host_ifft2c
from tests.support import fastmri_fixture
from tests.support.kspace_fixture import SIZE, scan_of


def row(text, name):
    """The cells of a file's row by their column."""
    lines = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in text.splitlines()
             if line.startswith("|")]
    return next(dict(zip(lines[0], line, strict=True)) for line in lines if name in line[0])


@pytest.fixture
def folder(tmp_path):
    data = tmp_path / "data"
    mask = make_mask("equispaced", SIZE, 4, 0.4, 0)
    (data / "arrays").mkdir(parents=True)
    np.save(data / "arrays" / "good.npy", mask * scan_of()[0])
    np.save(data / "arrays" / "again.npy", mask * scan_of()[0])
    np.save(data / "arrays" / "no_centre.npy",
            make_mask("random", SIZE, 3, 0.0, 1) * scan_of(slices=2)[0])
    (data / "arrays" / "broken.npz").write_bytes(b"PK")
    (data / "notes.txt").write_text("not data")
    fastmri_fixture.write(data / "knees" / "file1.h5", padding=(3, 34))
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).uniform(0, 9, (9, 8, 7)),
                                     np.diag([2.0, 3, 4, 1])), data / "head.nii.gz")
    return data


def test_a_folder_is_listed_and_a_slice_of_each_kind_drawn(folder, tmp_path, capsys):
    errors = inspect_files([folder], tmp_path / "out")
    assert list(errors) == [folder / "arrays" / "broken.npz"]
    out, err = capsys.readouterr()
    assert sum(line.startswith("| ") for line in out.splitlines()) == 1 + 5
    good = row(out, "good.npy")
    assert (good["slices"], good["coils"], good["ky x kx"]) == ("3", "4", "24 x 20")
    assert good["R"] == "1.82" and good["center"] == "24 x 8" and good["format"] == "NumPy .npy"
    assert good["missing"] == "mask, maps, affine"
    assert "calibration lines" in row(out, "no_centre.npy")["missing"]
    knee = row(out, "file1.h5")
    assert knee["tells"] == "acquisition CORPD_FBK; patient_id p0" and knee["missing"] == "mask"
    assert knee["image"] == "24 x 24" and knee["R"] == f"{36 / 31:.2f}"
    head = row(out, "head.nii.gz")
    assert head["voxel (mm)"] == "2 x 3 x 4" and head["R"] == "-" and head["slices"] == "7"
    assert err.count("broken: ") == 1 and "broken.npz: is cut short or damaged" in err
    pictures = {path.name for path in (tmp_path / "out").iterdir()}
    assert pictures == {"again.png", "file1.png", "head.png"}
    for name in pictures:
        assert plt.imread(tmp_path / "out" / name)[..., :3].std() > 0.05


def test_the_form_of_k_space_is_told_and_what_is_doubtful(tmp_path, capsys):
    rng = np.random.default_rng(0)
    kspace = scan_of(slices=1, shape=(64, 60))[0]
    kspace += complex_noise(rng, kspace.shape, 0.02)
    lines = make_mask("equispaced", (60, 64), 4, 0.2, 0).T
    np.savez(tmp_path / "scan.npz", kspace=lines * kspace, affine=np.eye(4))
    np.save(tmp_path / "bright.npy", 1e30 * lines * kspace)
    np.save(tmp_path / "image.npy", host_ifft2c(kspace))
    np.save(tmp_path / "last.npy", np.moveaxis(kspace, 1, -1))
    np.save(tmp_path / "edge.npy", np.fft.ifftshift(kspace, axes=(-2, -1)))
    errors = inspect_files([tmp_path], tmp_path / "out")
    out, err = capsys.readouterr()
    scan, image = row(out, "scan.npz"), row(out, "image.npy")
    assert (scan["slices"], scan["coils"], scan["ky x kx"]) == ("1", "4", "64 x 60")
    assert (scan["sampling"], image["sampling"]) == ("rows", "full")
    assert (scan["orientation"], image["orientation"]) == ("known", "?")
    assert [abs(int(n) - m) <= 1 for n, m in zip(scan["energy at"].split(" x "), (32, 30),
                                                 strict=True)] == [True, True]
    assert float(scan["noise"]) == pytest.approx(0.02, rel=0.2)
    bright = np.sqrt(np.sum(np.abs(host_ifft2c(lines * kspace)) ** 2, axis=1)).max()
    pixel = np.std(host_ifft2c(lines * complex_noise(rng, (64, 60), 0.02)))
    assert float(scan["SNR"]) == pytest.approx(bright / pixel, rel=0.2)
    assert all(row(out, "bright.npy")[name] == scan[name] for name in ("SNR", "energy at"))
    assert list(errors) == [tmp_path / "edge.npy", tmp_path / "last.npy"]
    assert "at the edge of ky and kx, expected" in err and "coils were the last axis" in err
    (warning,) = [line for line in err.splitlines() if line.startswith("warning: ")]
    assert "image.npy: k-space looks like an image along ky and kx; transform it" in warning


def test_pictures_of_one_name_are_numbered(tmp_path):
    for part, size in (("a", 24), ("b", 32)):
        (tmp_path / part).mkdir()
        image = np.random.default_rng(0).normal(size=(3, 1, size, size))
        np.save(tmp_path / part / "scan.npy", image.astype(np.complex64))
    inspect_files([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "scan-2.png", "scan.png"]


def test_the_picture_shows_the_slice(folder):
    scan = open_scan(folder / "arrays" / "good.npy")
    index, kspace = slice_with_signal(scan)
    figure = draw(scan, index, kspace)
    samples, mask, image = [axes.images[0].get_array() for axes in figure.axes[:3]]
    np.testing.assert_array_equal(mask, np.broadcast_to(find_mask(kspace), SIZE))
    assert samples.max() == 0 and (samples[mask == 0] == -4).all()
    expected = np.sqrt(np.sum(np.abs(host_ifft2c(kspace)) ** 2, axis=0))
    np.testing.assert_allclose(image, expected, rtol=1e-5)
    plt.close(figure)


@pytest.mark.parametrize("arguments, status, message", [
    (["data/arrays/good.npy"], 0, ""), (["data/arrays"], 2, "1 broken files, named above"),
    (["data/notes.txt"], 2, "unknown format '.txt'"), (["none"], 2, "none: no such file or folder"),
    (["empty"], 2, "empty: holds no file named"),
    (["data", "--all"], 2, "unexpected argument '--all'"), (["--output=x"], 2, "no path"),
])
def test_the_program(folder, monkeypatch, capsys, arguments, status, message):
    monkeypatch.chdir(folder.parent)
    (folder.parent / "empty").mkdir()
    if status:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["inspect", *arguments])
        assert stopped.value.code == status
        assert message in capsys.readouterr().err
    else:
        cli.main(["inspect", *arguments])
        assert (folder.parent / "inspect" / "good.png").exists()
