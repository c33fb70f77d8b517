"""E2E-VarNet: parity with fastMRI, what it computes, for every choice in its config."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import losses, mri
from flatjax.errors import InputError
from flatjax.nets.fastmri import varnet_params
from tests.golden.make_golden import VARNET_COILS, varnet_problem
from tests.support.build import build
from tests.support.checks import (
    KEY,
    check_contract,
    check_gradient,
    check_nfe,
    check_remat,
    check_untrained_is_zero_filling,
    reconstruct,
    trained,
)

GOLDEN = Path(__file__).parents[2] / "golden"
SMALL = {"steps": 3, "network__channels": 2, "network__pools": 1}


@pytest.mark.parametrize("name", VARNET_COILS)
def test_every_cascade_is_fastmris(name):
    """k-space and weights from tests/golden/make_golden.py, run with torch and fastmri."""
    with np.load(GOLDEN / "fastmri_varnet.npz") as file:
        state = {key: file[key] for key in file.files}
    expected = state.pop(name)
    kspace, mask, maps = varnet_problem(name)
    measurement = mri.Measurement(kspace, mask.astype(np.float32), maps)
    method = build("varnet", steps=3, network__channels=2, network__pools=2)
    params = varnet_params(state)
    blank = mri.Batch(measurement, kspace, np.abs(kspace[:, 0]))
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(method.init, KEY, blank))
    assert jax.tree.map(jnp.shape, params) == shapes
    states = reconstruct(method, params, measurement).trajectory[1:]
    for ours, theirs, before in zip(states, expected, (kspace, *expected), strict=False):
        assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)
        assert np.linalg.norm(theirs - before) > 0.1 * np.linalg.norm(theirs)


@pytest.mark.parametrize("coils", [1, 3])
def test_without_parity_it_is_flats_free_network_without_time(make_batch, coils):
    """Also the composite loss, term by term."""
    batch = make_batch(coils=coils)
    method = build("varnet", **SMALL, network__name="plain", loss__name="flat", loss__l1=0.7)
    free = build("vanilla", **SMALL, network__time_channels=0, loss__l1=0.7)
    params = trained(method, batch)
    both = params | {"lam": jnp.ones(3)}
    a, b = (reconstruct(m, p, batch.measurement) for m, p in ((method, params), (free, both)))
    np.testing.assert_allclose(a.trajectory, b.trajectory, atol=1e-5)
    (loss, terms), (expected, expected_terms) = (
        jax.jit(m.loss)(p, KEY, batch) for m, p in ((method, params), (free, both)))
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert terms.keys() == expected_terms.keys()


def test_its_own_loss_is_ssim_of_the_image_it_returns(make_batch):
    batch = make_batch()
    method = build("varnet", **SMALL, combine="rss")
    params = trained(method, batch)
    loss, terms = jax.jit(method.loss)(params, KEY, batch)
    image = reconstruct(method, params, batch.measurement).image
    expected = 1 - losses.ssim(prediction=image, target=batch.target).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert terms.keys() == {"ssim"}


@pytest.mark.parametrize(
    "coils, options, terms",
    [
        (2, {"weights": "shared", "combine": "rss"}, ["ssim"]),
        (1, {"network__name": "plain", "loss__name": "flat"}, ["ssim", "l1", "kspace"]),
        (
            2,
            {"loss__name": "flat", "loss__ssim": 0.0, "network__dtype": "bfloat16"},
            ["l1", "kspace"],
        ),
    ],
    ids=str,
)
def test_every_choice_computes_a_finite_loss_and_gradient(make_batch, coils, options, terms):
    grads = check_gradient(build("varnet", **SMALL, **options), make_batch(coils=coils), terms)
    assert np.abs(grads["eta"][1:]).min() > 0  # the first step has no residual to act on


def test_shared_weights_are_equal_stacked_ones_and_step_sizes_start_at_one(make_batch):
    batch = make_batch()
    shared, stacked = build("varnet", **SMALL, weights="shared"), build("varnet", **SMALL)
    np.testing.assert_array_equal(shared.init(KEY, batch)["eta"], np.ones(3))
    params = trained(shared, batch)
    repeated = params | {"net": jax.tree.map(lambda a: jnp.stack([a] * 3), params["net"])}
    a, b = (reconstruct(m, p, batch.measurement)
            for m, p in ((shared, params), (stacked, repeated)))
    np.testing.assert_allclose(a.trajectory, b.trajectory, atol=1e-5)
    own = jax.jit(stacked.init)(KEY, batch)["net"]["unet"]["bottom"]["Conv_0"]["kernel"]
    assert np.abs(own[0] - own[1]).max() > 0.1


def test_an_untrained_network_without_parity_leaves_the_measurement_alone(make_batch):
    check_untrained_is_zero_filling(
        build("varnet", **SMALL, network__name="plain"), make_batch(coils=3)
    )


@pytest.mark.parametrize("coils, options", [
    (3, {"weights": "per_cascade"}),
    (1, {"weights": "shared", "network__name": "plain", "loss__name": "flat"})], ids=str)
def test_what_holds_for_every_unrolled_method(make_batch, coils, options):
    method = build("varnet", **SMALL, **options)
    check_contract(method, make_batch(coils=coils))
    check_nfe(method, make_batch(coils=coils))


def test_rematerialization_changes_memory_alone(make_batch):
    check_remat(lambda **options: build("varnet", **SMALL, **options), make_batch())


@pytest.mark.parametrize(
    "options, match",
    [
        ({"steps": 0}, "steps is 0"),
        ({"network__channels": 0}, "channels is 0"),
        ({"network__pools": -1}, "pools is -1"),
        ({"weights": "tied"}, "per_cascade, shared"),
        ({"loss__name": "l2"}, "loss.name is 'l2', expected one of flat, own"),
        ({"combine": "x"}, "sense, rss"),
        ({"network__dtype": "float16"}, "float32, bfloat16"),
        ({"loss__name": "flat", "loss__ssim": -1.0}, "ssim is -1.0"),
        ({"loss__name": "flat", "loss__kspace": float("nan")}, "kspace is nan"),
    ],
)
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("varnet", **(SMALL | options))
