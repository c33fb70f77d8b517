"""An image as it forms under several methods, as a GIF."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flatjax.evaluation import metrics
from flatjax.evaluation.figures import blank, take_literally
from flatjax.evaluation.scoring import Scored
from flatjax.files import write_atomically

_FRAMES, _HELD = 40, 10  # from time 1 to 0, and of the result
_FRAME_RATE = 10


def animate(path: Path, shown: Mapping[str, Scored]) -> None:
    """Write a GIF of one slice forming under several methods side by side, then its target.

    Every method shows the last state that it has reached at the frame's time. One gray window.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter
    target = next(iter(shown.values())).target[0]
    height, width = target.shape
    figure = blank((2 * (len(shown) + 1), 2.6 * height / width))
    axes = figure.subplots(1, len(shown) + 1)
    gray = {"cmap": "gray", "vmin": 0, "vmax": max(float(target.max()), np.finfo(np.float32).tiny),
            "interpolation": "nearest"}
    images = [one.imshow(target, **gray) for one in axes]
    axes[-1].set_title("target\n\n", fontsize=8)
    for one in axes:
        one.set_axis_off()

    def show(time: float) -> None:
        for one, image, (name, run) in zip(axes, images, shown.items(), strict=False):
            reached = max(np.count_nonzero(run.times >= time - 1e-6), 1) - 1
            state = run.states[reached]
            image.set_data(state[0])
            one.set_title(f"{name}\nt = {run.times[reached]:.2f}\n"
                          f"{metrics.psnr(prediction=state, target=target[None]):.1f} dB",
                          fontsize=8)
        take_literally(figure)

    movie = FuncAnimation(figure, show, [*np.linspace(1, 0, _FRAMES), *[0.0] * _HELD])
    write_atomically(path, lambda temporary: movie.save(
        temporary, writer=PillowWriter(fps=_FRAME_RATE), dpi=80))
