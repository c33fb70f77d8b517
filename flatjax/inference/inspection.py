"""What files hold, as `flatjax inspect` tells before training or reconstructing."""

import math
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from flatjax.data.io.checks import check_mask, reading
from flatjax.data.io.kspace import Scan, find_mask, find_scans, open_scan, slice_with_signal
from flatjax.data.subjects import unique_names
from flatjax.errors import InputError
from flatjax.evaluation import figures, tables
from flatjax.evaluation.figures import Panel
from flatjax.files import make_folder
from flatjax.inference.checks import check_kspace, energy_offset
from flatjax.mri import center_crop, noise_level
from flatjax.mri.espirit import KERNEL
from flatjax.mri.host.coil_compression import whitening
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import achieved_acceleration, calibration_size, pattern

_FLOOR = 1e-4  # of the largest sample: where the gray scale of k-space begins


def inspect_files(paths: Sequence[str | Path], output: str | Path = "inspect", array: str = "",
                  axes: str = "") -> dict[Path, str]:
    """List what files hold and draw a slice of each kind: print a table and write PNGs.

    Folders are searched with all below them. One slice of every file is read. Files of one format,
    coil count and size of k-space are of a kind; the first of each is drawn into `output`. Prints
    what is doubtful about k-space, and returns what is wrong with the broken files, by their paths.
    `array` and `axes` are those of `data.io.kspace.open_scan`.
    An `InputError` for a path that is missing or holds no data, or a folder that cannot be written.
    """
    files = _files(paths)
    folder = make_folder(output)
    rows, errors, drawn, doubts = [], {}, {}, []
    for file in tqdm(files, desc="inspect", unit="file", delay=2):
        try:
            scan = open_scan(file, array=array, axes=axes)
            index, kspace = slice_with_signal(scan)
            with reading(scan.file):
                if scan.mask is not None:
                    check_mask(kspace, find_mask(kspace), scan.mask)
                found = () if scan.simulated else check_kspace(kspace)
                doubts += [f"{file}: {doubt}" for doubt in (*scan.doubts, *found)]
        except InputError as error:
            errors[file] = " ".join(str(error).split())
            continue
        rows.append(_row(scan, kspace))
        kind = scan.form, scan.shape[1:]
        if kind not in drawn:
            names = unique_names([*(path.stem for path in drawn.values()), scan.name])
            drawn[kind] = folder / f"{names[-1]}.png"
            figures.save(draw(scan, index, kspace), drawn[kind], pdf=False)
    if rows:
        print("\n".join(tables.markdown(list(rows[0]), [list(row.values()) for row in rows])))
        print(f"\na slice of each kind is drawn in {', '.join(map(str, drawn.values()))}")
    for kind, messages in (("warning", doubts), ("broken", errors.values())):
        for message in messages:
            print(f"{kind}: {message}", file=sys.stderr)
    return errors


def _row(scan: Scan, kspace: np.ndarray) -> dict[str, str]:
    """The cells of a file's row by their columns."""
    slices, coils, *size = scan.shape
    mask, center = _sampling(scan, kspace)
    missing = list(scan.missing)
    if coils > 1 and not (scan.maps or scan.calibration) and min(center) < KERNEL:
        missing.append(f"calibration lines ({KERNEL} or more, or maps)")
    titles = "sampling", "R", "center", "energy at", "noise", "SNR"
    measured = ["-"] * len(titles)
    if not scan.simulated:
        noise, snr = _noise(scan, kspace, mask)
        energy = [n // 2 + n * energy_offset(kspace, axis) for axis, n in enumerate(size, 1)]
        measured = [pattern(mask), f"{achieved_acceleration(mask):.2f}", _product(center),
                    _product(["?" if math.isnan(n) else round(n) for n in energy]),
                    f"{noise:.2g}", f"{snr:.0f}"]
    return {
        "file": str(scan.file), "format": scan.form,
        "slices": f"{slices // scan.frames}{f' x {scan.frames}' * (scan.frames > 1)}",
        "coils": "-" if scan.simulated else str(coils), "ky x kx": _product(size),
        "image": _product(scan.crop or size),
        "voxel (mm)": " x ".join(f"{n:.3g}" for n in scan.spacing) if scan.spacing else "?",
        "orientation": "known" if scan.placed else "?",
        **dict(zip(titles, measured, strict=True)),
        "tells": "; ".join(f"{k} {v}" for k, v in scan.facts.items()) or "-",
        "missing": ", ".join(missing) or "-"}


def _sampling(scan: Scan, kspace: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The mask `[ky, kx]` of a slice, and rows and columns of its fully sampled center."""
    mask = np.broadcast_to(find_mask(kspace) if scan.mask is None else scan.mask, kspace.shape[1:])
    rows, columns = calibration_size(mask)
    return mask, (int(rows), int(columns))


def _noise(scan: Scan, kspace: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """Standard deviation of a sample's noise, and the brightest pixels over that of a pixel."""
    noise = float(noise_level(jnp.asarray(kspace[None]), jnp.asarray(mask[None, None]))[0])
    if scan.noise is not None:
        noise = whitening(scan.noise)[1]
    peak = float(np.percentile(_combined(host_ifft2c(kspace)), 99.9))
    return noise, peak / (noise * mask.mean() ** 0.5 or math.nan)


def _combined(coils: np.ndarray) -> np.ndarray:
    """The root sum of squares of `[coil, ky, kx]`, of any unit: float64 holds its squares."""
    return np.sqrt(np.sum(np.abs(coils).astype(np.float64) ** 2, axis=0))


def _product(numbers: Sequence[int | str]) -> str:
    return " x ".join(map(str, numbers))


@figures.styled
def draw(scan: Scan, index: int, kspace: np.ndarray) -> "figures.Figure":
    """A slice's k-space on a logarithmic scale, its mask, and its image, coils combined by RSS."""
    mask, center = _sampling(scan, kspace)
    samples = _combined(kspace)
    samples = np.log10(np.maximum(samples / samples.max(), _FLOOR))
    image = center_crop(_combined(host_ifft2c(kspace)), scan.crop or kspace.shape[1:])
    acquired = "made of the image" if scan.simulated else f"{len(kspace)} coils"
    figure = figures.row([
        Panel(samples, f"log10 |k-space|, {acquired}", np.log10(_FLOOR), 0.0),
        Panel(mask, f"mask, R = {achieved_acceleration(mask):.2f}, center {_product(center)}",
              0.0, 1.0),
        Panel(image, "image" if mask.all() else "zero-filled image", 0.0,
              float(np.percentile(image, 99.9)))],
        f"{scan.file.name} ({scan.form}), slice {index + 1} of {scan.shape[0]}")
    last = figure.axes[-1]
    figure.colorbar(last.images[0], ax=last, shrink=0.8, label="intensity")
    return figure


def _files(paths: Sequence[str | Path]) -> list[Path]:
    """Files of the paths, folders with all below them."""
    files = []
    for path in map(Path, paths):
        found = []
        for folder in [path, *sorted(one for one in path.rglob("*") if one.is_dir())]:
            with suppress(InputError):
                found += find_scans([folder])
        files += found or find_scans([path])  # which says why there are none
    return files
