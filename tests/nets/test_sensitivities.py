"""Learned coil sensitivities: parity with fastMRI, and as an option of the unrolled methods."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import config, mri, nets
from flatjax.errors import InputError
from flatjax.evaluation.scoring import scorer
from flatjax.methods import varnet
from flatjax.mri.host.masks import make_mask
from flatjax.mri.sampling import calibration_mask, calibration_size
from flatjax.nets import SensitivityNet
from flatjax.nets.fastmri import varnet_params
from tests.golden.make_golden import sensitivity_problem
from tests.support.arrays import complex_normal, noisy
from tests.support.build import build

GOLDEN = Path(__file__).parents[1] / "golden" / "fastmri_sensitivities.npz"
SMALL = {"network__channels": 2, "network__pools": 0, "sensitivities__name": "learned",
         "sensitivities__channels": 2, "sensitivities__pools": 0}
STEPS = {"flat": {"schedule__steps": 2}, "varnet": {"steps": 2}, "modl": {"steps": 2}}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


def test_maps_and_the_whole_varnet_are_fastmris(golden):
    expected, image = golden.pop("maps"), golden.pop("image")
    params = varnet_params(golden)
    kspace, mask = sensitivity_problem()
    mask = mask.astype(np.float32)
    center = mri.ifft2c(jnp.asarray(kspace) * calibration_mask(mask))
    maps = jax.jit(SensitivityNet(channels=2, pools=2).apply)(
        {"params": params["sensitivities"]}, center)
    assert maps.dtype == jnp.complex64
    np.testing.assert_allclose(maps, expected, atol=1e-4)
    method = varnet(nets.fastmri_unet(channels=2, pools=2), steps=2,
                    sensitivities=nets.learned_maps(channels=2, pools=2), combine="rss")
    unused = jnp.full(kspace.shape, jnp.nan, jnp.complex64)  # the maps that were given
    result = jax.jit(method.reconstruct)(params, KEY, mri.Measurement(kspace, mask, unused))
    np.testing.assert_allclose(result.image, image, atol=1e-4 * image.max())


def test_coils_and_slices_are_independent_and_empty_ones_harmless():
    images = jnp.asarray(complex_normal(np.random.default_rng(0), (2, 3, 16, 18)))
    net = SensitivityNet(channels=2, pools=0)
    params = jax.jit(net.init)(KEY, images)
    evaluate = jax.jit(net.apply)
    maps = evaluate(params, images)
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, axis=1), 1, rtol=1e-4)
    order = [2, 0, 1]
    np.testing.assert_allclose(evaluate(params, images[:, order]), maps[:, order], atol=1e-5)
    partly = images.at[0].set(0).at[1, 2].set(0)
    gradient = jax.jit(jax.grad(lambda p: (mri.safe_abs(net.apply(p, partly))
                                           * jnp.arange(18.0)).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    blank = evaluate(params, partly)
    assert not blank[0].any() and not blank[1, 2].any() and blank[1, 0].any()


@pytest.mark.parametrize("name", [
    "flat", *(pytest.param(name, marks=pytest.mark.slow) for name in ("varnet", "modl"))])
def test_methods_learn_their_maps_and_ignore_those_given(name, make_batch):
    batch = make_batch(coils=3, shape=(16, 18))
    method = build(name, **SMALL, **STEPS[name])
    params = noisy(jax.jit(method.init)(KEY, batch), 0.1)
    plain = jax.eval_shape(build(name, network__channels=2, network__pools=0,
                                 **STEPS[name]).init, KEY, batch)
    assert params.keys() - {"sensitivities"} == plain.keys()
    reconstruct = jax.jit(method.reconstruct)
    result = reconstruct(params, KEY, batch.measurement)
    other = reconstruct(params, KEY, batch.measurement._replace(
        maps=jnp.zeros_like(batch.measurement.maps)))
    np.testing.assert_array_equal(result.image, other.image)
    (loss, _), grads = jax.jit(jax.value_and_grad(method.loss, has_aux=True))(params, KEY, batch)
    assert np.isfinite(loss)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads["sensitivities"]):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path


def test_maps_see_only_the_sampled_center(make_batch):
    measurement = make_batch(coils=3, shape=(20, 22)).measurement
    method = build("flat", **SMALL, **STEPS["flat"])
    kspace = measurement.kspace
    inside = calibration_mask(measurement.mask)
    changed = measurement._replace(kspace=jnp.where(inside, kspace, 1j * kspace))
    batch = mri.Batch(measurement, kspace, jnp.abs(kspace[:, 0]))
    params = jax.jit(method.init)(KEY, batch)  # velocity 0: the image is E^H y by the maps
    maps = jax.jit(SensitivityNet(channels=2, pools=0).apply)(
        {"params": params["sensitivities"]}, mri.ifft2c(kspace * inside))
    reconstruct = jax.jit(method.reconstruct)
    for given in (measurement, changed):
        image = reconstruct(params, KEY, given).image
        np.testing.assert_allclose(image, mri.combine(given.kspace, maps), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["random", "poisson"])
def test_calibration_masks_are_the_boxes(kind):
    mask = np.stack([make_mask(kind, (24, 26), 3, 0.1, seed) for seed in range(3)])[:, None]
    found = jax.jit(calibration_mask)(mask)
    assert found.shape == mask.shape and found.dtype == bool
    rows, columns = calibration_size(mask)
    np.testing.assert_array_equal(found.sum((-2, -1)), rows * columns)
    assert mask[np.asarray(found)].all()


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"sensitivities__name": "true"},
            "sensitivities.name is 'true', expected one of given, learned",
        ),
        ({"sensitivities__pools": 5}, "pools is 5, expected one of 0, 1, 2, 3, 4"),
        ({"sensitivities__channels": 0}, "channels is 0, expected at least 1"),
    ],
)
def test_bad_choices_are_refused(options, message):
    for name in STEPS:
        with pytest.raises(InputError, match=message):
            build(name, **SMALL | options)


def test_the_last_state_scored_is_the_result(make_batch):
    """Both by the maps that the network made."""
    batch = make_batch(coils=3)
    method = build("varnet", **SMALL, steps=2)
    params = noisy(jax.jit(method.init)(jax.random.key(0), batch), 0.1)
    out = scorer(method, "sense")(params, jax.random.key(0), batch)
    np.testing.assert_allclose(out["states"][-1], out["reconstruction"], rtol=1e-4, atol=1e-5)
    given = mri.combine(batch.measurement.kspace, batch.measurement.maps, "sense")
    np.testing.assert_allclose(out["zero_filled"], given, rtol=1e-5, atol=1e-6)
    assert np.abs(out["states"][0] - given).max() > 0.01


def test_masks_without_a_centre_are_refused():
    whole = config.experiment(method=config.method("flat", sensitivities={"name": "learned"}),
                              acquisition=config.acquisition(center_fraction=0.0))
    with pytest.raises(InputError, match="center_fraction is 0, expected above 0"):
        config.make_acquisition(whole)
