"""The vanilla unrolled network: the update that it stands for, and what it shares with FLAT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import flow, mri
from flatjax.errors import InputError
from flatjax.nets import ImageUNet
from tests.support.arrays import noisy
from tests.support.build import build
from tests.support.checks import (
    KEY,
    check_contract,
    check_nfe,
    check_remat,
    check_untrained_is_zero_filling,
    reconstruct,
    trained,
)

NET = {"network__channels": 2, "network__pools": 1, "network__time_channels": 4}
SMALL = {"steps": 3, **NET}


@pytest.mark.parametrize("coils", [1, 3])
def test_a_cascade_is_the_update_of_theorem_1(make_batch, coils):
    """k - eta_j M (k - y) - lam_j E net_j(E^H k), step sizes and networks being those learned."""
    batch = make_batch(coils=coils)
    y, mask, maps, _ = batch.measurement
    method = build("vanilla", **SMALL)
    params = trained(method, batch)
    net, scale = ImageUNet(channels=2, pools=1, time_channels=4), mri.intensity_scale(
        batch.measurement)
    y = k = y / scale
    for j, t in enumerate(flow.time_grid(3)[:-1]):
        own = jax.tree.map(lambda a, j=j: a[j], params["net"])
        refined = net.apply({"params": own}, mri.reduce(k, maps), t=jnp.full(2, t, jnp.float32))
        k = (k - params["eta"][j] * mask * (k - y)
             - params["lam"][j] * mri.expand(refined, maps))
    result = reconstruct(method, params, batch.measurement)
    np.testing.assert_allclose(result.kspace, scale * k, atol=2e-5)
    assert np.abs(result.kspace - batch.measurement.kspace).max() > 0.1


def test_what_is_learned_starts_from_one_or_from_the_uniform_timesteps(make_batch):
    batch = make_batch()
    for learned, expected in (("both", {"eta": 1.0, "lam": 1.0}), ("eta", {"eta": 1.0}),
                              ("timesteps", {"delta": -1 / 3})):
        params = build("vanilla", **SMALL, learned=learned).init(KEY, batch)
        assert params.keys() - {"net"} == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(params[name], np.full(3, value), rtol=1e-6)


def test_at_the_step_sizes_of_a_flow_it_is_flat(make_batch):
    """Whichever of them are learned, and the aligned loss too."""
    batch = make_batch()
    delta = np.diff(flow.time_grid(3))
    eta, lam = flow.to_unrolled(delta, 3**-0.5)
    derived = build("flat", **NET, schedule__steps=3)
    params = noisy(derived.init(KEY, batch), 0.1)
    a, loss = reconstruct(derived, params, batch.measurement), derived.loss(params, None, batch)[0]
    for learned, own in (("eta", {"eta": eta}), ("timesteps", {"delta": delta}),
                         ("both", {"eta": eta, "lam": lam})):
        method = build("vanilla", **SMALL, learned=learned, loss__velocity=0.1)
        b = reconstruct(method, params | own, batch.measurement)
        np.testing.assert_allclose(a.trajectory, b.trajectory, atol=1e-5)
        assert float(method.loss(params | own, None, batch)[0]) == pytest.approx(float(loss),
                                                                                 rel=1e-4)


def test_with_implicit_steps_it_starts_as_flat_and_is_flat_at_its_step_sizes(make_batch):
    batch = make_batch(coils=2)
    implicit = {"solver": "imex", "space__name": "image"}
    derived = build("flat", **NET, schedule__steps=3, **implicit)
    params = noisy(derived.init(KEY, batch), 0.1)
    expected = reconstruct(derived, params, batch.measurement)
    for learned, own in (("eta", {}), ("timesteps", {}),
                         ("both", {"log_lam": jnp.full(3, jnp.log(1 / 3))})):
        method = build("vanilla", **SMALL, learned=learned, **implicit)
        started = method.init(KEY, batch) | {"net": params["net"]} | own
        found = reconstruct(method, started, batch.measurement)
        np.testing.assert_allclose(found.trajectory, expected.trajectory, atol=1e-4)


@pytest.mark.parametrize("options", [
    {"loss__velocity": 0.1}, {"learned": "eta", "projection": True},
    {"solver": "imex", "space__name": "image", "loss__velocity": 0.1},
    {"learned": "timesteps", "weights": "shared", "space__name": "image"}], ids=str)
def test_every_choice_computes_a_finite_loss_and_gradient(make_batch, options):
    batch = make_batch(coils=2)
    method = build("vanilla", **SMALL, **options)
    params = noisy(method.init(KEY, batch), 0.05)
    (_, terms), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(params, KEY, batch)
    assert set(terms) == {"ssim", "l1", "kspace"} | (
        {"velocity"} if "loss__velocity" in options else set())
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all(), path
    # The first data step has no residual to act on, and the projection undoes the last.
    acting = slice(1, -1 if "projection" in options else None)
    for name in set(params) - {"net"}:
        assert np.abs(grads[name][acting]).min() > 0


def test_what_holds_for_every_unrolled_method(make_batch):
    method = build("vanilla", **SMALL)
    check_untrained_is_zero_filling(method, make_batch(coils=2))
    check_contract(method, make_batch(coils=2))
    check_nfe(method, make_batch(coils=2))
    check_remat(lambda **options: build("vanilla", **SMALL, **options), make_batch())


@pytest.mark.parametrize("options, match", [
    ({"steps": 0}, "steps is 0"), ({"learned": "lam"}, "expected one of both, eta, timesteps"),
    ({"solver": "heun"}, "expected one of euler, imex"),
    ({"weights": "shared", "network__time_channels": 0}, "time_channels is 0")])
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("vanilla", **SMALL | options)
