"""Conjugate gradients: solutions, degenerate systems, batches, implicit gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from flatjax.mri.linalg import conjugate_gradient, solve_hermitian
from tests.support.arrays import complex_normal


def systems(batch=3, size=12, dtype=np.complex128, seed=0):
    """Hermitian positive definite matrices `[batch, size, size]` and right-hand sides."""
    rng = np.random.default_rng(seed)
    factors = complex_normal(rng, (batch, size, size), np.complex128)
    matrices = factors @ factors.conj().swapaxes(1, 2) / size + 0.1 * np.eye(size)
    b = complex_normal(rng, (batch, size), np.complex128)
    if not np.issubdtype(dtype, np.complexfloating):
        matrices, b = matrices.real, b.real
    return matrices.astype(dtype), b.astype(dtype)


def product(matrices):
    return lambda x: jnp.einsum("bij,bj->bi", matrices, x)


def applications(operator, b, x0, iterations):
    """The solution, and how often the operator was applied at run time."""
    calls = []

    def counted(x):
        jax.debug.callback(lambda: calls.append(1))
        return operator(x)

    x = jax.jit(lambda: conjugate_gradient(counted, b, x0, iterations))()
    jax.effects_barrier()
    return x, len(calls)


@pytest.mark.parametrize("iterations", [1, 2, 5, 12])
def test_every_iterate_is_scipys(iterations):
    matrices, b = systems()
    start = complex_normal(np.random.default_rng(1), b.shape, b.dtype)
    with jax.enable_x64(True):
        ours = conjugate_gradient(product(matrices), b, start, iterations, tolerance=0.0)
    theirs = [scipy.sparse.linalg.cg(a, right, x0=x, rtol=0, maxiter=iterations)[0]
              for a, right, x in zip(matrices, b, start, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-8)


@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_it_solves_systems_of_any_shape(dtype):
    matrices, b = systems(dtype=dtype)
    exact = np.linalg.solve(matrices, b[..., None])[..., 0]

    def operator(x):
        return product(matrices)(x.reshape(3, 12)).reshape(3, 2, 6)

    x = conjugate_gradient(operator, b.reshape(3, 2, 6), jnp.zeros((3, 2, 6), dtype), 40)
    assert x.dtype == dtype
    np.testing.assert_allclose(x.reshape(3, 12), exact, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("case", ["b = 0", "A = I", "exact start"])
def test_early_convergence_divides_nothing_by_zero(case):
    matrices, b = (np.asarray(a, dtype) for a, dtype in
                   zip(systems(), (np.complex64, np.complex64), strict=True))
    x0 = jnp.zeros_like(b)
    if case == "b = 0":
        b = np.zeros_like(b)
    elif case == "A = I":
        matrices = np.broadcast_to(np.eye(12, dtype=b.dtype), matrices.shape)
    else:
        matrices = np.broadcast_to(2 * np.eye(12, dtype=b.dtype), matrices.shape)
        x0 = jnp.asarray(b / 2)
    operator = product(matrices)
    exact = np.linalg.solve(matrices, b[..., None])[..., 0]
    for tolerance in (1e-6, 0.0):
        x = conjugate_gradient(operator, b, x0, 25, tolerance)
        np.testing.assert_allclose(x, exact, atol=1e-6)
    _, count = applications(operator, b, x0, 25)
    assert count == (2 if case == "A = I" else 1)
    grad = jax.grad(lambda b: jnp.sum(jnp.abs(solve_hermitian(operator, b, x0, 25) - 1) ** 2))(b)
    assert np.isfinite(grad).all()


def test_iterations_are_counted_and_bounded():
    matrices, b = systems(dtype=np.complex64)
    assert applications(product(matrices), b, jnp.zeros_like(b), 4)[1] == 5


def test_elements_of_a_batch_do_not_meet():
    """Stiff, easy, empty and broken ones together, against each alone."""
    matrices, b = systems(4, dtype=np.complex64)
    matrices[1] = np.eye(12)
    b[2] = 0
    b[3] = np.nan

    def solve(matrices, b):
        return conjugate_gradient(product(matrices), b, jnp.zeros_like(b), 10)

    together = solve(matrices, b)
    for i in range(3):
        alone = solve(matrices[i:i + 1], b[i:i + 1])[0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-4, atol=1e-5)
    assert np.isnan(together[3]).all()


def test_implicit_derivatives_are_those_of_a_dense_solve():
    matrices, b = systems()
    rng = np.random.default_rng(2)
    x0, weight = complex_normal(rng, b.shape, b.dtype), complex_normal(rng, b.shape, b.dtype)
    tangent = complex_normal(rng, b.shape, b.dtype)

    def loss(solve, shift, b, x0):
        """Of the solution of `(H + diag(shift)) x = b`, real."""
        x = solve(lambda x: product(matrices)(x) + shift * x, b, x0)
        return jnp.sum(jnp.abs(x) ** 2) + jnp.sum(jnp.real(weight * x))

    def implicit(shift, b, x0, iterations=60):
        return loss(lambda a, b, x0: solve_hermitian(a, b, x0, iterations, 1e-13), shift, b, x0)

    def dense(shift, b, x0):
        return loss(lambda a, b, x0: jnp.linalg.solve(
            matrices + jnp.eye(12) * shift[..., None], b[..., None])[..., 0], shift, b, x0)

    with jax.enable_x64(True):
        shift = jnp.asarray(rng.uniform(0.1, 1, b.shape))
        ours, theirs = (jax.jit(jax.grad(f, (0, 1, 2)))(shift, b, x0) for f in (implicit, dense))
        for a, expected in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, expected, rtol=1e-8, atol=1e-10)
        forward = [jax.jvp(lambda b, f=f: f(shift, b, x0), (jnp.asarray(b),),
                           (jnp.asarray(tangent),))[1] for f in (implicit, dense)]
        np.testing.assert_allclose(*forward, rtol=1e-8)
        np.testing.assert_array_equal(jax.grad(implicit, 2)(shift, b, x0, 2), 0)
