"""State spaces of the flow, and its data term in each, explicit and implicit.

The state is multi-coil k-space, as in E2E-VarNet, or one combined image, as in MoDL. The data term
pulls it toward the measurement `y`, by its gradient in explicit steps or by its proximal map in
implicit ones. Only the proximal map uses, within one step, what several coils together determine
about samples that were not measured.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from jax import Array
from jax.typing import ArrayLike

from flatjax.errors import check_at_least
from flatjax.flow.solvers import per_element
from flatjax.mri import Measurement, expand, normal, reduce
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
        state: `(kspace, maps) -> state`, at t = 1 of the measured, zero-filled k-space, at t = 0
            of the fully sampled one.
        kspace: `(state, maps) -> [batch, coil, ky, kx]` complex64.
        image: `(state, maps) -> [batch, y, x]` complex64, which networks see.
        lift: `(image, maps) -> state`, the adjoint of `image`.
        data_consistency: `measurement -> DataConsistency`.
        multicoil: whether the state is the k-space of all coils.
    """

    state: Callable[[Array, Array], State]
    kspace: Callable[[State, Array], Array]
    image: Callable[[State, Array], Array]
    lift: Callable[[Array, Array], State]
    data_consistency: Callable[[Measurement], DataConsistency]
    multicoil: bool


def _unchanged(value: Array, maps: Array) -> Array:
    return value


def kspace_space() -> StateSpace:
    """States are multi-coil k-space `[batch, coil, ky, kx]`, with `A = M`.

    The data term acts on measured samples alone, element by element.
    """
    def data_consistency(measured: Measurement) -> DataConsistency:
        mask, y = measured.mask, measured.kspace

        def proximal(state: Array, c: ArrayLike) -> Array:
            weight = per_element(c, state) * mask
            return (state + weight * y) / (1 + weight)

        return DataConsistency(lambda state: mask * (state - y), proximal)

    return StateSpace(state=_unchanged, kspace=_unchanged, image=reduce, lift=expand,
                      data_consistency=data_consistency, multicoil=True)


def image_space(*, cg_iterations: int = 6) -> StateSpace:
    """States are images `[batch, y, x]`, with `A = M F S`: one for any number of coils.

    The proximal map takes `cg_iterations` conjugate-gradient steps, at least 1, from its argument;
    gradients are those of its exact solution, see `linalg.solve_hermitian`.
    """
    check_at_least(1, cg_iterations=cg_iterations)

    def data_consistency(measured: Measurement) -> DataConsistency:
        y, mask, maps, _ = measured
        start = reduce(y, maps)  # A^H y: y is 0 where nothing was sampled

        def proximal(state: Array, c: ArrayLike) -> Array:
            weight = per_element(c, state)

            def operator(image: Array) -> Array:
                return image + weight * normal(image, mask, maps)

            return solve_hermitian(operator, state + weight * start, state, cg_iterations)

        return DataConsistency(lambda state: normal(state, mask, maps) - start, proximal)

    return StateSpace(state=reduce, kspace=expand, image=_unchanged, lift=_unchanged,
                      data_consistency=data_consistency, multicoil=False)
