"""The U-Net baseline: what it computes, for every choice in its config."""

import jax
import numpy as np
import pytest

from flatjax import losses, mri
from flatjax.errors import InputError
from flatjax.nets import ImageUNet
from tests.support.build import build
from tests.support.checks import (
    KEY,
    check_contract,
    check_gradient,
    check_nfe,
    check_untrained_is_zero_filling,
    reconstruct,
    trained,
)

SMALL = {"network__channels": 2, "network__pools": 1}


@pytest.mark.parametrize("coils", [1, 3])
def test_an_untrained_network_returns_the_zero_filled_image(make_batch, coils):
    check_untrained_is_zero_filling(build("unet", **SMALL), make_batch(coils=coils))


@pytest.mark.parametrize("coils", [1, 3])
def test_the_result_is_the_zero_filled_image_and_a_correction(make_batch, coils):
    batch = make_batch(coils=coils)
    method = build("unet", **SMALL)
    params = trained(method, batch)
    zero = mri.zero_filled(batch.measurement)
    scale = mri.intensity_scale(batch.measurement)[:, 0]
    correction = ImageUNet(channels=2, pools=1, time_channels=0).apply(
        {"params": params["net"]}, zero / scale
    )
    expected = mri.expand(zero + scale * correction, batch.measurement.maps)
    np.testing.assert_allclose(reconstruct(method, params, batch.measurement).kspace, expected,
                               atol=1e-5)
    check_contract(method, batch)
    check_nfe(method, batch)


@pytest.mark.parametrize("projection", [False, True])
def test_the_projection_restores_the_measurement_exactly(make_batch, projection):
    batch = make_batch(coils=2)
    method = build("unet", **SMALL, projection=projection)
    result = reconstruct(method, trained(method, batch), batch.measurement)
    y, mask, _, _ = batch.measurement
    residual = np.linalg.norm(mask * result.kspace - y) / np.linalg.norm(y)
    assert residual < 1e-6 if projection else residual > 1e-3
    np.testing.assert_array_equal(result.trajectory[-1], result.kspace)


def test_the_loss_is_on_the_normalized_image(make_batch):
    batch = make_batch(coils=2)
    method = build("unet", **SMALL, loss__ssim=0.3, loss__l1=2.0)
    params = trained(method, batch)
    loss, terms = jax.jit(method.loss)(params, KEY, batch)
    scale = mri.intensity_scale(batch.measurement)[:, 0]
    image = reconstruct(method, params, batch.measurement).image
    expected = {"ssim": float(1 - losses.ssim(prediction=image, target=batch.target).mean()),
                "l1": float(losses.l1(prediction=image / scale,
                                            target=batch.target / scale).mean())}
    assert {key: float(value) for key, value in terms.items()} == pytest.approx(expected, rel=1e-4)
    assert float(loss) == pytest.approx(0.3 * expected["ssim"] + 2 * expected["l1"], rel=1e-4)


@pytest.mark.parametrize("coils, options, terms", [
    (1, {}, ["ssim", "l1"]), (2, {"projection": True, "combine": "rss"}, ["ssim", "l1"]),
    (2, {"loss__l1": 0.0, "network__dtype": "bfloat16"}, ["ssim"])], ids=str)
def test_every_choice_computes_a_finite_loss_and_gradient(make_batch, coils, options, terms):
    check_gradient(build("unet", **SMALL, **options), make_batch(coils=coils), terms)


@pytest.mark.parametrize("options, match", [
    ({"network__channels": 0}, "channels is 0"), ({"network__pools": -1}, "pools is -1"),
    ({"combine": "x"}, "sense, rss"), ({"network__dtype": "float16"}, "float32, bfloat16"),
    ({"loss__ssim": -1.0}, "ssim is -1.0"), ({"loss__l1": float("nan")}, "l1 is nan")])
def test_bad_choices_are_refused(options, match):
    with pytest.raises(InputError, match=match):
        build("unet", **(SMALL | options))
