"""Theorem 1 as a module and as an example."""

import importlib.util
import json
from contextlib import closing
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import config, flow, mri
from flatjax.errors import InputError
from flatjax.flow import theorem
from flatjax.runs.checkpoint import Checkpoints
from flatjax.runs.weights import expected_params
from flatjax.training.parallel import TrainState
from tests.support.arrays import complex_normal

ROOT = Path(__file__).parents[2]
STEPS = 5


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("theorem1", ROOT / "examples" / "theorem1.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problem(seed):
    """A measurement, and a term with weights of its own for each of `STEPS` cascades."""
    rng = np.random.default_rng(seed)
    measured = complex_normal(rng, (1, 2, 6, 6), np.complex128)
    mask = (rng.random((1, 1, 1, 6)) < 0.5).astype(float)
    weights = rng.normal(size=(STEPS, 6, 6)) / 3

    def term(k, own):
        return jnp.tanh(jnp.real(k)) @ own + 1j * jnp.sin(jnp.imag(k) @ own)

    return rng, mask * measured, mask, weights, term


def test_an_unrolled_network_is_the_euler_method_of_its_flow():
    rng, measured, mask, weights, term = problem(0)
    eta, lam = rng.uniform(0.1, 1.5, (2, STEPS))
    with jax.enable_x64(True):
        measured = jnp.asarray(measured)
        network = theorem.Unrolled(eta, lam, term, weights)
        states = theorem.unroll(network, measured, mask)
        reading = theorem.as_flow(network)
        np.testing.assert_allclose(theorem.euler(reading, measured, mask), states, rtol=1e-12,
                                   atol=1e-13)
        back = theorem.as_unrolled(reading)
        np.testing.assert_allclose(theorem.unroll(back, measured, mask), states, rtol=1e-12,
                                   atol=1e-13)
        assert float(reading.times[-1]) == pytest.approx(1 - lam.sum())
        measured, states = np.asarray(measured), np.asarray(states)
    k = measured
    for j in range(STEPS):
        k = k - eta[j] * mask * (k - measured) + lam[j] * np.asarray(term(k, weights[j]))
        np.testing.assert_allclose(states[j + 1], k, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", ["lam", "sigma"])
def test_a_splitting_network_is_the_implicit_explicit_euler_method_of_its_flow(given):
    """Dense solves with `A^H A + lam_j` against the solver `imex` in image space, both ways."""
    rng, coils, shape = np.random.default_rng(5), 3, (4, 5)
    delta = -rng.dirichlet(np.ones(STEPS))
    with jax.enable_x64(True):
        if given == "lam":
            lam = rng.uniform(0.05, 2.0, STEPS)
            sigma = np.asarray(theorem.from_splitting(lam, delta))
        else:
            sigma = rng.uniform(0.1, 1.0, STEPS)
            lam = np.asarray(theorem.to_splitting(delta, sigma))
    maps = complex_normal(rng, (1, coils, *shape), np.complex128)
    mask = (rng.random((1, 1, *shape)) < 0.4).astype(float)
    weights = rng.normal(size=(STEPS, 5, 5)) / 3
    with jax.enable_x64(True):
        measured = mri.Measurement(mask * complex_normal(rng, maps.shape, np.complex128), mask,
                                   jnp.asarray(maps))
        data = flow.image_space(cg_iterations=40).data_consistency(measured)

        def velocity(x, own):
            return jnp.tanh(x @ own)

        field = flow.SplitField(
            lambda x, t, args: velocity(x, args[1]), lambda x, args: data.gradient(x) * args[0],
            lambda x, step, args: data.proximal(x, -step * args[0]))
        start = mri.zero_filled(measured)
        times = np.concatenate([[1.0], 1 + np.cumsum(delta)])
        states = flow.solve(field, start, times, solver="imex", args=(sigma**-2.0, weights),
                            trajectory=True)[1]
        columns = [mri.normal(jnp.asarray(one.reshape(1, *shape)), mask, measured.maps).ravel()
                   for one in np.eye(20, dtype=complex)]
        normal, start, states = map(np.asarray, (jnp.stack(columns, axis=1), start, states))
        x = start
        for j in range(STEPS):
            denoised = x + delta[j] * np.asarray(velocity(x, weights[j]))
            right = start.ravel() + lam[j] * denoised.ravel()
            x = np.linalg.solve(normal + lam[j] * np.eye(20), right).reshape(start.shape)
            np.testing.assert_allclose(states[j + 1], x, rtol=0, atol=1e-5)  # CG stops at 1e-6


def test_a_flow_is_the_unrolled_network_of_its_euler_steps():
    rng, measured, mask, weights, term = problem(1)
    delta = -rng.dirichlet(np.ones(STEPS))
    with jax.enable_x64(True):
        measured = jnp.asarray(measured)
        sampled = theorem.Flow(delta, rng.uniform(0.5, 2, STEPS), term, weights)
        network = theorem.as_unrolled(sampled)
        np.testing.assert_allclose(network.eta, -delta / sampled.sigma**2, rtol=1e-12)
        np.testing.assert_allclose(theorem.unroll(network, measured, mask),
                                   theorem.euler(sampled, measured, mask), rtol=1e-12, atol=1e-13)
        assert float(sampled.times[-1]) == pytest.approx(0, abs=1e-12)


def test_step_sizes_alone_fix_a_profile():
    """With it, and the term divided by the timesteps, E2E-VarNet is an Euler method too."""
    rng, measured, mask, weights, term = problem(2)
    eta = rng.uniform(0.1, 1.5, STEPS)
    with jax.enable_x64(True):
        measured = jnp.asarray(measured)
        states = theorem.unroll(theorem.Unrolled(eta, np.ones(STEPS), term, weights), measured,
                                mask)
        delta, sigma = theorem.unit_interval(eta)
        assert float(delta.sum()) == pytest.approx(-1)
        reading = theorem.Flow(delta, sigma, lambda k, own: term(k, own[0]) / own[1],
                               (weights, delta))
        np.testing.assert_allclose(theorem.euler(reading, measured, mask), states, rtol=1e-11,
                                   atol=1e-12)
    delta, sigma = theorem.unit_interval(np.array([1.0, -0.5, 1.5]))
    assert (delta > 0).tolist() == [False, True, False]
    np.testing.assert_allclose(sigma, 2**-0.5, rtol=1e-6)


def test_the_sign_of_all_factors_is_the_terms_own():
    """Factors that are all negative belong to a term of the other sign, not to another pull."""
    eta, lam = np.array([1.0, 0.5]), np.array([0.8, 0.2])
    for found, expected in zip(theorem.unit_interval(eta, -lam), theorem.unit_interval(eta, lam),
                               strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.isnan(theorem.unit_interval(-eta, lam)[1]).all()


def test_the_unit_of_time_is_a_convention():
    """The timesteps of free eta and lam, brought to add up to -1, with v as much faster."""
    rng, measured, mask, weights, term = problem(3)
    eta, lam = rng.uniform(0.1, 1.5, (2, STEPS))
    with jax.enable_x64(True):
        measured = jnp.asarray(measured)
        states = theorem.unroll(theorem.Unrolled(eta, lam, term, weights), measured, mask)
        delta, sigma = theorem.unit_interval(eta, lam)
        reading = theorem.Flow(delta, sigma, lambda k, own: -lam.sum() * term(k, own), weights)
        np.testing.assert_allclose(theorem.euler(reading, measured, mask), states, rtol=1e-11,
                                   atol=1e-12)
        assert float(reading.times[-1]) == pytest.approx(0, abs=1e-12)


def run(folder, name, own, **options):
    """A workdir of a method with these weights of its own, all others being 0."""
    folder.mkdir()
    experiment = config.experiment(method=config.method(name, network={"channels": 1, "pools": 0},
                                                        **options))
    (folder / "config.json").write_text(config.to_json(experiment))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype),
                          expected_params(config.make_method(experiment))) | own
    with closing(Checkpoints(folder, "psnr", create=True)) as checkpoints:
        checkpoints.save(7, TrainState(np.int32(7), params, {}, {}), {"psnr": 1.0})
    return str(folder)


def test_the_example_shows_what_it_says(example, tmp_path, monkeypatch):
    eta, lam = np.array([0.5, 1.5, -0.5, 0.5]), np.array([0.5, 0.4, 0.2, 0.1])
    workdirs = [
        run(tmp_path / "vanilla", "vanilla", {"eta": eta, "lam": lam}, steps=4),
        run(tmp_path / "varnet", "varnet", {"eta": eta}, steps=4)]
    rng = np.random.default_rng(0)

    def noise(size):
        mask = jnp.asarray((rng.random((1, 1, 1, size)) < 0.4) + 0.0)
        return example.mri.Measurement(
            mask * complex_normal(rng, (1, 1, size, size), np.complex128) / 4, mask,
            jnp.ones((1, 1, size, size), jnp.complex128))

    monkeypatch.setattr(example, "brain_slice", noise)  # the template takes a while to load
    monkeypatch.setattr(example, "SOLVERS", {"euler": "o", "rk4": "D"})
    out = example.main(["--out", str(tmp_path / "out"), "--size", "12", "--most", "16",
                        "--workdir", *workdirs])
    assert out["largest_difference"]["float32"] < 1e-5
    assert out["largest_difference"]["float64"] < 1e-13
    for name, order in out["orders"].items():
        assert order == pytest.approx(flow.SOLVERS[name].order, abs=0.3)
    vanilla, varnet = out["runs"]
    assert vanilla["profile"] == varnet["profile"] == [0.25, 0.75, -0.25, 0.25]
    assert vanilla["steps_back"] == 1 and "sigma_of_both" not in varnet
    np.testing.assert_allclose(vanilla["delta_of_lam"], -lam / lam.sum(), rtol=1e-6)
    np.testing.assert_allclose(vanilla["sigma_of_both"],
                               np.sqrt([1 / 1.2, 4 / 18, np.nan, 0.2 / 1.2]), rtol=1e-6)
    assert out["splitting"]["largest_difference"] < 1e-4
    errors = out["splitting"]["errors"]
    assert max(errors["implicit (splitting-type)"]) < 0.5  # stable where explicit steps diverge
    assert min(errors["explicit (gradient-type)"]) > 10
    saved = json.loads((tmp_path / "out" / "theorem1.json").read_text())
    assert saved["orders"] == out["orders"]
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        f"theorem1_{name}.png"
        for name in ("agreement", "convergence", "splitting", "profiles", "free_lambda")}


def test_a_run_without_step_sizes_of_its_own_is_refused(example, tmp_path):
    workdir = run(tmp_path / "flat", "flat", {}, schedule={"steps": 1})
    with pytest.raises(InputError, match="has no step sizes of its own"):
        example.learned_steps(workdir)
