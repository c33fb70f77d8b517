"""Tables of scores: of one run, of a comparison, of a grid; as Markdown, CSV and JSON."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flatjax.evaluation.statistics import Difference, paired_difference
from flatjax.files import write_json, write_text

PAIRED = ("psnr", "ssim")  # scores whose differences are told
_DIGITS = {"psnr": 2, "ssim": 4, "nmse": 4, "psnr_object": 2, "ssim_object": 4}
_TITLES = {"psnr": "PSNR (dB)", "ssim": "SSIM", "nmse": "NMSE",
           "psnr_object": "PSNR, object (dB)", "ssim_object": "SSIM, object"}


class Row(NamedTuple):
    """A run on one test set, over the seeds of its trainings."""

    label: str
    test_set: str
    seeds: tuple[int, ...]
    metrics: tuple[dict[str, Any], ...]  # per seed: `metrics.json`, and `slices`, scores by slice
    baseline: str  # label of the run that it is compared with
    trained: Mapping[str, Any] = {}  # configs, by dotted names
    evaluated: Mapping[str, Any] = {}
    against: dict[str, Difference] | None = None  # of the baseline, in the scores of `PAIRED`

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.metrics[0]["method"]["name"]

    def values(self, *keys: str) -> np.ndarray:
        """An entry of the metrics, `[seeds, ...]` float64."""
        found: list[Any] = list(self.metrics)
        for key in keys:
            found = [one[key] for one in found]
        return np.array(found, np.float64)

    def mean(self, *keys: str) -> float:
        """An entry of the metrics, averaged over the seeds."""
        return float(self.values(*keys).mean())

    def slice_std(self, key: str) -> float:
        """Standard deviation of a score over slices, averaged over the seeds."""
        return float(np.mean(np.std(self.values("slices", key), axis=1)))

    def zero_filled(self) -> tuple[float, float]:
        """PSNR in dB and SSIM of zero filling."""
        return self.mean("zero_filled", "psnr", "mean"), self.mean("zero_filled", "ssim", "mean")


def combine_seeds(rows: Iterable[Row]) -> list[Row]:
    """Rows of a seed each as rows of all seeds, test set by test set.

    Each gets its differences from its baseline on the same slices, of scores that are averaged over
    the seeds.
    """
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        same = found.setdefault(row.test_set, {})
        known = same.get(row.label)
        same[row.label] = row if known is None else known._replace(
            seeds=known.seeds + row.seeds, metrics=known.metrics + row.metrics)
    return [row._replace(against=_differences(row, same.get(row.baseline)))
            for same in found.values() for row in same.values()]


def _differences(row: Row, base: Row | None) -> dict[str, Difference] | None:
    if base is None or base is row:
        return None
    pairs = {key: [one.values("slices", key).mean(axis=0) for one in (row, base)]
             for key in PAIRED}
    if len({len(one) for one in pairs["psnr"]}) > 1:
        return None
    return {key: paired_difference(*pair) for key, pair in pairs.items()}


# Cells by the titles of their columns: what tables tell of a row besides scores and differences.
_CELLS: dict[str, Callable[[Row], str]] = {
    "run": lambda row: row.label,
    "baseline": lambda row: row.baseline if row.against else "",
    "zero-filled (dB)": lambda row: f"{row.zero_filled()[0]:.2f}",
    "straightness": lambda row: f"{row.mean('straightness'):.2f}",
    "drops (dB)": lambda row: f"{row.mean('psnr_drops'):.1f} ({row.mean('psnr_drop_db'):.2f})",
    "residual": lambda row: f"{row.mean('measurement_residual'):.1e}",
    "data residual": lambda row: f"{row.mean('measurement_residual'):.3f}",
    "NFE": lambda row: f"{row.mean('nfe'):g}",
    "parameters": lambda row: f"{row.mean('parameters'):,.0f}",
    "ms per slice": lambda row: f"{1000 * row.mean('seconds_per_slice'):.1f}",
    "memory (MB)": lambda row: f"{row.mean('peak_memory_bytes') / 1e6:.0f}",
}


def cells(rows: Iterable[Row], titles: Sequence[str], score: Callable[[Row, str], str],
          other: str) -> list[list[str]]:
    """The cells of rows.

    Args:
        rows: of one test set.
        titles: of the columns: of `_CELLS`, of scores, and "PSNR - NAME" and "SSIM - NAME".
        score: the cell of a row's score of that name.
        other: the NAME of what rows are compared with.
    """
    def difference(row: Row, key: str) -> str:
        if not row.against:
            return ""
        mean, low, high = (f"{one:+.{_DIGITS[key]}f}" for one in row.against[key])
        return f"{mean} [{low}, {high}]"

    found = (_CELLS
             | {title: lambda row, key=key: score(row, key) for key, title in _TITLES.items()}
             | {f"{key.upper()} - {other}": partial(difference, key=key) for key in PAIRED})
    return [[found[title](row) for title in titles] for row in rows]


def section(rows: list[Row], titles: Sequence[str], score: Callable[[Row, str], str], other: str,
            told: str = "", *, start: bool = True) -> list[str]:
    """The Markdown lines of one test set: a line of what it is, and the table of its `cells`.

    The line says what is `told` of the set beside its name and size, and, from the `start`, what
    zero filling scores.
    """
    slices, volumes = (rows[0].metrics[0][key] for key in ("num_slices", "num_volumes"))
    psnr, ssim = rows[0].zero_filled()
    return [f"**{rows[0].test_set}**, {told}{slices} slices of {volumes} volume"
            + "s" * (volumes > 1) + f"; zero-filled: {psnr:.2f} dB, SSIM {ssim:.3f}" * start, "",
            *markdown(titles, cells(rows, titles, score, other)), ""]


def spread(mean: float, std: float | None, key: str) -> str:
    """The cell of a score: mean ± standard deviation, or the mean alone."""
    digits = _DIGITS[key]
    return f"{mean:.{digits}f}" + (f" ± {std:.{digits}f}" if std is not None else "")


def over_volumes(metrics: Mapping[str, Any], images: str, key: str) -> str:
    """The cell of a score with its spread over volumes, if there are several."""
    score = metrics[images][key]
    return spread(score["mean"], score["std"] if metrics["num_volumes"] > 1 else None, key)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head),
            *(f"| {' | '.join(row)} |" for row in rows)]


def devices(rows: Iterable[Row]) -> str:
    """All devices that rows were evaluated on."""
    return "; ".join(sorted({one["device"] for row in rows for one in row.metrics}))


def beside_zero_filling(metrics: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Titles and cells of the scores of zero filling and of a method, of one `metrics.json`."""
    return ["images", *_TITLES.values()], [
        [metrics[images].get("name", "zero-filled"),
         *(over_volumes(metrics, images, key) for key in _TITLES)]
        for images in ("zero_filled", "method")]


def of_run(results: Mapping[str, dict[str, Any]]) -> str:
    """What `evaluate` returned beside zero filling's scores, as Markdown."""
    rows, titles = [], []
    for name, metrics in results.items():
        titles, scores = beside_zero_filling(metrics)
        rows += [[name, *row] for row in scores]
        gains = {key: metrics["method"][key]["mean"] - metrics["zero_filled"][key]["mean"]
                 for key in _TITLES}
        rows.append([name, "gain", *("" if key == "nmse" else f"{gain:+.{_DIGITS[key]}f}"
                                     for key, gain in gains.items())])
    first = next(iter(results.values()))
    return "\n".join([
        *markdown(["test set", *titles], rows), "",
        f"Mean ± standard deviation over volumes; {acceleration(first)}, {first['nfe']:g} network "
        f"evaluations, {1000 * first['seconds_per_slice']:.1f} ms per slice on {first['device']}"])


def acceleration(metrics: Mapping[str, Any]) -> str:
    """R as the config has it, a number or a range, and as the masks have it."""
    found = metrics["acceleration"]
    nominal = " to ".join(f"{end:g}" for end in found.get("range", [found["nominal"]]))
    return f"R = {nominal} (achieved {found['achieved']:.2f})"


def plain_differences(row: Row) -> dict[str, float | None]:
    """Differences of a row from its baseline, as CSV and JSON hold them."""
    return {f"{key}_difference_{end}": getattr(row.against[key], end) if row.against else None
            for key in PAIRED for end in Difference._fields}


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, below their keys; one that a row lacks is left empty."""
    table = io.StringIO()
    writer = csv.DictWriter(table, dict.fromkeys(key for row in rows for key in row),
                            lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, table.getvalue())


def write(folder: Path, name: str, text: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table as `name.md` from its text, and from its rows `name.json` and `name.csv`."""
    write_text(folder / f"{name}.md", text + "\n")
    write_json(folder / f"{name}.json", rows)
    if rows:
        write_csv(folder / f"{name}.csv", rows)
