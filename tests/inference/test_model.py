"""A trained model as a function: k-space of any unit and rank in, images in that unit out."""

import warnings

import numpy as np
import pytest

import flatjax
from flatjax import config, mri
from flatjax.data import DATASETS
from flatjax.data.prepare import prepare
from flatjax.errors import InputError
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.simulate import birdcage_maps, host_fft2c, host_ifft2c
from tests.support import toy
from tests.support.arrays import smooth_image
from tests.support.untrained import workdir

SHAPE, COILS = (16, 18), 3


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DATASETS, "toy", toy.make)
        run = workdir(tmp_path_factory.mktemp("model") / "run", config.method("flat", **toy.TINY))
        return flatjax.load(run)


@pytest.fixture(scope="module")
def scan():
    """Two slices of three coils, their maps, and what was sampled of them."""
    rng = np.random.default_rng(0)
    images = np.stack([smooth_image(rng, SHAPE) for _ in range(2)])
    maps = np.asarray(birdcage_maps(COILS, SHAPE))
    mask = make_mask("random", SHAPE, 2, 0.45, 0)
    kspace = (mask * host_fft2c(maps * images[:, None])).astype(np.complex64)
    return kspace, maps, mask


def test_it_is_the_method_on_prepared_slices(model, scan):
    kspace, maps, mask = scan
    images = model(kspace, mask=mask, maps=maps)
    assert images.shape == (2, *SHAPE) and images.dtype == np.float32
    measured, scale = prepare(kspace[1], mask, maps)
    batch = mri.Measurement(*(None if part is None else part[None] for part in measured))
    expected = scale * model.method.reconstruct(model.params, None, batch).image[0]
    np.testing.assert_allclose(images[1], expected, rtol=1e-4, atol=1e-5 * expected.max())


def test_ranks_units_and_what_is_left_out(model, scan):
    kspace, maps, mask = scan
    whole = model(kspace, maps=maps)
    atol = 1e-4 * whole.max()
    one = model(kspace[0], mask=mask, maps=maps)  # the mask is where samples are
    np.testing.assert_allclose(one, whole[0], atol=atol)
    np.testing.assert_allclose(model(1e-6 * kspace[0], maps=maps), 1e-6 * one, atol=1e-6 * atol)
    assert model(kspace[0]).shape == SHAPE  # by maps of the center
    np.testing.assert_array_equal(model(kspace[0, 0]), model(kspace[0, :1]))
    assert not model(np.zeros_like(kspace[0])).any()


def test_the_states_begin_with_the_zero_filled_image_and_end_with_the_result(model, scan):
    kspace, maps, _ = scan
    states = model.along(kspace, maps=maps)
    steps = model.config.method.schedule.steps
    assert states.shape == (2, steps + 1, *SHAPE)
    start = np.abs(np.sum(np.conj(maps) * np.fft.fftshift(np.fft.ifft2(
        np.fft.ifftshift(kspace, axes=(-2, -1)), norm="ortho"), axes=(-2, -1)), axis=1))
    np.testing.assert_allclose(states[:, 0], start, atol=1e-4 * start.max())
    np.testing.assert_allclose(states[:, -1], model(kspace, maps=maps), atol=1e-4 * start.max())


@pytest.mark.parametrize("lines", ["columns", "rows", "both"])
@pytest.mark.parametrize("coils", [1, 3])
def test_lines_along_the_axis_that_was_not_trained_are_exchanged(tmp_path, monkeypatch, lines,
                                                                 coils):
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    model = flatjax.load(workdir(tmp_path / "run", config.method("flat", **toy.TINY),
                                 acquisition=config.acquisition(lines=lines)))
    maps = np.asarray(birdcage_maps(coils, SHAPE))
    image = smooth_image(np.random.default_rng(0), SHAPE)
    columns = (make_mask("random", SHAPE, 2, 0.45, 0) * host_fft2c(maps * image))[None]
    rows = columns.swapaxes(-2, -1)
    turned_maps = maps.swapaxes(-2, -1)
    given = {"columns": (rows, turned_maps), "rows": (columns, maps)}
    for kspace, own in ((columns, maps), (rows, turned_maps)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = model(kspace, maps=own)
        if lines != "both" and kspace is given[lines][0]:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                straight = model(kspace.swapaxes(-2, -1), maps=own.swapaxes(-2, -1))
            np.testing.assert_allclose(found, straight.swapaxes(-2, -1), atol=1e-4 * found.max())
            assert [f"trained with {lines}: its axes are exchanged" in str(one.message)
                    for one in caught] == [True]
            with pytest.warns(UserWarning, match="exchanged"):
                assert model.along(kspace, maps=own).shape[-2:] == kspace.shape[-2:]
        else:
            assert not caught


def test_what_is_doubtful_is_warned_of_and_what_contradicts_is_refused(model, scan):
    kspace, maps, mask = scan
    with pytest.warns(UserWarning, match="looks like an image along ky and kx"):
        model(host_ifft2c(kspace), maps=maps, mask=np.ones_like(mask))
    with pytest.raises(InputError, match="energy of k-space lies at the edge of kx"):
        model(np.fft.fftshift(kspace, axes=-1), maps=maps)
    with pytest.raises(InputError, match="mask contradicts the data"):
        model(kspace, mask=np.fft.fftshift(mask), maps=maps)


def test_it_shows_itself_in_a_line(model):
    assert len(repr(model)) < 200 and "flat" in repr(model) and "toy" in repr(model)


def test_a_mask_may_be_of_rows(model, scan):
    _, maps, _ = scan
    kspace = host_fft2c(maps * smooth_image(np.random.default_rng(0), SHAPE)).astype(np.complex64)
    rows = (np.arange(SHAPE[0]) % 3 > 0)[:, None]
    np.testing.assert_array_equal(
        model(kspace, mask=rows, maps=maps),
        model(kspace, mask=np.broadcast_to(rows, SHAPE), maps=maps))


@pytest.mark.parametrize(("change", "message"), [
    ({"kspace": np.ones(SHAPE)}, "kspace is float64 of shape .*expected complex"),
    ({"kspace": np.ones(9, complex)}, r"expected complex, \[ky, kx\] or"),
    ({"kspace": np.full(SHAPE, np.nan, complex)}, "not finite"),
    ({"maps": np.ones((2, *SHAPE), complex)}, r"maps have shape \(2, 16, 18\), expected"),
    ({"maps": np.zeros((COILS, *SHAPE), complex)}, "maps are zero everywhere"),
    ({"mask": np.ones((18, 16))}, r"mask has shape \(18, 16\), expected \(16, 18\) or \(1, 18\)")])
def test_bad_arrays_are_one_line(model, scan, change, message):
    kspace, maps, mask = scan
    with pytest.raises(InputError, match=message) as caught:
        model(**{"kspace": kspace, "maps": maps, "mask": mask} | change)
    assert "\n" not in str(caught.value)


def test_a_model_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match="no pretrained model .*expected multicoil or a folder"):
        flatjax.load(tmp_path / "nothing")
