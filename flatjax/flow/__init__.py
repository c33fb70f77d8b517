"""Mathematics of the flow: path, timesteps, solvers. Knows nothing of networks or data."""

from flatjax.flow.path import interpolate, velocity
from flatjax.flow.schedule import check_stable, time_grid, to_flow, to_unrolled
from flatjax.flow.solvers import SOLVERS, Tableau, integrate, solver, step

__all__ = ["SOLVERS", "Tableau", "check_stable", "integrate", "interpolate", "solver", "step",
           "time_grid", "to_flow", "to_unrolled", "velocity"]
