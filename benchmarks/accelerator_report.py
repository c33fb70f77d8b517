"""Tables of `accelerator.py`'s results, put into docs/performance.md between its two comments.

python benchmarks/accelerator_report.py DIR [--into=FILE | --print]
"""

import argparse
import json
from pathlib import Path

BEGIN, END = "<!-- accelerator: begin -->", "<!-- accelerator: end -->"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def number(value):
    """Three digits, or what it is."""
    if value is None or value == "":
        return ""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(headers, rows):
    """A Markdown table, or nothing without rows."""
    rows = list(rows)
    if not rows:
        return []
    lines = [headers, ["---"] * len(headers), *rows]
    return [f"| {' | '.join(number(cell) for cell in line)} |" for line in lines] + [""]


def missing(rows):
    """What was not measured, and why; rows whose turn did not come are counted alone."""
    late = sum(row.get("skipped") == "time is up" for row in rows)
    told = [f"- {late} more cases were planned, but the time was up."] if late else []
    for row in rows:
        why = row.get("error") or row.get("skipped")
        if why and why != "time is up":
            names = ("library", "what", "method", "work", "steps", "coils", "batch", "precision",
                     "config", "threads")
            told.append("- not measured: " + ", ".join(
                f"{name} {row[name]}" for name in names if row.get(name) is not None)
                + f": {' '.join(str(why).split())[:160]}")
    return [*told, ""] if told else []


def measured(rows, **wanted):
    """Rows without error that have these settings."""
    return [row for row in rows if "error" not in row and "skipped" not in row
            and all(row.get(name) == value for name, value in wanted.items())]


def correctness(rows):
    """Errors, by what was computed and in which precision."""
    return ["Relative l2 error against the CPU, or NumPy in float64:", "",
            *table(["what", "precision", "error"], (
                [row["what"], row.get("precision", ""),
                 ", ".join(f"{name} {number(error)}" for name, error in row["errors"].items())]
                for row in measured(rows)))]


def throughput(rows):
    """Cases, with torch's time over flatjax's where both were measured."""
    peak = (measured(rows, what="peaks") or [{}])[0]
    lines = []
    if peak:
        lines = ["Matrix products reach " + ", ".join(
            f"{number(rate / 1e3)} TFLOP/s in {name}"
            for name, rate in peak["peak_GFLOPs"].items())
            + f"; arrays are added at {number(peak['bandwidth_GBs'])} GB/s.", ""]
    names = ("method", "work", "steps", "channels", "coils", "batch", "precision", "remat")
    cells = []
    for row in measured(rows, library="flatjax"):
        same = {name: row[name] for name in names}
        ratios = [(torch[0]["seconds"] / row["seconds"] if torch else "")
                  for torch in (measured([r for r in rows if "seconds" in r], library="torch",
                                         compiled=compiled, **same)
                                for compiled in (False, True))]
        cells.append([*same.values(), 1e3 * row["seconds"], row["slices_per_second"],
                      row.get("memory_MiB"), 100 * row["of_peak"], row["trace_seconds"],
                      row["compile_seconds"], *ratios])
    lines += table([*names, "ms", "slices/s", "memory, MiB", "% of peak", "trace, s",
                    "compile, s", "torch eager / flatjax, time",
                    "torch compiled / flatjax, time"], cells)
    lines += table(["torch", "work", "coils", "batch", "precision", "ms", "slices/s",
                    "memory, MiB"], (
        ["compiled" if row["compiled"] else "eager", row["work"], row["coils"], row["batch"],
         row["precision"], 1e3 * row["seconds"], row["slices_per_second"], row.get("memory_MiB")]
        for row in measured(rows, library="torch") if "slices_per_second" in row))
    lines += ["Relative difference from torch with the same weights, float32: " + ", ".join(
        f"{name} {number(error)}" for name, error in row["errors"].items()) + "."
              for row in measured(rows, what="same as torch")]
    return [*lines, ""]


def latency(rows):
    """From k-space to image."""
    return table(["what", "method", "steps", "coils", "seconds", "first call, or import, s"], (
        [row["what"], row.get("method"), row.get("steps"), row["coils"], row["seconds"],
         row.get("first_seconds", row.get("imported_seconds"))] for row in measured(rows)))


def pipeline(rows):
    """Host beside device."""
    return table(["config", "made or used by", "threads", "slices/s"], (
        [row["config"], row["what"], row.get("threads"), row["slices_per_second"]]
        for row in measured(rows)))


def operators(rows):
    """Operators alone."""
    return table(["operator", "input", "kernel", "per cascade", "microseconds", "GFLOP/s",
                  "GB/s"], (
        [row["what"], row["shape"], row["kernel"], row["per_cascade"], row["microseconds"],
         row["GFLOPs"], row["GBs"]] for row in measured(rows)))


def trace(rows):
    """Kernels by time."""
    lines = []
    for row in measured(rows):
        lines += [f"{row['method']}, training step, {number(row['milliseconds'])} ms of kernels:",
                  "", *table(["kernel", "operation", "calls", "ms", "% of all"], (
                      [f"`{kernel['name'][:60]}`", f"`{kernel['hlo'][:40]}`", kernel["calls"],
                       kernel["milliseconds"], 100 * kernel["share"]]
                      for kernel in row["kernels"]))]
    return lines


def training(rows):
    """The shipped recipe: its rate, and its validation."""
    lines = []
    for row in measured(rows, what="training"):
        lines += [f"`configs/{row['recipe']}.py`, batches of {row['batch']}, "
                  f"{number(row['slices_per_second'])} slices/s:", "",
                  *table(["update", "validation PSNR, dB", "SSIM"], (
                      [one["step"], f"{one['psnr']:.2f}", f"{one['ssim']:.3f}"]
                      for one in row["validation"]))]
    return lines


PARTS = {"correctness": ("Correctness", correctness), "throughput": ("Throughput", throughput),
         "latency": ("From k-space to image", latency), "pipeline": ("Pipeline", pipeline),
         "operators": ("Operators alone", operators), "trace": ("Kernels", trace),
         "training": ("Training", training)}


def markdown(found):
    """The whole section."""
    about = found["about"]
    card = about["card"] or {"device": about["device"]}
    lines = [f"{', '.join(f'{name} {value}' for name, value in card.items())}; "
             f"{about['processor']}, {about['cores']} cores; Python {about['python']}, "
             + ", ".join(f"{name} {version}" for name, version in about["versions"].items())
             + f". `{about['XLA_FLAGS'] and 'XLA_FLAGS=' + repr(about['XLA_FLAGS']) + ' '}"
             f"python benchmarks/accelerator.py {' '.join(about['argv'])}`", ""]
    for name, (title, section) in PARTS.items():
        rows = found["parts"].get(name, {}).get("rows", [])
        if measured(rows):
            lines += [f"### {title}", "", *section(rows), *missing(rows)]
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="that accelerator.py wrote")
    parser.add_argument("--into", type=Path, default=PAGE, help="docs/performance.md by default")
    parser.add_argument("--print", action="store_true", help="instead, print it")
    options = parser.parse_args()
    text = markdown(json.loads((options.folder / "accelerator.json").read_text()))
    if options.print:
        print(text)
        return
    before, _, rest = options.into.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    options.into.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
