"""State spaces of the flow, and its data term in each, explicit and implicit.

The state is multi-coil k-space, as in E2E-VarNet, or one combined image, as in MoDL. In both, the
data term pulls the state toward the measurement `y` of a forward model A. A flow may take it in two
ways (`DataConsistency`): by its gradient, in explicit steps, or by its proximal map, in implicit
ones. Only the proximal map uses, within one step, what several coils together determine about
samples that were not measured.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import InputError
from flatjax.mri import Measurement, expand, normal, reduce, zero_filled
from flatjax.mri.linalg import solve_hermitian

State = Any


class DataConsistency(NamedTuple):
    """The data term `||A x - y||^2 / 2` of one measurement, for a state x.

    Attributes:
        gradient: `x -> A^H (A x - y)`.
        proximal: `(x, c) -> argmin_z ||z - x||^2 + c ||A z - y||^2`, which is
            `(I + c A^H A)^-1 (x + c A^H y)`, with c at least 0, one number or `[batch]`. It is the
            implicit Euler step of length c along the negative gradient.
    """

    gradient: Callable[[State], State]
    proximal: Callable[[State, ArrayLike], State]


class StateSpace(NamedTuple):
    """What the state of a flow is.

    Attributes:
        start: `measurement -> state` at t = 1: what was measured, zero-filled.
        end: `(kspace, maps) -> state` at t = 0, of fully sampled k-space.
        image: `(state, maps) -> [batch, y, x]` complex64, which networks see.
        lift: `(image, maps) -> state`, the adjoint of `image`.
        kspace: `(state, maps) -> [batch, coil, ky, kx]` complex64.
        data_consistency: `measurement -> DataConsistency`.
        multicoil: whether the state is the k-space of all coils.
    """

    start: Callable[[Measurement], State]
    end: Callable[[Array, Array], State]
    image: Callable[[State, Array], Array]
    lift: Callable[[Array, Array], State]
    kspace: Callable[[State, Array], Array]
    data_consistency: Callable[[Measurement], DataConsistency]
    multicoil: bool


def _per_slice(c: ArrayLike, state: Array) -> Array:
    c = jnp.asarray(c)
    return c.reshape(c.shape + (1,) * (state.ndim - c.ndim)) if c.ndim else c


def kspace_space() -> StateSpace:
    """States are multi-coil k-space `[batch, coil, ky, kx]`, with `A = M`.

    The data term acts on measured samples alone, element by element.
    """
    def data_consistency(measured: Measurement) -> DataConsistency:
        mask, y = measured.mask, measured.kspace

        def proximal(state: Array, c: ArrayLike) -> Array:
            weight = _per_slice(c, state) * mask
            return (state + weight * y) / (1 + weight)

        return DataConsistency(lambda state: mask * (state - y), proximal)

    return StateSpace(start=lambda measured: measured.kspace, end=lambda kspace, maps: kspace,
                      image=reduce, lift=expand, kspace=lambda state, maps: state,
                      data_consistency=data_consistency, multicoil=True)


def image_space(*, cg_iterations: int = 6) -> StateSpace:
    """States are images `[batch, y, x]`, with `A = M F S`: one for any number of coils.

    Args:
        cg_iterations: conjugate-gradient steps of the proximal map, which begin at its argument;
            gradients are those of its exact solution, see `linalg.solve_hermitian`.

    Raises:
        InputError: for fewer than one iteration.
    """
    if not cg_iterations >= 1:
        raise InputError(f"cg_iterations is {cg_iterations}, expected at least 1: the implicit "
                         "data term is solved by conjugate gradients")

    def data_consistency(measured: Measurement) -> DataConsistency:
        _, mask, maps, _ = measured
        start = zero_filled(measured)

        def proximal(state: Array, c: ArrayLike) -> Array:
            weight = _per_slice(c, state)

            def operator(image: Array) -> Array:
                return image + weight * normal(image, mask, maps)

            return solve_hermitian(operator, state + weight * start, state, cg_iterations)

        return DataConsistency(lambda state: normal(state, mask, maps) - start, proximal)

    return StateSpace(start=zero_filled, end=reduce, image=lambda state, maps: state,
                      lift=lambda image, maps: image, kspace=expand,
                      data_consistency=data_consistency, multicoil=False)
