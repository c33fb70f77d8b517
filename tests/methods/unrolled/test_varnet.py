"""E2E-VarNet: parity with fastMRI, what it computes, for every choice in its config."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import losses, mri
from flatjax.errors import InputError
from flatjax.methods import flat
from flatjax.methods.unrolled import varnet
from flatjax.nets.fastmri import varnet_params
from tests.golden.make_golden import VARNET_COILS, varnet_problem
from tests.support.checks import (
    KEY,
    check_contract,
    check_empty_slice,
    check_gradient,
    check_nfe,
    check_remat,
    check_scaling,
    check_untrained_is_zero_filling,
    reconstruct,
    trained,
)

GOLDEN = Path(__file__).parents[2] / "golden"
SMALL = {"steps": 3, "channels": 2, "pools": 1}


@pytest.mark.parametrize("name", VARNET_COILS)
def test_every_cascade_is_fastmris(name):
    """k-space and weights from tests/golden/make_golden.py, run with torch and fastmri."""
    with np.load(GOLDEN / "fastmri_varnet.npz") as file:
        state = {key: file[key] for key in file.files}
    expected = state.pop(name)
    kspace, mask, maps = varnet_problem(name)
    measurement = mri.Measurement(kspace, mask.astype(np.float32), maps)
    method = varnet.make(steps=3, channels=2, pools=2)
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
    method = varnet.make(**SMALL, parity=False, loss="flat", w_l1=0.7)
    free = flat.make(**SMALL, time_channels=0, timesteps="learned", step_sizes="free", w_l1=0.7,
                     w_velocity=0.0)
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
    method = varnet.make(**SMALL, combine="rss")
    params = trained(method, batch)
    loss, terms = jax.jit(method.loss)(params, KEY, batch)
    image = reconstruct(method, params, batch.measurement).image
    expected = 1 - losses.ssim(image, batch.target).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    assert terms.keys() == {"ssim"}


@pytest.mark.parametrize("coils, options, terms", [
    (1, {}, ["ssim"]), (2, {"weights": "shared", "combine": "rss"}, ["ssim"]),
    (1, {"parity": False, "loss": "flat"}, ["ssim", "l1", "kspace"]),
    (2, {"loss": "flat", "w_ssim": 0.0, "dtype": "bfloat16"}, ["l1", "kspace"])], ids=str)
def test_every_choice_computes_a_finite_loss_and_gradient(make_batch, coils, options, terms):
    grads = check_gradient(varnet.make(**SMALL, **options), make_batch(coils=coils), terms)
    assert np.abs(grads["eta"][1:]).min() > 0  # the first step has no residual to act on


def test_shared_weights_are_equal_stacked_ones_and_step_sizes_start_at_one(make_batch):
    batch = make_batch()
    shared, stacked = varnet.make(**SMALL, weights="shared"), varnet.make(**SMALL)
    np.testing.assert_array_equal(shared.init(KEY, batch)["eta"], np.ones(3))
    params = trained(shared, batch)
    repeated = params | {"net": jax.tree.map(lambda a: jnp.stack([a] * 3), params["net"])}
    a, b = (reconstruct(m, p, batch.measurement)
            for m, p in ((shared, params), (stacked, repeated)))
    np.testing.assert_allclose(a.trajectory, b.trajectory, atol=1e-5)
    own = jax.jit(stacked.init)(KEY, batch)["net"]["unet"]["bottom"]["Conv_0"]["kernel"]
    assert np.abs(own[0] - own[1]).max() > 0.1


@pytest.mark.parametrize("coils", [1, 3])
def test_an_untrained_network_without_parity_leaves_the_measurement_alone(make_batch, coils):
    check_untrained_is_zero_filling(varnet.make(**SMALL, parity=False), make_batch(coils=coils))


@pytest.mark.parametrize("coils", [1, 3])
def test_the_parts_of_a_reconstruction_belong_together(make_batch, coils):
    check_contract(varnet.make(**SMALL), make_batch(coils=coils))


@pytest.mark.parametrize("weights", varnet.WEIGHTS)
def test_network_evaluations_are_counted_honestly(make_batch, weights):
    check_nfe(varnet.make(**SMALL, weights=weights), make_batch())


@pytest.mark.parametrize("parity", [True, False])
def test_reconstruction_commutes_with_scaling(make_batch, parity):
    check_scaling(varnet.make(**SMALL, parity=parity), make_batch())


@pytest.mark.parametrize("parity", [True, False])
def test_an_empty_slice_stays_empty_and_harms_no_neighbour(make_batch, parity):
    loss = "own" if parity else "flat"
    check_empty_slice(varnet.make(**SMALL, parity=parity, loss=loss), make_batch())


def test_rematerialisation_changes_memory_alone(make_batch):
    check_remat(lambda **options: varnet.make(**SMALL, **options), make_batch())


@pytest.mark.parametrize("options, match", [
    ({"steps": 0}, "steps is 0"), ({"channels": 0}, "channels is 0"),
    ({"pools": -1}, "pools is -1"), ({"weights": "tied"}, "per_cascade, shared"),
    ({"loss": "l2"}, "loss is 'l2', expected one of own, flat"), ({"combine": "x"}, "sense, rss"),
    ({"dtype": "float16"}, "float32, bfloat16"), ({"w_ssim": -1.0}, "w_ssim is -1.0"),
    ({"w_kspace": float("nan")}, "w_kspace is nan")])
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        varnet.make(**(SMALL | options))
