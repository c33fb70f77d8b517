"""Linear systems known only by their action, batched over the leading axis."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax

Operator = Callable[[Array], Array]


def conjugate_gradient(operator: Operator, b: Array, x0: Array, iterations: int,
                       tolerance: float = 1e-6) -> Array:
    """Solve `H x = b` for every element of a batch by conjugate gradients.

    Hestenes and Stiefel, J. Res. NBS 49(6), 1952. Each element has its own step sizes and stops
    when it has converged, so its result does not depend on the others. It cannot be differentiated
    in reverse mode: see `solve_hermitian`.

    Args:
        operator: H, linear, Hermitian and positive definite, each element of the batch by itself.
        b, x0: right-hand side and first guess, `[batch, ...]`, real or complex, as the result.
        iterations: at most so many, each with one application of `operator`.
        tolerance: an element has converged when `||b - H x|| <= tolerance ||b||`, by the residual
            that the iteration carries along. float32 resolves hardly more than the default.
    """
    axes = tuple(range(1, b.ndim))

    def inner(u: Array, v: Array) -> Array:
        """<u, v> of each element, `[batch, 1, ...]`; CG needs only real parts."""
        return jnp.sum(jnp.real(jnp.conj(u) * v), axis=axes, keepdims=True)

    goal = tolerance**2 * inner(b, b)

    def unfinished(state: tuple[Array, ...]) -> Array:
        count, _, _, _, power = state
        return (count < iterations) & jnp.any(power > goal)

    def advance(state: tuple[Array, ...]) -> tuple[Array, ...]:
        count, x, residual, direction, power = state
        image = operator(direction)
        curvature = inner(direction, image)
        # A converged element, or one with a right-hand side of 0, would divide 0 by 0.
        running = (power > goal) & (curvature > 0)
        alpha = jnp.where(running, power / jnp.where(running, curvature, 1), 0)
        x, residual = x + alpha * direction, residual - alpha * image
        reached = inner(residual, residual)
        beta = jnp.where(running, reached / jnp.where(running, power, 1), 0)
        return count + 1, x, residual, residual + beta * direction, reached

    residual = b - operator(x0)
    start = jnp.zeros((), jnp.int32), x0, residual, residual, inner(residual, residual)
    return lax.while_loop(unfinished, advance, start)[1]


def solve_hermitian(operator: Operator, b: Array, x0: Array, iterations: int,
                    tolerance: float = 1e-6) -> Array:
    """`conjugate_gradient` with the gradient of the exact solution; arguments as there.

    It solves for the correction to the first guess, to a tolerance relative to its residual. The
    gradients with respect to `b`, and to every array that `operator` closes over, follow from one
    more system in H (implicit differentiation, as in Aggarwal et al., IEEE TMI 38(2), 2019,
    sec. III-C): no iteration is stored for them. The first guess gets no gradient.
    """
    def solve(matvec: Operator, right: Array) -> Array:
        return conjugate_gradient(matvec, right, jnp.zeros_like(right), iterations, tolerance)

    guess = lax.stop_gradient(x0)
    # The transpose of a Hermitian H is its conjugate: as positive definite as H.
    return guess + lax.custom_linear_solve(operator, b - operator(guess), solve,
                                           transpose_solve=solve)
