"""The states of an image from start to result: quality, geometry and data consistency.

Trajectories of any methods meet in one figure, since every state has a time between 1, the start,
and 0, the result, and in one animation of an image forming.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from flatjax.evaluation import metrics
from flatjax.evaluation.scoring import Scored
from flatjax.evaluation.tables import write_csv
from flatjax.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BAND = (10, 90)  # percentiles of the images
_LABELS = {"psnr": "PSNR (dB)", "ssim": "SSIM", "path_distance": "distance to the ideal path",
           "straightness": "straightness so far", "residual": "||M k - y|| / ||y||"}
_LOGARITHMIC = {"path_distance", "residual"}
_FLOOR = 1e-6  # of what is drawn on a logarithmic axis
_FRAMES, _HELD = 40, 10  # of an animation: from time 1 to 0, and of the result
_FRAME_RATE = 10


class Trajectory(NamedTuple):
    """Measures of the states of images, each `[states, images]` float64."""

    times: np.ndarray  # of the states, `[states]`, from 1 to 0
    psnr: np.ndarray  # in dB, with the volume's maximum as peak
    ssim: np.ndarray  # with the same range
    path_distance: np.ndarray  # see `metrics`
    straightness: np.ndarray  # of the trajectory so far, see `metrics`
    residual: np.ndarray  # `||M k - y|| / ||y||`


def analyze(volumes: list[Scored]) -> Trajectory:
    """The measures of all slices of volumes that one method reconstructed."""
    def each(metric: Any, volume: Scored) -> np.ndarray:
        peak = float(volume.target.max())
        return np.array([[metric(prediction=image[None], target=target[None], data_range=peak)
                          for image, target in zip(state, volume.target, strict=True)]
                         for state in volume.states])

    parts = [(each(metrics.psnr, v), each(metrics.ssim, v), v.path_distance, v.straightness,
              v.residuals) for v in volumes]
    return Trajectory(volumes[0].times, *(np.concatenate(part, axis=1) for part in zip(
        *parts, strict=True)))


def write_table(path: Path, names: list[str], trajectory: Trajectory) -> None:
    """Write a CSV of one row per image, by its name, and state."""
    write_csv(path, [
        {"image": name, "state": state, "times": f"{time:.6g}"} | {
            key: f"{getattr(trajectory, key)[state, image]:.6g}" for key in _LABELS}
        for image, name in enumerate(names) for state, time in enumerate(trajectory.times)])


def read_table(path: Path) -> Trajectory:
    """The measures that `write_table` wrote."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    states = 1 + max(int(row["state"]) for row in rows)
    columns = {key: np.array([float(row[key]) for row in rows]).reshape(-1, states).T
               for key in Trajectory._fields}
    return Trajectory(**columns | {"times": columns["times"][:, 0]})


def draw(trajectories: Mapping[str, Trajectory]) -> "Figure":
    """All measures along the time: the mean over images, and a band of the middle 80 %.

    For a single method every image is a thin line.
    """
    from matplotlib.figure import Figure
    figure = Figure((3.4 * len(_LABELS), 3.4), layout="constrained")
    axes = figure.subplots(1, len(_LABELS))
    for one, (key, label) in zip(axes, _LABELS.items(), strict=True):
        for color, (name, trajectory) in enumerate(trajectories.items()):
            values = getattr(trajectory, key)
            if key in _LOGARITHMIC:
                values = np.maximum(values, _FLOOR)
            values = values[:, np.isfinite(values).all(axis=0)]  # an empty slice has infinite PSNR
            if not values.size:
                continue
            if len(trajectories) == 1:
                one.plot(trajectory.times, values, color="0.8", linewidth=0.6)
            low, high = np.percentile(values, _BAND, axis=1)
            one.fill_between(trajectory.times, low, high, alpha=0.2, linewidth=0,
                             color=f"C{color}")
            one.plot(trajectory.times, values.mean(axis=1), marker=".", markersize=5,
                     label=f"{name}, mean of {values.shape[1]}", color=f"C{color}")
        one.set(xlabel="time t", title=label, xlim=(1.02, -0.02),
                yscale="log" if key in _LOGARITHMIC else "linear")
        one.grid(alpha=0.3)
    axes[0].legend(fontsize=7)
    return figure


class StateSequence(NamedTuple):
    """The states of one image."""

    times: np.ndarray  # of the states, `[states]` float32 from 1 to 0
    states: np.ndarray  # magnitudes `[states, h, w]` float32
    target: np.ndarray  # `[h, w]` float32


def write_states(path: Path, volume: Scored, index: int) -> None:
    """Keep the states of a volume's slice in an HDF5 file."""
    kept = StateSequence(volume.times, volume.states[:, index], volume.target[index])

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            file.update(kept._asdict())

    write_atomically(path, write)


def read_states(path: Path) -> StateSequence:
    """The states that `write_states` kept."""
    with h5py.File(path) as file:
        return StateSequence(*(file[key][()] for key in StateSequence._fields))


def animate(path: Path, sequences: Mapping[str, StateSequence]) -> None:
    """Write a GIF of one image forming under several methods side by side, then its target.

    Every method shows the last state that it has reached at the frame's time. One gray window.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter
    from matplotlib.figure import Figure
    target = next(iter(sequences.values())).target
    height, width = target.shape
    figure = Figure((2 * (len(sequences) + 1), 2.6 * height / width), layout="constrained")
    axes = figure.subplots(1, len(sequences) + 1)
    gray = {"cmap": "gray", "vmin": 0, "vmax": max(float(target.max()), np.finfo(np.float32).tiny),
            "interpolation": "nearest"}
    shown = [one.imshow(target, **gray) for one in axes]
    axes[-1].set_title("target\n\n", fontsize=8)
    for one in axes:
        one.set_axis_off()
        one.title.set_parse_math(False)  # as `figures.save`

    def show(time: float) -> None:
        for one, image, (name, sequence) in zip(axes, shown, sequences.items(), strict=False):
            reached = max(np.count_nonzero(sequence.times >= time - 1e-6), 1) - 1
            state = sequence.states[reached]
            image.set_data(state)
            one.set_title(
                f"{name}\nt = {sequence.times[reached]:.2f}\n"
                f"{metrics.psnr(prediction=state[None], target=target[None]):.1f} dB", fontsize=8)

    movie = FuncAnimation(figure, show, [*np.linspace(1, 0, _FRAMES), *[0.0] * _HELD])
    write_atomically(path, lambda temporary: movie.save(
        temporary, writer=PillowWriter(fps=_FRAME_RATE), dpi=80))
