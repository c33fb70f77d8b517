"""Mathematics of the flow: path, timesteps, solvers. Knows nothing of networks or data.

`path` is the straight path, `schedule` the timesteps on it; `solvers` and `adaptive` integrate
along them, by the loop in `scan`. `theorem` shows that an unrolled network is such a flow;
`diffusion` and `divergence` are the mathematics of the samplers.
"""

from flatjax.flow.adaptive import integrate_adaptive
from flatjax.flow.path import interpolate, velocity
from flatjax.flow.schedule import check_stable, time_grid, to_flow, to_unrolled
from flatjax.flow.solvers import (
    EXPLICIT,
    SOLVERS,
    Solver,
    SplitField,
    Tableau,
    integrate,
    runge_kutta,
)
from flatjax.flow.space import DataConsistency, StateSpace, image_space, kspace_space

__all__ = ["EXPLICIT", "SOLVERS", "DataConsistency", "Solver", "SplitField", "StateSpace",
           "Tableau", "check_stable", "image_space", "integrate", "integrate_adaptive",
           "interpolate", "kspace_space", "runge_kutta", "time_grid", "to_flow", "to_unrolled",
           "velocity"]
