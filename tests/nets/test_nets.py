"""The networks: convolution gradients, normalization, padding, time, parity with fastMRI."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax.nets import ImageUNet, conv
from flatjax.nets.conv import UpConv, average_pool, conv2d
from flatjax.nets.fastmri import norm_unet_params
from flatjax.nets.unet import time_features
from tests.golden.make_golden import complex_image
from tests.support.arrays import complex_normal, noisy

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("size, shape", [(1, (1, 5, 7, 4)), (3, (2, 8, 8, 3)), (3, (1, 5, 7, 4))])
def test_convolution_and_both_its_gradients_are_xlas(shape, size):
    check_convolution(shape, size)


@pytest.mark.parametrize("size, shape", [(1, (2, 9, 6, 3)), (3, (1, 6, 7, 4)), (5, (2, 9, 6, 3))])
def test_gradients_by_chunks_of_rows_are_xlas(shape, size, monkeypatch):
    monkeypatch.setattr(conv, "_CACHED_BYTES", 0)
    monkeypatch.setattr(conv, "_CHUNK_BYTES", 1)
    check_convolution(shape, size)


def check_convolution(shape, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape).astype(np.float32)
    kernel = rng.normal(size=(size, size, shape[-1], 5)).astype(np.float32)
    cotangent = rng.normal(size=(*shape[:3], 5)).astype(np.float32)

    def reference(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME",
                                            dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def value_and_gradients(function):
        value, pullback = jax.vjp(function, x, kernel)
        return value, *pullback(cotangent)

    ours, theirs = (jax.jit(value_and_gradients, static_argnums=0)(f) for f in (conv2d, reference))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    for a, b in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_up_convolution_is_the_transposed_convolution():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    module = UpConv(6)
    params = module.init(jax.random.key(1), x)
    flipped = jnp.flip(params["params"]["kernel"], (0, 1))
    expected = jax.lax.conv_transpose(x, flipped, (2, 2), "VALID",
                                      dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(module.apply(params, x), expected, atol=1e-5)
    np.testing.assert_allclose(average_pool(x[:, :2]), x[:, :2].reshape(2, 1, 2, 2, 2, 5)
                               .mean(axis=(2, 4)), atol=1e-6)


def draw(net, shape, seed=0):
    """Random images of that shape, weights for them and the compiled network."""
    image = complex_normal(np.random.default_rng(seed), shape)
    params = jax.jit(net.init)(jax.random.key(0), image, t=jnp.ones(len(image)))
    return image, params, jax.jit(net.apply)


@pytest.mark.parametrize("shape", [(13, 18), (1, 1)])
def test_any_size_goes_through_and_an_untrained_network_gives_zero(shape):
    image, params, apply = draw(ImageUNet(channels=2, pools=1), (2, *shape))
    np.testing.assert_array_equal(apply(params, image, t=jnp.ones(2)), 0)
    out = apply(noisy(params), image, t=jnp.ones(2))
    assert out.shape == image.shape and out.dtype == jnp.complex64
    assert np.isfinite(out).all()


def test_output_scales_with_the_input_ignores_its_mean_and_is_told_the_time_of_each_sample():
    image, params, apply = draw(ImageUNet(channels=2, pools=1), (2, 12, 12))
    params, t = noisy(params), jnp.asarray([0.2, 0.9])
    out = apply(params, image, t=t)
    assert np.abs(out).max() > 0.1
    np.testing.assert_allclose(apply(params, 50 * image + 7 - 3j, t=t), 50 * out,
                               rtol=1e-3, atol=1e-2)
    twice = apply(params, image[[0, 0]], t=t)
    np.testing.assert_allclose(twice[0], out[0], rtol=1e-4, atol=1e-5)
    assert np.abs(twice[0] - twice[1]).max() > 1e-3


def test_no_two_times_have_the_same_features():
    features = time_features(jnp.linspace(0, 1, 50), 16)
    gaps = np.linalg.norm(features[:, None] - features[None], axis=-1) + np.eye(50)
    assert features.shape == (50, 16) and gaps.min() > 0.05


def test_gradients_are_finite_on_an_empty_image():
    net = ImageUNet(channels=2, pools=1)
    image, params, _ = draw(net, (1, 8, 8))
    value, grads = jax.jit(jax.value_and_grad(
        lambda p, x: jnp.sum(jnp.real(net.apply(p, x, t=jnp.ones(1)))), argnums=(0, 1)))(
            noisy(params), 0 * image)
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(grads))


def test_bfloat16_stays_near_float32():
    image, params, apply = draw(ImageUNet(channels=4, pools=1), (1, 16, 16))
    params = noisy(params, 0.05)
    half = ImageUNet(channels=4, pools=1, dtype=jnp.bfloat16)
    a, b = (np.asarray(f(params, image, t=jnp.ones(1))) for f in (apply, jax.jit(half.apply)))
    assert b.dtype == np.complex64
    assert 1e-5 < np.linalg.norm(a - b) / np.linalg.norm(a) < 0.05


def test_parity_mode_is_fastmris_norm_unet():
    """Output and weights from tests/golden/make_golden.py, run with torch and fastmri."""
    with np.load(GOLDEN / "fastmri_norm_unet.npz") as file:
        state = {name: file[name] for name in file.files}
    expected = state.pop("output")
    net = ImageUNet(channels=3, pools=2, norm="fastmri")
    image = complex_image((2, 37, 50))
    params = norm_unet_params(state)
    expected_params = jax.eval_shape(net.init, jax.random.key(0), image)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, expected_params)
    np.testing.assert_allclose(jax.jit(net.apply)({"params": params}, image), expected, rtol=1e-4,
                               atol=2e-5)
