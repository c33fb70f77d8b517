"""CG-SENSE: the normal equations solved densely, and its one parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax.errors import InputError
from flatjax.methods import cg_sense, zero_filled
from flatjax.mri import intensity_scale
from flatjax.mri.host.simulate import host_fft2c
from tests.support.build import build
from tests.support.checks import KEY, check_contract, check_gradient, reconstruct


def test_the_image_solves_the_normal_equations(make_batch):
    batch = make_batch(coils=3)
    measurement = batch.measurement
    shape, lam = measurement.kspace.shape[-2:], 0.05
    basis = np.eye(np.prod(shape)).reshape(-1, 1, *shape)
    result = reconstruct(cg_sense(cg_iterations=100, lam=lam), {"log_lam": jnp.log(lam)},
                         measurement)
    for index in range(len(batch.kspace)):
        kspace, mask, maps = (np.asarray(array[index]) for array in measurement[:3])
        columns = (mask * host_fft2c(maps * basis)).reshape(len(basis), -1).T
        dense = np.linalg.solve(np.conj(columns.T) @ columns + lam * np.eye(len(basis)),
                                np.conj(columns.T) @ kspace.ravel())
        np.testing.assert_allclose(result.image[index].ravel(), np.abs(dense),
                                   atol=1e-4 * float(intensity_scale(measurement)[index, 0, 0, 0]))


def test_a_single_coil_gives_the_zero_filled_image_a_little_weaker(make_batch):
    batch, method = make_batch(), cg_sense(lam=0.1)
    result = reconstruct(method, method.init(KEY, batch), batch.measurement)
    expected = zero_filled().reconstruct({}, KEY, batch.measurement).image
    np.testing.assert_allclose(result.image, expected / 1.1, atol=1e-5)


def test_what_every_method_keeps_and_its_parameter_is_learned(make_batch):
    batch, method = make_batch(coils=2), cg_sense(cg_iterations=40)
    check_gradient(method, batch, ("ssim", "l1"))
    check_contract(method, batch)
    assert jax.grad(lambda log_lam: method.loss({"log_lam": log_lam}, KEY, batch)[0])(2.0) > 0


@pytest.mark.parametrize("options", [{"cg_iterations": 0}, {"lam": 0.0}, {"combine": "sos"}])
def test_bad_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        build("cg_sense", **options)
