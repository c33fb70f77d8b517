"""Mathematics of the flow: path, timesteps, solvers. Knows nothing of networks or data sets.

`schedule` is the straight path and the timesteps on it, `space` what the state is, and `likelihood`
how far it trusts the measurement. `solve` integrates, by the methods of `solvers` and the loop in
`scan`, or with adaptive steps. `theorem` shows that an unrolled network is such a flow; `diffusion`
and `divergence` are the mathematics of the samplers.
"""

from flatjax.flow.likelihood import Likelihood, fixed_sigma, learned_sigma, noise_sigma
from flatjax.flow.schedule import check_stable, interpolate, schedule, time_grid, velocity
from flatjax.flow.solve import solve
from flatjax.flow.solvers import EXPLICIT, SOLVERS, Solver, SplitField, runge_kutta
from flatjax.flow.space import DataConsistency, StateSpace, image_space, kspace_space
from flatjax.flow.theorem import to_flow, to_unrolled

LIKELIHOODS = {"fixed": fixed_sigma, "learned": learned_sigma, "noise": noise_sigma}
SPACES = {"kspace": kspace_space, "image": image_space}

__all__ = ["EXPLICIT", "LIKELIHOODS", "SOLVERS", "SPACES", "DataConsistency", "Likelihood",
           "Solver", "SplitField", "StateSpace", "check_stable", "fixed_sigma", "image_space",
           "interpolate", "kspace_space", "learned_sigma", "noise_sigma", "runge_kutta",
           "schedule", "solve", "time_grid", "to_flow", "to_unrolled", "velocity"]
