"""MoDL: its steps, implicit gradients and their memory, for every choice in its config."""

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from flatjax import mri
from flatjax.errors import InputError
from flatjax.flow import space
from flatjax.methods import modl
from flatjax.nets import ImageUNet
from tests.support.build import build
from tests.support.checks import (
    KEY,
    check_contract,
    check_gradient,
    check_nfe,
    check_remat,
    check_untrained_is_zero_filling,
    gradient,
    reconstruct,
    trained,
)

SMALL = {"steps": 2, "network__channels": 2, "network__pools": 1}


class SmoothNet(nn.Module):
    """A stand-in for the U-Net that computes in the precision of its input."""

    @nn.compact
    def __call__(self, image, t=None):
        gain = self.param("gain", nn.initializers.constant(0.4), (2,))
        return gain[0] * jnp.tanh(jnp.roll(image.real, 1, -1)) + 1j * gain[1] * jnp.sin(image.imag)


def unrolled(operator, b, x0, iterations):
    """Conjugate gradients through which gradients go, iteration by iteration."""
    def inner(u, v):
        return jnp.sum(jnp.real(jnp.conj(u) * v), axis=(1, 2), keepdims=True)

    def advance(_, state):
        x, residual, direction = state
        image = operator(direction)
        power = inner(residual, residual)
        alpha = power / inner(direction, image)
        residual = residual - alpha * image
        return (x + alpha * direction, residual,
                residual + inner(residual, residual) / power * direction)

    residual = b - operator(x0)
    return jax.lax.fori_loop(0, iterations, advance, (x0, residual, residual))[0]


def dense_normal(mask, maps):
    """A^H A of one slice as a matrix `[pixels, pixels]`."""
    shape = maps.shape[-2:]
    basis = np.eye(np.prod(shape), dtype=np.complex64).reshape(-1, *shape)
    rows = jax.vmap(lambda e: mri.adjoint(mri.expand(e[None], maps[None]), mask[None],
                                          maps[None])[0])(basis)
    return np.asarray(rows, np.complex128).reshape(len(basis), -1).T


@pytest.mark.parametrize("coils", [1, 3])
def test_a_step_is_a_network_and_a_dense_solve(make_batch, coils):
    batch = make_batch(coils=coils, shape=(8, 9))
    method = build("modl", **SMALL, space__cg_iterations=40)
    params = trained(method, batch)
    net, lam = ImageUNet(channels=2, pools=1, time_channels=0), np.exp(params["log_lam"])
    scale = mri.intensity_scale(batch.measurement)[:, 0]
    start = x = mri.zero_filled(batch.measurement) / scale
    for _ in range(2):
        right = start + lam * (x + net.apply({"params": params["net"]}, x))
        x = jnp.stack([np.linalg.solve(
            dense_normal(mask, maps) + lam * np.eye(72), np.ravel(b)).reshape(8, 9)
            for b, mask, maps in zip(right, *batch.measurement[1:3], strict=True)])
        x = x.astype(jnp.complex64)
    result = reconstruct(method, params, batch.measurement)
    np.testing.assert_allclose(result.kspace, mri.expand(scale * x, batch.measurement.maps),
                               atol=1e-4)


def test_untrained_it_is_zero_filling_with_one_coil_and_sense_with_more(make_batch):
    check_untrained_is_zero_filling(build("modl", **SMALL), make_batch())
    batch = make_batch(coils=3)
    method = build("modl", steps=40, network__channels=2, network__pools=1)
    states = reconstruct(method, jax.jit(method.init)(KEY, batch), batch.measurement).trajectory
    residual = [np.linalg.norm(batch.measurement.mask * k - batch.measurement.kspace)
                for k in states[1:]]
    assert residual[-1] < 0.1 * residual[0] and (np.diff(residual) < 0).all()


@pytest.mark.parametrize("coils", [1, 3])
def test_what_holds_for_every_unrolled_method(make_batch, coils):
    method = build("modl", **SMALL)
    check_contract(method, make_batch(coils=coils))
    check_nfe(method, make_batch(coils=coils))


def test_lambda_starts_where_the_authors_put_it(make_batch):
    assert float(
        np.exp(build("modl", **SMALL).init(KEY, make_batch())["log_lam"])
    ) == pytest.approx(0.05)


def test_the_implicit_gradient_is_the_unrolled_one_and_that_of_differences(
        make_batch, monkeypatch):
    """The whole loss in float64, by way of a network that allows it."""
    batch = make_batch(coils=3, shape=(12, 10))
    with jax.enable_x64(True):
        batch = jax.tree.map(lambda x: x.astype(
            np.complex128 if jnp.iscomplexobj(x) else np.float64), batch)
        method = modl(SmoothNet(), space.image_space(cg_iterations=70), steps=3)
        params = {"net": {"gain": jnp.asarray([0.3, -0.5])}, "log_lam": jnp.asarray(-1.0)}

        def loss(params):
            return method.loss(params, None, batch)[0]

        implicit = jax.jit(jax.grad(loss))(params)
        flat, unflatten = jax.flatten_util.ravel_pytree(params)
        value = jax.jit(lambda flat: loss(unflatten(flat)))
        step = 1e-5
        differences = [float(value(flat + step * e) - value(flat - step * e)) / (2 * step)
                       for e in jnp.eye(len(flat))]
        with monkeypatch.context() as patch:
            patch.setattr(space, "solve_hermitian", lambda *args: unrolled(*args[:3], 40))
            through = jax.jit(jax.grad(loss))(params)
        implicit, through = (jax.flatten_util.ravel_pytree(g)[0] for g in (implicit, through))
    assert np.abs(differences).min() > 1e-4
    np.testing.assert_allclose(implicit, differences, rtol=1e-5)
    np.testing.assert_allclose(implicit, through, rtol=1e-5)


def test_memory_of_the_gradient_does_not_depend_on_cg_iterations(make_batch):
    batch = make_batch(coils=2)
    params = trained(build("modl", **SMALL), batch)

    def memory(cg_iterations):
        method = build("modl", **SMALL, space__cg_iterations=cg_iterations)
        compiled = gradient(method).lower(params, KEY, batch).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(12) == memory(4) > 0


@pytest.mark.parametrize(
    "coils, options, terms",
    [
        (2, {}, ["ssim", "l1", "kspace"]),
        (2, {"loss__kspace": 0.0, "combine": "rss", "network__dtype": "bfloat16"}, ["ssim", "l1"]),
    ],
    ids=str,
)
def test_every_choice_computes_a_finite_loss_and_gradient(make_batch, coils, options, terms):
    check_gradient(build("modl", **SMALL, **options), make_batch(coils=coils), terms)


def test_rematerialization_changes_memory_alone(make_batch):
    check_remat(lambda **options: build("modl", **SMALL, **options), make_batch())


@pytest.mark.parametrize("options, match", [
    ({"steps": 0}, "steps is 0"), ({"space__cg_iterations": 0}, "cg_iterations is 0"),
    ({"network__channels": 0}, "channels is 0"), ({"network__pools": -1}, "pools is -1"),
    ({"combine": "x"}, "sense, rss"), ({"network__dtype": "float16"}, "float32, bfloat16"),
    ({"loss__l1": -1.0}, "l1 is -1.0"), ({"loss__kspace": float("nan")}, "kspace is nan")])
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("modl", **(SMALL | options))
