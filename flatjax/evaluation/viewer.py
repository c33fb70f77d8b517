"""An interactive report: one HTML file that shows images of slices side by side, without network.

The page is `viewer.html`, plain HTML, CSS and JavaScript, with its data as JSON. Images are WebP of
8 bits, 0 black and 255 the maximum of the volume: the target, zero filling and the result without
loss, so that their error maps are exact to half a gray level, and the states between with loss.
"""

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from flatjax.evaluation import figures, scoring
from flatjax.evaluation.scoring import Measures, Scored
from flatjax.evaluation.tables import acceleration
from flatjax.files import write_text

SLICES, STATES = 16, 13  # shown of a report, and of a method's states with their images, at most
_LIMIT = 9_500_000  # bytes of a report; above it states are left out first, then slices
_LOSSY = 80  # quality of the states between
_DASHES = ("none", "7 4", "2 3", "7 3 2 3")  # of runs of one color


class State(NamedTuple):
    """An image on the way, at a time from 1 to 0; without an image it is a point of the curve."""

    image: str | None  # WebP in base64
    time: float = 1.0
    step: int = 0
    psnr: float | None = None  # dB
    ssim: float | None = None


class View(NamedTuple):
    """A slice by one method; `states` are from the start to the result."""

    volume: str
    at: int  # place of the slice among those
    total: int  # of the volume
    shape: tuple[int, ...]  # height and width
    target: State | None
    zero_filled: State
    states: list[State]
    largest: float  # 99.9th percentile of the result's error, of the target's maximum

    @property
    def name(self) -> str:
        """Volume and slice."""
        return f"{self.volume}, slice {self.at + 1} of {self.total}"


class Table(NamedTuple):
    """Cells below their titles."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


def spread(count: int, most: int) -> list[int]:
    """At most so many of `count` indices, evenly spread; the ends are left out first."""
    shown = min(count, most)
    return [int((at + 0.5) * count / shown) for at in range(shown)]


def view(volume: str, index: int, count: int, zero_filled: np.ndarray, *states: np.ndarray,
         white: float) -> View:
    """A slice of a volume of `count` without a target.

    Images `[y, x]` are shown from 0 to `white`; the states are at least the result.
    """
    times = np.linspace(1, 0, len(states))
    shown = [State(image, round(float(time), 4), at) for at, (image, time) in enumerate(
        zip(_encoded(states, zero_filled, white), times, strict=True))]
    return View(volume, index, count, zero_filled.shape, None,
                State(_encode(zero_filled, white)), shown, 0.1)


def views(volume: Scored, scores: Measures, most: int) -> list[View]:
    """At most so many slices of a scored volume, whose measures hold quality along the states."""
    white, count, found = float(volume.target.max()), len(volume.target), []
    for at in spread(count, most):
        target, start, result = (images[at] for images in (
            volume.target, volume.zero_filled, volume.reconstruction))
        judged = scoring.quality(prediction=start[None], target=target[None], data_range=white)
        psnr, ssim = ([*scores.states[key][:-1, at], scores.slices[key][at]]
                      for key in ("psnr", "ssim"))
        images = _encoded([*volume.states[:-1, at], result], start, white)
        states = [State(image, round(float(time), 4), int(step), _rounded(a), _rounded(b))
                  for image, time, step, a, b in zip(
                      images, volume.times, volume.steps, psnr, ssim, strict=True)]
        error = np.percentile(np.abs(result - target), 99.9) / (white or 1)
        found.append(View(
            volume.name, at, count, target.shape, State(_encode(target, white)),
            State(_encode(start, white), psnr=_rounded(judged["psnr"]),
                  ssim=_rounded(judged["ssim"])), states, float(error)))
    return found


def facts(metrics: Mapping[str, Any]) -> str:
    """What a test set is, from its `metrics.json`."""
    volumes = metrics["num_volumes"]
    return (f"{acceleration(metrics)}, {metrics['num_slices']} slices of {volumes} "
            f"volume{'s' * (volumes > 1)}")


def write(path: Path, title: str, told: str, runs: Mapping[str, Sequence[View]],
          methods: Mapping[str, str], tables: Sequence[Table] = ()) -> None:
    """Write a report of at most 10 MB.

    Args:
        path: of the file.
        title, told: a heading, and a line below it.
        runs: the slices by each run, shown where all of them have a slice of that name.
        methods: the name of each run's method, which has a color.
        tables: of scores, to be sorted.
    """
    by_name = [{one.name: one for one in own} for own in runs.values()]
    names = [name for name in by_name[0] if all(name in own for own in by_name)]
    whole = [[own[name] for own in by_name] for name in names]
    page = Path(__file__).with_name("viewer.html").read_text("utf-8")
    most, text = STATES, ""
    while whole:
        text = page.replace("__DATA__", _json(title, told, whole, most, methods, tables))
        if len(text) <= _LIMIT or (most == 2 and len(whole) == 1):
            break
        most, whole = (most - 1, whole) if most > 2 else (most, whole[::2])
    if whole:
        write_text(path, text)


def _json(title: str, told: str, slices: list[list[View]], most: int, methods: Mapping[str, str],
          tables: Sequence[Table]) -> str:
    """What the page shows, with each image once; no name in it can end its element."""
    images: dict[str, int] = {}
    first, judged = slices[0][0], slices[0][0].target is not None

    def states(found: Sequence[State]) -> list[dict[str, Any]]:
        pictured = [at for at, one in enumerate(found) if one.image is not None]
        kept = {pictured[at] for at in _ends(len(pictured), most)}
        return [one._asdict() | {"image": images.setdefault(one.image, len(images))
                                 if one.image is not None and at in kept else None}
                for at, one in enumerate(found)]

    shown = [{"name": one[0].name, "shape": one[0].shape, "panels": [
        *([states([one[0].target])] if one[0].target else []), states([one[0].zero_filled]),
        *(states(own.states) for own in one)]} for one in slices]
    colors = [figures.look(method)["color"] for method in methods.values()]
    panels = [{"name": name, "color": None, "dash": "none"}
              for name in ("target", "zero-filled") if judged or name != "target"]
    panels += [{"name": name, "color": color,
                "dash": _DASHES[colors[:at].count(color) % len(_DASHES)]}
               for at, (name, color) in enumerate(zip(methods, colors, strict=True))]
    errors = [own.largest for one in slices for own in one]
    text = json.dumps({
        "title": title, "facts": told, "target": judged,
        "start": sum(one[0].volume == first.volume for one in slices) // 2,
        "largest": min(max(round(float(np.median(errors)), 2), 0.01), 0.5),
        "panels": panels, "slices": shown, "images": list(images),
        "tables": [one._asdict() for one in tables]}, allow_nan=False)
    return text.replace("<", "\\u003c")


def _ends(count: int, most: int) -> list[int]:
    """As `spread`, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, most).round().astype(int)).tolist()


def _rounded(score: float) -> float | None:
    return round(float(score), 4) if math.isfinite(score) else None


def _encoded(states: Sequence[np.ndarray], start: np.ndarray, white: float) -> list[str | None]:
    """The images of states: some of many, and exactly the last and those equal to the `start`."""
    last = len(states) - 1
    kept = _ends(len(states), STATES)
    return [_encode(image, white, exact=at == last or np.allclose(image, start, atol=white / 1e4))
            if at in kept else None for at, image in enumerate(states)]


def _encode(image: np.ndarray, white: float, *, exact: bool = True) -> str:
    """An image `[y, x]` as WebP in base64, black at 0 and white at a value."""
    gray = np.rint(np.clip(np.nan_to_num(image / (white or 1.0)), 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(gray).save(file, "WEBP", lossless=exact, quality=20 if exact else _LOSSY,
                               method=4)
    return base64.b64encode(file.getvalue()).decode()
