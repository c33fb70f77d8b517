"""Log-densities along flows whose divergence, or whose densities, are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flatjax import flow
from flatjax.errors import InputError
from flatjax.flow.divergence import divergence, rademacher, transport
from flatjax.methods import flow_matching
from tests.support import gaussian
from tests.support.arrays import complex_normal, noisy
from tests.support.build import build
from tests.support.gaussian import in_place_of_the_network

SIZE = 5


def basis(size, dtype):
    """Probes `[probes, 1, size]` for which the estimate is exact."""
    real = np.eye(size)
    directions = np.concatenate([real, 1j * real]) if np.issubdtype(dtype, np.complexfloating) \
        else real
    return jnp.asarray(np.sqrt(len(directions)) * directions[:, None], dtype)


def linear(rng):
    """`f(k) = A k + B conj(k)` per element; of its divergence, `2 Re tr A`, B is no part."""
    a, b = complex_normal(rng, (2, SIZE, SIZE))
    return a, lambda k: k @ a.T + jnp.conj(k) @ b.T


def test_the_divergence_of_a_linear_field_is_its_trace():
    rng = np.random.default_rng(0)
    a, field = linear(rng)
    state = jnp.asarray(complex_normal(rng, (1, SIZE)))
    slope, found = divergence(field, state, basis(SIZE, np.complex64))
    np.testing.assert_allclose(slope, field(state), rtol=1e-6)
    np.testing.assert_allclose(found, 2 * np.trace(a).real, rtol=1e-5)
    real = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    _, found = divergence(lambda x: x @ real.T, jnp.ones((1, SIZE)), basis(SIZE, np.float32))
    np.testing.assert_allclose(found, np.trace(real), rtol=1e-5)


def test_the_estimate_has_no_bias_and_hutchinsons_variance():
    """`2 sum_{i != j} S_ij^2` with S the symmetric part of the real Jacobian."""
    rng = np.random.default_rng(1)
    a, field = linear(rng)
    probes = rademacher(jax.random.key(0), (4000, 1, SIZE))
    assert set(np.unique(np.real(probes))) == set(np.unique(np.imag(probes))) == {-1, 1}
    along = jax.vmap(lambda e: divergence(field, jnp.ones((1, SIZE), jnp.complex64), e[None])[1])
    found = np.asarray(along(probes))[:, 0]
    columns = [np.asarray(field(jnp.asarray(d[None]))) for d in
               np.concatenate([np.eye(SIZE), 1j * np.eye(SIZE)]).astype(np.complex64)]
    jacobian = np.concatenate([[c.real.ravel() for c in columns],
                               [c.imag.ravel() for c in columns]], axis=1)
    symmetric = (jacobian + jacobian.T) / 2
    variance = 2 * (np.sum(symmetric**2) - np.sum(np.diag(symmetric) ** 2))
    assert abs(found.mean() - 2 * np.trace(a).real) < 5 * np.sqrt(variance / len(found))
    assert found.var() == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize("solver", ["rk4", "adaptive"])
def test_a_gaussian_moved_by_a_linear_flow_stays_one(solver):
    """Where its density is known: `exp(t A)` of unit noise, followed back to t = 0."""
    rng = np.random.default_rng(2)
    a = (complex_normal(rng, (SIZE, SIZE)) / 3).astype(np.complex128)
    with jax.enable_x64(True):
        end = jnp.asarray(complex_normal(rng, (3, SIZE), np.complex128))
        integrate = partial(flow.solve, solver=solver, tolerance=1e-8)
        start, change = jax.jit(lambda end: transport(
            lambda k, t, _: k @ a.T, end, np.linspace(1, 0, 41), jnp.broadcast_to(
                basis(SIZE, np.complex128), (2 * SIZE, 3, SIZE)), integrate))(end)
    start, change = np.asarray(start), np.asarray(change)
    found = -np.sum(np.abs(start) ** 2, axis=1) - SIZE * np.log(np.pi) + change
    values, vectors = np.linalg.eig(a)
    root = vectors @ np.diag(np.exp(values)) @ np.linalg.inv(vectors)
    covariance = root @ root.conj().T
    expected = [-np.real(k.conj() @ np.linalg.solve(covariance, k)) - SIZE * np.log(np.pi)
                - np.linalg.slogdet(covariance)[1] for k in np.asarray(end)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("options", [{"solver": "rk4", "steps": 12},
                                     {"solver": "adaptive", "tolerance": 1e-4}])
def test_the_exact_velocity_has_the_density_of_the_posterior(options):
    """In the unit of the measurement, averaged over probes; and of no other draw than asked."""
    tau, count = 0.5, 4
    y, law = gaussian.measure(gaussian.prior())
    net = in_place_of_the_network(law, gaussian.scale(y), tau)
    options = dict(options)
    schedule = flow.schedule(steps=options.pop("steps", 12))
    method = flow_matching(net, schedule, tau=tau, **options)
    kspace = y + law.samples(np.random.default_rng(3), count) * (1 - gaussian.MASK)
    found = jax.jit(partial(method.log_density, probes=3000))(
        {"net": {"gain": jnp.ones(())}}, jax.random.key(0), gaussian.measurement(y, count), kspace)
    u = np.flatnonzero(~gaussian.SAMPLED)
    covariance = law.covariance[np.ix_(u, u)]
    off = kspace.reshape(count, -1)[:, u] - law.mean[u]
    expected = (-np.real(np.sum(off.conj() * np.linalg.solve(covariance, off.T).T, axis=1))
                - len(u) * np.log(np.pi) - np.linalg.slogdet(covariance)[1])
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, atol=0.15)


def test_networks_have_a_density_of_one_coils_kspace(make_batch):
    small = {"schedule__steps": 3, "network__channels": 2, "network__pools": 1,
             "network__time_channels": 4}
    batch = make_batch()
    method = build("flow_matching", **small)
    params = noisy(jax.jit(method.init)(jax.random.key(0), batch), 0.05)
    density = jax.jit(partial(method.log_density, probes=2))
    found = density(params, jax.random.key(0), batch.measurement, batch.kspace)
    assert found.shape == (2,) and np.isfinite(found).all()
    changed = jnp.where(batch.measurement.mask > 0, 7.0, batch.kspace)
    np.testing.assert_allclose(density(params, jax.random.key(0), batch.measurement, changed),
                               found, rtol=1e-6)
    with pytest.raises(InputError, match="of 3 coils has no density"):
        method.log_density(params, None, *make_batch(coils=3)[:2])
    with pytest.raises(InputError, match="data_consistency is False"):
        build("flow_matching", **small, data_consistency=False).log_density(params, None,
                                                                            *batch[:2])
