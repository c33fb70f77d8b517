"""The table of a comparison of several runs."""

import csv
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flatjax.evaluation import report
from flatjax.evaluation.scoring import QUALITY
from flatjax.evaluation.statistics import Difference, paired_difference
from flatjax.files import write_json, write_text


class Row(NamedTuple):
    """A run on one test set at one acceleration.

    Attributes:
        run: its label.
        acceleration: nominal R.
        test_set: its name.
        metrics: as in `metrics.json`.
        slices: scores `[slices]` by name.
        against: the first run, in the measures of `slices`; None for the first run itself.
    """

    run: str
    acceleration: float
    test_set: str
    metrics: dict[str, Any]
    slices: dict[str, np.ndarray]
    against: dict[str, Difference] | None


def tabulate(results: dict[str, dict[str, dict[str, Any]]], folders: dict[str, Path]) -> list[Row]:
    """Rows of runs that were evaluated at one acceleration, test set by test set.

    Args:
        results: by run, what `evaluate` returned; the first run is what the others are compared
            with.
        folders: by run, where it wrote.
    """
    first = next(iter(results))
    rows = []
    for index, test_set in enumerate(results[first]):
        base: dict[str, np.ndarray] | None = None
        for run, sets in results.items():
            folder = folders[run] / ("" if index == 0 else test_set)
            slices = read_slices(folder / "slices.csv")
            against = None if base is None else {
                key: paired_difference(slices[key], base[key]) for key in slices}
            base = slices if base is None else base
            metrics = sets[test_set]
            rows.append(Row(run, metrics["acceleration"]["nominal"], test_set, metrics, slices,
                            against))
    return rows


def read_slices(path: Path) -> dict[str, np.ndarray]:
    """The scores in a `slices.csv`, `[slices]` by name."""
    with path.open(newline="") as file:
        table = list(csv.DictReader(file))
    return {key: np.array([float(row[key]) for row in table]) for key in QUALITY}


def markdown(rows: list[Row]) -> str:
    """The table, one for each acceleration and test set."""
    first = rows[0].run if rows else ""
    head = ["run", "PSNR (dB)", "SSIM", "NMSE", f"PSNR - {first}", f"SSIM - {first}", "NFE",
            "ms per slice", "parameters", "memory (MB)", "drops (dB)", "straightness",
            "data residual"]
    out = []
    for acceleration, test_set in dict.fromkeys((row.acceleration, row.test_set) for row in rows):
        own = [row for row in rows if (row.acceleration, row.test_set) == (acceleration, test_set)]
        metrics = own[0].metrics
        blank = metrics["zero_filled"]
        out += [f"**{test_set}**, R = {acceleration:g} (achieved "
                f"{metrics['acceleration']['achieved']:.2f}), {metrics['num_slices']} slices of "
                f"{metrics['num_volumes']} volume{'s' * (metrics['num_volumes'] > 1)}; "
                f"zero-filled: {blank['psnr']['mean']:.2f} dB, "
                f"SSIM {blank['ssim']['mean']:.3f}", "",
                f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
        out += [f"| {' | '.join(_cells(row))} |" for row in own] + [""]
    devices = sorted({row.metrics["device"] for row in rows})
    out.append("Mean ± std over volumes, if several. Differences are paired by slice, with 95 % "
               "bootstrap intervals over slices. NFE counts network evaluations per slice, of all "
               "samples; memory is that of the compiled reconstruction of one batch; drops are how "
               "often, and by how much in all, PSNR falls from one state to the next. Evaluated on "
               f"{'; '.join(devices)}.")
    return "\n".join(out)


def _cells(row: Row) -> list[str]:
    def spread(key: str, digits: int) -> str:
        return report.spread(row.metrics["method"][key], digits, row.metrics["num_volumes"])

    def difference(key: str, digits: int) -> str:
        if row.against is None:
            return ""
        mean, low, high = row.against[key]
        return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"

    metrics = row.metrics
    return [row.run, spread("psnr", 2), spread("ssim", 4), spread("nmse", 4),
            difference("psnr", 2), difference("ssim", 4), f"{metrics['nfe']:g}",
            f"{1000 * metrics['seconds_per_slice']:.1f}", f"{metrics['parameters']:,}",
            f"{metrics['peak_memory_bytes'] / 1e6:.0f}",
            f"{metrics['psnr_drops']:.1f} ({metrics['psnr_drop_db']:.2f})",
            f"{metrics['straightness']:.2f}", f"{metrics['measurement_residual']:.3f}"]


def plain(row: Row) -> dict[str, Any]:
    """A row as `comparison.csv` and `comparison.json` hold it."""
    metrics = row.metrics
    out = {"run": row.run, "method": metrics["method"]["name"], "test_set": row.test_set,
           "acceleration": row.acceleration,
           "achieved_acceleration": metrics["acceleration"]["achieved"]}
    for key in QUALITY:
        out |= {key: metrics["method"][key]["mean"], f"{key}_std": metrics["method"][key]["std"]}
    for key in ("psnr", "ssim"):
        out |= {f"{key}_difference_{end}": getattr(row.against[key], end) if row.against else None
                for end in Difference._fields}
    return out | {key: metrics[key] for key in (
        "nfe", "seconds_per_slice", "parameters", "peak_memory_bytes", "psnr_drops",
        "psnr_drop_db", "straightness", "measurement_residual", "num_slices", "num_volumes",
        "checkpoint_step", "config_hash", "device")}


def write_tables(output: Path, rows: list[Row]) -> None:
    """Write `comparison.csv`, `comparison.md` and `comparison.json` into a folder."""
    table = io.StringIO()
    lines = [plain(row) for row in rows]
    if lines:
        writer = csv.DictWriter(table, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    write_text(output / "comparison.csv", table.getvalue())
    write_text(output / "comparison.md", markdown(rows) + "\n")
    write_json(output / "comparison.json", lines)
