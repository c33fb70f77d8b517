"""What holds for every unrolled method."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

from flatjax import mri
from flatjax.methods import zero_filled
from flatjax.nets import ImageUNet
from tests.support.arrays import noisy

KEY = jax.random.key(0)


def reconstruct(method, params, measurement):
    return jax.jit(method.reconstruct, static_argnames="trajectory")(
        params, KEY, measurement, trajectory=True)


def trained(method, batch):
    """Params away from their initial values."""
    return noisy(jax.jit(method.init)(KEY, batch), 0.1)


def check_untrained_is_zero_filling(method, batch):
    result = reconstruct(method, jax.jit(method.init)(KEY, batch), batch.measurement)
    zero = zero_filled().reconstruct({}, None, batch.measurement)
    np.testing.assert_allclose(result.image, zero.image, atol=1e-5)


def check_contract(method, batch):
    """A reconstruction's parts belong together, and a trajectory is only made on request.

    It scales with the measurement, and an empty slice stays empty and harms no neighbor.
    """
    params = trained(method, batch)
    _check_parts(method, params, batch)
    _check_scaling(method, params, batch)
    _check_empty_slice(method, params, batch)


def _check_parts(method, params, batch):
    result = reconstruct(method, params, batch.measurement)
    maps = batch.measurement.maps
    assert result.trajectory.shape == (len(result.steps), *batch.kspace.shape)
    np.testing.assert_allclose(result.trajectory[0], batch.measurement.kspace, atol=1e-6)
    np.testing.assert_array_equal(result.trajectory[-1], result.kspace)
    np.testing.assert_allclose(result.image, mri.combine(result.kspace, maps), atol=1e-6)
    assert np.abs(result.kspace - batch.measurement.kspace).max() > 0.1
    plain = jax.eval_shape(method.reconstruct, params, KEY, batch.measurement)
    assert plain.trajectory is None and plain.times is None
    assert plain.image.shape == batch.target.shape


def gradient(method):
    return jax.jit(jax.value_and_grad(method.loss, has_aux=True))


def check_gradient(method, batch, terms):
    """Value and gradient are finite, the loss has the terms and every weight a part in it."""
    params = trained(method, batch)
    (loss, found), grads = gradient(method)(params, KEY, batch)
    assert found.keys() == set(terms)
    assert float(loss) == pytest.approx(float(sum(found.values())), rel=1e-5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0, path
    return grads


def _check_empty_slice(method, params, batch):
    full = reconstruct(method, params, batch.measurement)
    kspace, whole, target = jax.tree.map(lambda x: x.at[0].set(0), (
        batch.measurement.kspace, batch.kspace, batch.target))
    half = batch._replace(measurement=batch.measurement._replace(kspace=kspace), kspace=whole,
                          target=target)
    result = reconstruct(method, params, half.measurement)
    np.testing.assert_allclose(result.image[0], 0, atol=1e-4)
    np.testing.assert_allclose(result.image[1], full.image[1], rtol=1e-4, atol=1e-5)
    (loss, _), grads = gradient(method)(params, KEY, half)
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def _check_scaling(method, params, batch):
    image = reconstruct(method, params, batch.measurement).image
    for factor in (1e-12, 1e12):
        scaled = batch.measurement._replace(
            kspace=(factor * np.asarray(batch.measurement.kspace)).astype(np.complex64))
        result = reconstruct(method, params, scaled)
        np.testing.assert_allclose(result.image / factor, image, rtol=1e-3, atol=1e-4)


def check_nfe(method, batch):
    """Evaluations of the network, counted while the reconstruction runs."""
    calls = []

    def spy(call, args, kwargs, context):
        if isinstance(context.module, ImageUNet) and context.method_name == "__call__":
            jax.debug.callback(lambda: calls.append(1))
        return call(*args, **kwargs)

    params = jax.jit(method.init)(KEY, batch)
    with nn.intercept_methods(spy):  # a function of its own, for JAX keeps those it has traced
        result = jax.jit(lambda *args: method.reconstruct(*args))(params, KEY, batch.measurement)
        jax.block_until_ready(result.image)
    jax.effects_barrier()
    assert len(calls) == result.nfe > 0


def check_remat(make, batch):
    """The same loss and gradient, but for rounding, from less memory."""
    params = trained(make(), batch)
    compiled = [gradient(make(remat=remat)).lower(params, KEY, batch).compile()
                for remat in (False, True)]
    (a, a_grads), (b, b_grads) = (
        ((one := program(params, KEY, batch))[0][0], ravel_pytree(one[1])[0])
        for program in compiled)
    assert float(a) == pytest.approx(float(b), rel=1e-5)
    # Where rounding moves an activation to the other side of its kink, single entries differ.
    assert np.linalg.norm(a_grads - b_grads) < 0.02 * np.linalg.norm(a_grads) > 0
    plain, remat = (one.memory_analysis().temp_size_in_bytes for one in compiled)
    assert remat < plain
