"""A method that breaks the contract is told so in one line, before it trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import cli, mri
from flatjax.data import DATASETS
from flatjax.errors import InputError
from flatjax.methods import METHODS, Method, MethodSpec, Reconstruction, check_method
from tests.support import toy
from tests.support.build import shrunk


def init(rng, batch):
    return {"scale": jnp.ones(())}


def reconstruct(params, rng, measurement, *, trajectory=False):
    kspace = params["scale"] * measurement.kspace
    states = jnp.stack([measurement.kspace, kspace]) if trajectory else None
    return Reconstruction(mri.combine(kspace, measurement.maps), kspace, states, None, 1,
                          steps=np.arange(2) if trajectory else None)


def loss(params, rng, batch):
    image = reconstruct(params, rng, batch.measurement).image
    error = jnp.mean(jnp.abs(image - batch.target))
    return error, {"l1": error}


def giving(**changes):
    """The method with fields of its reconstruction replaced, by `field(result)` or a value."""
    def changed(params, rng, measurement, *, trajectory=False):
        result = reconstruct(params, rng, measurement, trajectory=trajectory)
        return result._replace(**{key: value(result) if callable(value) else value
                                  for key, value in changes.items()})
    return {"reconstruct": changed}


def without_trajectory(params, rng, measurement):
    return None


def on_the_host(params, rng, measurement, *, trajectory=False):
    return np.fft.ifft2(measurement.kspace)


def growing(params, rng, batch):
    return jax.lax.while_loop(lambda x: x < 3, lambda x: x + 1, params["scale"]), {}


def branching(params, rng, batch):
    return (params["scale"] if params["scale"] > 0 else 0.0), {}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_keeps_to_the_contract(name, make_batch):
    check_method(shrunk(name, samples=2), make_batch(coils=2))
    check_method(shrunk(name, sensitivities__name="learned") if name in ("flat", "varnet")
                 else shrunk(name), make_batch(coils=2, batch=1))


@pytest.mark.parametrize("parts, words", [
    ({"init": lambda rng, batch: {"a": 3}}, "params['a'] of the method's init is of type int, expected "
     "weights of a real floating-point type; keep constants in make"),
    ({"init": lambda rng, batch: {"a": jnp.ones(2, complex)}}, "params['a'] of the method's init"),
    ({"init": lambda batch: {}}, "init fails: TypeError: .* expected a function that JAX can "
     "trace, `(rng, batch) -> params`"),
    ({"loss": lambda *_: jnp.ones(())}, "what the method's loss returns is a JAX array, "
     "float32[], expected `(params, rng, batch) -> (scalar, {name: scalar})`"),
    ({"loss": lambda *_: (jnp.ones(3), {})}, "loss, which the method's loss returns, is a JAX "
     "array, float32[3], expected one number, as the batch's mean"),
    ({"loss": lambda *_: (jnp.ones(()), {"x": jnp.ones(3)})}, "x, which the method's loss returns"),
    ({"loss": branching}, "the method's loss fails at test_check.py, line "),
    (giving(image=lambda r: r.kspace[:, 0]), "image of the method's reconstruct is a JAX array, "
     "complex64[2, 24, 26], expected float32[2, 24, 26], from mri.combine(kspace, maps, combine)"),
    (giving(image=None), "image of the method's reconstruct is None, expected float32[2, 24, 26]"),
    (giving(kspace=lambda r: r.image), "kspace of the method's reconstruct is"),
    (giving(maps=lambda r: r.image), "maps of the method's reconstruct is"),
    (giving(std=lambda r: r.kspace), "std of the method's reconstruct is"),
    (giving(nfe=lambda r: jnp.ones(5)), "nfe of the method's reconstruct is"),
    (giving(trajectory=None, steps=None), "trajectory of the method's reconstruct(trajectory=2) is "
     "None, expected all states from the start on; without any between, jnp.stack("),
    (giving(trajectory=lambda r: r.kspace[None]), "expected None unless it is asked for"),
    (giving(trajectory=lambda r: r.image[None]), "the k-space of each state"),
    (giving(trajectory=lambda r: None if r.trajectory is None else jnp.repeat(
        r.trajectory, 2, axis=0)),
     "expected at most 2 states, those of flow.scan.saved_indices(steps, trajectory)"),
    (giving(steps=None), "steps of the method's reconstruct(trajectory=2) is None, expected 2 "
     "integers of NumPy, as flow.scan.saved_indices(steps, trajectory) gives"),
    (giving(steps=lambda r: jnp.arange(2)), "is a JAX array, int32[2], expected 2 integers"),
    (giving(times=jnp.ones(3)), "times of the method's reconstruct(trajectory=2)"),
    ({"reconstruct": lambda *_, trajectory=False: (1, 2)}, "what the method's reconstruct returns "
     "is of type tuple, expected a Reconstruction"),
    ({"reconstruct": without_trajectory}, "unexpected keyword argument 'trajectory'; expected a "
     "function that JAX can trace, `(params, rng, measurement, *, trajectory=False) -> Recons"),
    ({"reconstruct": on_the_host}, "the method's reconstruct fails at test_check.py, line "),
])
def test_what_breaks_the_contract_gets_one_line(make_batch, parts, words):
    check_method(Method(init, loss, reconstruct), make_batch())
    with pytest.raises(InputError) as refused:
        check_method(Method(init, loss, reconstruct)._replace(**parts), make_batch())
    message = str(refused.value)
    before, _, after = words.partition(".*")
    assert before in message and after in message and "\n" not in message, message


def test_what_is_no_method_is_refused(make_batch):
    with pytest.raises(InputError, match="make returns an object of type int, expected a"):
        check_method(3, make_batch())


@pytest.mark.parametrize("parts, words", [
    (giving(trajectory=None, steps=None), "trajectory of the method's reconstruct"),
    ({"loss": growing}, "loss fails: ValueError: Reverse-mode differentiation does not work for "
     "lax.while_loop"),  # seen by its gradient alone
])
def test_a_training_refuses_it_before_the_first_step(tmp_path, monkeypatch, capsys, parts, words):
    monkeypatch.setitem(DATASETS, "toy", toy.make)
    monkeypatch.setitem(METHODS, "broken", MethodSpec(
        lambda: Method(init, loss, reconstruct)._replace(**parts)))
    (tmp_path / "config.py").write_text(
        "from tests.support import toy\nfrom flatjax import config\ndef get_config():\n"
        "    one = toy.experiment()\n    one.method = config.method('broken')\n    return one\n")
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / 'run'}"])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and words in error
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
