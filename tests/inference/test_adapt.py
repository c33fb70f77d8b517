"""Fine-tuning on one scan: it is split in three, and never worse by the third part."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import flatjax
from flatjax import cli, config, losses
from flatjax.data import DATASETS
from flatjax.data.prepare import prepare
from flatjax.errors import InputError
from flatjax.inference import adapt as adapting
from flatjax.inference.adapt import adapt
from flatjax.methods import Method, Reconstruction, zero_filled
from flatjax.mri.host.masks import make_mask
from flatjax.mri.sampling import LARGEST_BOX, calibration_mask
from tests.support import toy
from tests.support.kspace_fixture import scan_of
from tests.support.untrained import workdir

SHAPE = (32, 30)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(adapting, "VALIDATE_EVERY", 2)
    monkeypatch.setattr(adapting, "PATIENCE", 2)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    return workdir(tmp_path / "run", config.method("flat", **toy.TINY))


@pytest.fixture(scope="module")
def kspace():
    """Two slices of two coils, undersampled."""
    mask = make_mask("random", SHAPE, 2, 0.3, 0)
    return (scan_of(slices=2, coils=2, shape=SHAPE)[0] * mask).astype(np.complex64)


def small():
    """A box of samples in the center, and one outside of it."""
    kspace = np.zeros((1, 2, *SHAPE), np.complex64)
    kspace[..., 14:19, 13:18] = kspace[..., 3, 4] = 1
    kspace[..., 16, 15] = 9
    return kspace


def tuned(seen):
    """A method of one weight, which scales the center of k-space to what is measured everywhere."""
    def reconstruct(params, rng, measurement, *, trajectory=False):
        jax.debug.callback(lambda mask: seen.append(np.asarray(mask)), measurement.mask)
        mean = jnp.mean(jnp.abs(measurement.kspace)) / jnp.mean(measurement.mask)
        kspace = params["w"] * mean + 0 * measurement.kspace
        return Reconstruction(jnp.abs(kspace[:, 0]), kspace, None, None, 0)

    return Method(lambda *_: {"w": jnp.ones(())}, zero_filled().loss, reconstruct)


def test_the_third_part_is_kept_from_every_update(kspace):
    seen, one = [], prepare(kspace[0]).measurement
    _, errors = adapt(tuned(seen), {"w": jnp.ones(())}, [one], minutes=1)
    jax.effects_barrier()
    whole = np.broadcast_to(one.mask[0], SHAPE)
    masks = np.stack([mask[0, 0] for mask in seen])
    sizes = masks.sum(axis=(1, 2))
    given = masks[sizes.argmax()]  # by the validation
    validated = whole - given
    assert (sizes == sizes.max()).sum() == len(errors) and len(sizes) > 2 * len(errors)
    outside = whole * ~calibration_mask(whole, LARGEST_BOX)
    assert (validated >= 0).all() and validated.sum() == np.round(0.2 * outside.sum()) > 10
    assert not np.any(masks * validated)
    thetas = masks[sizes < sizes.max()]
    assert len(np.unique(thetas.reshape(len(thetas), -1), axis=0)) == len(thetas)  # drawn anew


def test_the_weights_are_those_of_the_smallest_error_on_it(kspace, monkeypatch, run):
    monkeypatch.setattr(adapting, "LEARNING_RATE", 1e-2)
    model = flatjax.load(run)
    slices = [prepare(one).measurement for one in kspace]
    params, errors = adapt(model.method, model.params, slices, minutes=3)
    assert min(errors) < 0.98 * errors[0] and len(errors) >= 4
    found = []
    for index, one in enumerate(slices):
        key, _ = jax.random.split(jax.random.key(0))
        measured = jax.tree.map(lambda x: x[None], one)
        theta, held = adapting.split(jax.random.fold_in(key, index), measured,
                                     adapting.VALIDATION_SHARE, "uniform")
        predicted = jax.jit(model.method.reconstruct)(params, key, theta).kspace
        found.append(losses.relative_error(prediction=held * predicted,
                                           target=held * measured.kspace)[0])
    assert float(np.mean(found)) == pytest.approx(min(errors), rel=1e-3)


def test_a_model_that_only_gets_worse_stays_as_it_is(kspace, monkeypatch, run):
    monkeypatch.setattr(adapting, "LEARNING_RATE", 30.0)
    model = flatjax.load(run)
    adapted = model.adapt(kspace, minutes=3)
    assert type(adapted) is type(model) and adapted is not model
    jax.tree.map(np.testing.assert_array_equal, adapted.params, model.params)
    np.testing.assert_array_equal(adapted(kspace), model(kspace))


def test_lines_along_the_other_axis_are_turned_as_in_reconstruction(kspace, run):
    model = flatjax.load(run)  # trained with lines along columns
    maps = prepare(kspace[0]).measurement.maps
    straight = model.adapt(kspace[0], maps=maps, minutes=3)(kspace[0], maps=maps)
    other, maps = kspace[0].swapaxes(-2, -1), maps.swapaxes(-2, -1)
    with pytest.warns(UserWarning, match="exchanged"):
        turned = model.adapt(other, maps=maps, minutes=3)(other, maps=maps)
    np.testing.assert_allclose(turned.T, straight, atol=0.02 * straight.max())


@pytest.mark.parametrize(("change", "message"), [
    (lambda k: scan_of(slices=1, coils=2, shape=SHAPE)[0], "fully sampled, or without gaps"),
    (lambda k: k * (np.arange(30) // 2 == 7), "fully sampled, or without gaps"),
    (lambda k: 0 * k, "there are 0 slices with signal"),
    (lambda k: small(), "1 samples lie outside of the fully sampled center")],
    ids=["full", "lines side by side", "empty", "small"])
def test_what_cannot_be_split_in_three_is_one_line(kspace, run, change, message):
    maps = np.ones((2, *SHAPE), np.complex64)
    with pytest.raises(InputError, match=message) as caught:
        flatjax.load(run).adapt(change(kspace).astype(np.complex64), maps=maps)
    assert "\n" not in str(caught.value)


def test_without_weights_there_is_nothing_to_adapt(kspace):
    with pytest.raises(InputError, match="2 slices with signal and 0 arrays of weights"):
        adapt(zero_filled(), {}, [prepare(one).measurement for one in kspace])


def program(*arguments):
    """The program's exit status."""
    try:
        cli.main(["reconstruct", *map(str, arguments)])
    except SystemExit as status:
        return status.code
    return 0


def test_the_program_adapts_and_keeps_the_weights(tmp_path, run, kspace, capsys, monkeypatch):
    monkeypatch.setattr(adapting, "LEARNING_RATE", 1e-2)
    np.save(tmp_path / "scan.npy", kspace)
    out = tmp_path / "out"
    assert program(tmp_path / "scan.npy", f"--workdir={run}", f"--output={out}", "--adapt=3",
                   "--keep-weights") == 0
    assert "adapted, validation error" in "".join(capsys.readouterr())
    with h5py.File(out / "scan.h5") as file:
        images = file["reconstruction"][:]
    model = flatjax.load(out / "scan")  # of half precision
    np.testing.assert_allclose(images, model(kspace), atol=0.02 * images.max())
    plain = flatjax.load(run)(kspace)
    assert np.abs(images - plain).max() > np.abs(images - model(kspace)).max()


@pytest.mark.parametrize(("arguments", "message"), [
    (("--adapt", "scan.npy"), "argument --adapt: 'scan.npy', expected minutes, as --adapt=5"),
    (("scan.npy", "--adapt=0"), "'0', expected minutes"),
    (("scan.npy", "--adapt=inf"), "'inf', expected minutes"),
    (("scan.npy", "--keep-weights"), "--keep-weights without --adapt, expected both"),
    (("full.npy", "--adapt"), "full.npy: k-space is fully sampled")])
def test_bad_arguments_are_one_line(tmp_path, run, kspace, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    np.save("scan.npy", kspace)
    np.save("full.npy", scan_of(slices=1, coils=2, shape=SHAPE)[0])
    assert program(*arguments, f"--workdir={run}", "--output=out") == 2
    error = capsys.readouterr().err
    assert message in error and error.count("error:") == 1


def test_a_folder_with_a_run_is_not_written_over(tmp_path, run, kspace, capsys):
    np.save(tmp_path / "run.npy", kspace[:1])
    before = (run / "config.json").read_text()
    assert program(tmp_path / "run.npy", f"--workdir={run}", f"--output={tmp_path}",
                   "--adapt=0.01", "--keep-weights") == 2
    assert "holds a run" in capsys.readouterr().err
    assert (run / "config.json").read_text() == before
