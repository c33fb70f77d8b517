"""The measurement of accelerators, at tiny sizes on the CPU."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "benchmarks"
PARTS = ("correctness", "throughput", "trace", "operators", "pipeline", "latency", "training")


def numbers(value):
    if isinstance(value, dict | list):
        return [x for part in (value.values() if isinstance(value, dict) else value)
                for x in numbers(part)]
    return [value] if isinstance(value, float) else []


def run(program, *arguments):
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run([sys.executable, str(PROGRAMS / program), *map(str, arguments)],
                          env=os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"},
                          check=True, capture_output=True, text=True, timeout=3000)


def test_every_part_measures_something_finite_and_its_tables_fill_the_page(tmp_path):
    run("accelerator.py", "--quick", "--without-torch", "--seconds=3000", f"--output={tmp_path}")
    found = json.loads((tmp_path / "accelerator.json").read_text())
    assert tuple(found["parts"]) == PARTS
    for name, part in found["parts"].items():
        assert part["rows"] and "error" not in part, name
        for row in part["rows"]:
            assert "error" not in row and "skipped" not in row, row
            assert numbers(row) and all(map(math.isfinite, numbers(row))), row
    errors = [error for row in found["parts"]["correctness"]["rows"]
              if row.get("precision") != "bfloat16" for error in row["errors"].values()]
    assert len(errors) > 20 and max(errors) < 1e-3
    kinds = {(row["method"], row["work"]) for row in found["parts"]["throughput"]["rows"]
             if row.get("slices_per_second", 0) > 0}
    assert kinds >= {("varnet", "inference"), ("varnet", "step"), ("flat", "inference"),
                     ("flat_imex", "inference"), ("dds", "inference")}

    page = tmp_path / "page.md"
    page.write_text("above\n<!-- accelerator: begin -->\nnothing yet\n"
                    "<!-- accelerator: end -->\nbelow\n")
    run("accelerator_report.py", tmp_path, f"--into={page}")
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("below\n")
    assert "nothing yet" not in text
    assert all(f"\n### {title}\n" in text for title in ("Correctness", "Throughput", "Kernels"))
    assert "not measured" not in text


def test_rows_beyond_the_time_are_told_as_skipped(tmp_path):
    run("accelerator.py", "--quick", "--without-torch", "--seconds=0", "--parts=operators",
        f"--output={tmp_path}")
    rows = json.loads((tmp_path / "accelerator.json").read_text())["parts"]["operators"]["rows"]
    assert rows and all("skipped" in row for row in rows)
