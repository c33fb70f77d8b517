import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from flatjax.data.sets import brainweb, tissues, volume
from flatjax.errors import InputError
from tests.support.volume_fixture import (
    SHAPE,
    head,
    labels,
    packed,
    write_brainweb,
    write_minc1,
    write_minc2,
    write_nifti,
    write_raw,
)

HALF = (0.5, 0.5, 0.5)


@pytest.fixture
def make(tmp_path):
    def make_dataset(path, **options):
        return brainweb.make(**{"path": str(path), "matrix": 0, "split": False,
                                "cache": str(tmp_path / "kept")} | options)
    return make_dataset


@pytest.fixture(scope="module")
def crisp(tmp_path_factory):
    return write_brainweb(tmp_path_factory.mktemp("crisp"))


def images(dataset):
    return {v.name: np.stack([s.target for s in v.load()])
            for volumes in dataset.test.values() for v in volumes}


def expected_signal(contrast, t1, t2, density):
    tr, te = {"T1": (500, 12), "T2": (4500, 100), "PD": (3000, 15)}[contrast]
    return density * (1 - np.exp(-tr / t1)) * np.exp(-te / t2)


# of the twenty models' labels 0 to 11, by brainweb's tissue_mr_parameters.txt
TABLE = [(1, 1, 0), (2569, 329, 1), (833, 83, 0.86), (500, 70, 0.77), (350, 70, 1), (900, 47, 1),
         (900, 47, 1), (1, 1, 0), (2569, 329, 1), (350, 70, 1), (500, 70, 0.77), (350, 70, 1)]


@pytest.mark.parametrize("contrast", ["T1", "T2", "PD"])
@pytest.mark.parametrize("number", [4, 20])
def test_crisp_models_take_the_tables_contrast(crisp, contrast, number):
    (file,) = crisp.glob(f"subject{number:02d}_*")
    image, spacing = brainweb.crisp_image(file, f"subject{number:02d}", contrast)
    signal = np.array([expected_signal(contrast, *tissue) for tissue in TABLE])
    wanted = signal[labels(number)]
    np.testing.assert_allclose(image, wanted / wanted.max(), rtol=1e-5)
    assert spacing == HALF and image.dtype == np.float32


def test_contrasts_are_in_their_known_order():
    csf, gray, white = (tissues.TISSUES[name]
                        for name in ("csf", "gray matter", "white matter"))
    assert expected_signal("T1", *white) > expected_signal("T1", *gray) > (
        expected_signal("T1", *csf))
    assert expected_signal("T2", *csf) > expected_signal("T2", *gray) > (
        expected_signal("T2", *white))


def test_a_folder_of_crisp_models(crisp, make):
    dataset = make(crisp, contrasts=("T1", "PD"), split=True, test=("subject20",), coils=2)
    assert [v.name for v in dataset.test["held_out"]] == ["subject20_T1", "subject20_PD"]
    assert "subject20" not in dataset.split["train"] + dataset.split["validation"]
    sample = dataset.draw(np.random.default_rng(0), 1)[0]
    assert sample.kspace.shape == (2, 22, 19)
    # as the data set volume shows the same image: axes and slices where they belong
    image, _ = brainweb.crisp_image(crisp / "subject20_crisp_v.nii.gz", "subject20", "T1")
    one = volume.make(path=str(write_nifti(crisp.parent / "same.nii", image, HALF)), split=False)
    np.testing.assert_array_equal(images(make(crisp, subjects=("subject20",)))["subject20_T1"],
                                  images(one)["same"])


@pytest.mark.parametrize("write, suffix", [(write_minc1, "mnc"), (write_minc2, "mnc.gz"),
                                           (write_nifti, "nii")])
def test_fuzzy_models_that_are_pure_equal_crisp_ones(tmp_path, make, write, suffix):
    folder = tmp_path / "both"
    whole = labels(4)
    write(folder / f"subject04_crisp_v.{suffix}", whole, HALF)
    for label, part in enumerate(("bck", "csf", "gry", "wht", "fat", "mus", "m-s", "skl", "ves",
                                  "fat2", "dura", "mrw")):
        write(folder / f"subject04_{part}.{suffix}", (whole == label).astype(np.float32), HALF)
    one, other = (images(make(folder, source=source)) for source in ("crisp", "fuzzy"))
    assert set(one) == set(other) == {f"subject04_{name}" for name in ("T1", "T2", "PD")}
    for name in one:
        np.testing.assert_allclose(one[name], other[name], atol=0.005)


def test_fuzzy_models_mix_by_their_fractions(tmp_path):
    fractions = {"csf": 0.2, "gm": 0.5, "wm": 0.3}
    files = {}
    for part, share in fractions.items():
        values = np.full(SHAPE, share, np.float32)
        values[0] = part == "csf"
        files[part] = write_nifti(tmp_path / f"subject04_{part}_v.nii", values, HALF)
    image, _ = brainweb.fuzzy_image(files, "T2")
    signals = [expected_signal("T2", *TABLE[label]) for label in (1, 2, 3)]
    mixed = np.dot(list(fractions.values()), signals)
    np.testing.assert_allclose(image[1:], mixed / signals[0], rtol=1e-5)


def test_the_phantom_in_raw_byte_and_raw_short(tmp_path, make):
    grid = (181, 217, 181)
    whole = labels(7, grid, count=11)  # with lesions
    write_raw(tmp_path / "byte" / "phantom_1.0mm_msles2_crisp.rawb", whole)
    write_raw(tmp_path / "short" / "phantom_1.0mm_msles2_crisp.raws.gz", 16 * whole, "<i2")
    byte, short = (images(make(tmp_path / name, contrasts=("T2",), matrix=32))["icbm_T2"]
                   for name in ("byte", "short"))
    np.testing.assert_array_equal(byte, short)
    image, spacing = brainweb.crisp_image(
        tmp_path / "byte" / "phantom_1.0mm_msles2_crisp.rawb", "icbm", "T2")
    assert spacing == (1, 1, 1)
    table = [*TABLE[:6], (2569, 329, 1), (1, 1, 0), (833, 83, 0.86), (500, 70, 0.77),
             (752, 237, 0.76)]
    wanted = np.array([expected_signal("T2", *tissue) for tissue in table])[whole]
    np.testing.assert_allclose(image, wanted / wanted.max(), rtol=1e-5)
    fraction = tmp_path / "phantom_1.0mm_normal_gry.rawb"
    for part in ("csf", "gry", "wht"):
        write_raw(fraction.with_name(f"phantom_1.0mm_normal_{part}.raws"),
                  4095 * (whole == {"csf": 1, "gry": 2, "wht": 3}[part]), "<i2")
    assert list(images(make(tmp_path, source="fuzzy", contrasts=("PD",), matrix=32))) == ["icbm_PD"]


def test_simulated_volumes_by_noise_and_non_uniformity(tmp_path, make):
    folder = tmp_path / "simulated"
    for index, name in enumerate(("t1_icbm_normal_1mm_pn3_rf20", "t1_icbm_normal_1mm_pn0_rf0",
                                  "T2_ICBM_normal_3mm_pn3_rf20", "pd_ai_msles2_1mm_pn9_rf40")):
        write_minc1(folder / f"{name}.mnc", head(seed=index))
    write_brainweb(folder, (4, 5), "simulated")

    def names(**options):
        return sorted(images(make(folder, source="simulated", **options)))

    assert len(names()) == 6
    assert names(contrasts=("T2", "PD")) == ["T2_ICBM_normal_3mm_pn3_rf20",
                                            "pd_ai_msles2_1mm_pn9_rf40"]
    assert names(pattern="*pn3*") == ["T2_ICBM_normal_3mm_pn3_rf20", "t1_icbm_normal_1mm_pn3_rf20"]
    assert names(pattern="*rf[04]*") == ["pd_ai_msles2_1mm_pn9_rf40", "t1_icbm_normal_1mm_pn0_rf0"]
    assert names(subjects=("subject04",)) == ["subject04_t1w_p4"]
    with pytest.raises(InputError, match="none of its 2 volumes is simulated of what is asked for"):
        names(pattern="*pn3*", contrasts=("PD",))
    # one head, whatever its contrast, noise or lesions
    dataset = make(folder, source="simulated", split=True, test=("icbm",))
    assert len(dataset.test["held_out"]) == 4


@pytest.mark.parametrize("name, expected", [
    ("subject54_crisp_v", ("crisp", "subject54", "")),
    ("brainweb_s04_crisp", ("crisp", "subject04", "")),
    ("phantom_1.0mm_normal_crisp", ("crisp", "icbm", "")),
    ("phantom_1.0mm_normal_m-s", ("fuzzy", "icbm", "m-s")),
    ("subject04_muscles_skin_v", ("fuzzy", "subject04", "muscles_skin")),
    ("subject04_t1w_p4", ("simulated", "subject04", "T1")),
    ("T1+ICBM+normal+1mm+pn3+rf20", ("simulated", "icbm", "T1")),
    ("subject04_eyes", None), ("t1_icbm_normal", None), ("head", None),
])
def test_names(name, expected):
    found = brainweb.parse(name)
    assert (found and found[:3]) == expected


def test_brainweb_dls_own_files_are_turned(tmp_path):
    whole = labels(4)
    file = write_nifti(tmp_path / "brainweb_s04_crisp.nii.gz", whole.transpose(2, 1, 0), HALF)
    wanted = brainweb.crisp_image(write_nifti(tmp_path / "subject04_crisp_v.nii", whole, HALF),
                                  "subject04", "T1")
    found = brainweb.crisp_image(file, "subject04", "T1")
    np.testing.assert_array_equal(found[0], wanted[0])


def fetching(monkeypatch, fetch):
    monkeypatch.setitem(sys.modules, "brainweb_dl", SimpleNamespace(get_brainweb20=fetch))


def test_download(tmp_path, make, monkeypatch):
    asked = []

    def fetch(number, brainweb_dir, segmentation):
        asked.append((number, segmentation))
        return write_nifti(f"{brainweb_dir}/brainweb_s{number:02d}_crisp.nii.gz",
                           labels(number).transpose(2, 1, 0), HALF)

    fetching(monkeypatch, fetch)
    folder = tmp_path / "fetched"
    options = {"download": True, "subjects": ("subject04", "subject38"), "contrasts": ("T1",)}
    found = images(make(folder, **options))
    assert asked == [(4, "crisp"), (38, "crisp")] and len(found) == 2
    make(folder, **options)
    assert len(asked) == 2, "what is there is not fetched again"
    (folder / ".killed").mkdir()
    (folder / "brainweb_s38_crisp.nii.gz").rename(folder / ".killed" / "brainweb_s38_crisp.nii.gz")
    make(folder, **options)
    assert asked[2:] == [(38, "crisp")], "what a killed download left is fetched again"
    wanted = write_brainweb(tmp_path / "own", (4,)) / "subject04_crisp_v.mnc"
    image, _ = brainweb.crisp_image(wanted, "subject04", "T1")
    assert found["subject04_T1"].shape[1:] == image.shape[1::-1]


def test_download_without_internet_or_package(tmp_path, make, monkeypatch):
    def offline(*_, brainweb_dir, **__):
        write_nifti(f"{brainweb_dir}/brainweb_s04_crisp.nii.gz", labels(4))
        raise ConnectionError("HTTPConnectionPool(host=...): Max retries exceeded\nand more")

    fetching(monkeypatch, offline)
    with pytest.raises(InputError, match="subject04 cannot be fetched .*ConnectionError.*internet"):
        make(tmp_path / "empty", download=True)
    assert not list((tmp_path / "empty").iterdir()), "nothing half fetched stays"
    monkeypatch.setitem(sys.modules, "brainweb_dl", None)
    with pytest.raises(InputError, match=r"brainweb-dl: install flatjax\[brainweb\]"):
        make(tmp_path / "empty", download=True)
    for options, match in (({"source": "fuzzy"}, "data.download with source 'fuzzy', expected cri"),
                           ({"subjects": ("subject07",)}, "subjects is .'subject07',., expected")):
        with pytest.raises(InputError, match=match):
            make(tmp_path / "empty", download=True, **options)


def test_the_real_package_takes_our_call():
    brainweb_dl = pytest.importorskip("brainweb_dl")
    from inspect import signature
    signature(brainweb_dl.get_brainweb20).bind(4, brainweb_dir="x", segmentation="crisp")


@pytest.mark.parametrize("options, match", [
    ({"path": ""}, "the data set brainweb has no path: set data.path"),
    ({"source": "discrete"}, "source is 'discrete', expected one of crisp, fuzzy, simulated"),
    ({"contrasts": ("T3",)}, "contrasts is .*expected a list of some of T1, T2, PD"),
    ({"contrasts": "T1"}, "contrasts is 'T1', expected a list"),
    ({"contrasts": ()}, "contrasts is .*expected a list"),
    ({"subjects": "subject04"}, "subjects is 'subject04', expected a list"),
    ({"subjects": ("subject41",)}, "no crisp files of subject41; set data.subjects"),
    ({"source": "simulated"}, "none of its 5 volumes is simulated .*it holds subject04_crisp_v,"),
    ({"split": True, "subjects": ("subject04",)}, "1 subjects .subject04. leave nobody"),
])
def test_bad_options(crisp, make, options, match):
    with pytest.raises(InputError, match=match):
        make(**{"path": crisp} | options)


def test_bad_files(tmp_path, make):
    def folder(name):
        return tmp_path / name

    with pytest.raises(InputError, match="absent: cannot be read as a folder"):
        make(folder("absent"))
    folder("empty").mkdir()
    with pytest.raises(InputError, match="empty: holds no volume"):
        make(folder("empty"))
    write_nifti(folder("odd") / "subject04_crisp_v.nii", labels(4) + np.uint8(40))
    with pytest.raises(InputError, match="values go from 40 to 51, expected the labels 0 to 11"):
        make(folder("odd"))
    write_nifti(folder("blank") / "subject04_crisp_v.nii", 0 * labels(4))
    with pytest.raises(InputError, match="every voxel is 0, expected an image"):
        make(folder("blank"))
    packed(folder("cut") / "subject04_crisp_v.rawb", bytes(1000))
    with pytest.raises(InputError, match="subject04_crisp_v.rawb: .*cut short"):
        make(folder("cut"))
    write_brainweb(folder("twice"), (4,))
    write_nifti(folder("twice") / "subject04_crisp_v.nii", labels(4))
    with pytest.raises(InputError, match="is another file of the same part of subject04"):
        make(folder("twice"))
    fuzzy = write_brainweb(folder("fuzzy"), (4,), "fuzzy")
    shutil.copy(fuzzy / "subject04_gm_v.mnc", tmp_path / "kept.mnc")
    (fuzzy / "subject04_gm_v.mnc").unlink()
    with pytest.raises(InputError, match="of this fuzzy model gray matter is missing"):
        make(fuzzy, source="fuzzy")
    write_nifti(fuzzy / "subject04_gm_v.nii", head((8, 9, 10)) * 0.5)
    with pytest.raises(InputError, match=r"has \(8, 9, 10\) voxels and .*expected the same"):
        make(fuzzy, source="fuzzy")
    write_nifti(fuzzy / "subject04_gm_v.nii", head() * 200)
    with pytest.raises(InputError, match="expected fractions of a tissue from 0 to 1"):
        make(fuzzy, source="fuzzy")
