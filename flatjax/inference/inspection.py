"""What files hold, as `flatjax inspect` tells before training or reconstructing."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from flatjax.data.io.kspace import Scan, find_mask, find_scans, open_scan, slice_with_signal
from flatjax.data.subjects import unique_names
from flatjax.errors import InputError
from flatjax.evaluation import figures, tables
from flatjax.evaluation.figures import Panel
from flatjax.files import make_folder
from flatjax.mri import center_crop
from flatjax.mri.espirit import KERNEL
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import achieved_acceleration, calibration_size

_COLUMNS = ("file", "format", "slices", "coils", "k-space", "image", "voxel (mm)", "R", "center",
            "tells", "missing")
_FLOOR = 1e-4  # of the largest sample: where the logarithmic gray scale of k-space begins


class Inspection(NamedTuple):
    """What one slice of a scan shows.

    Attributes:
        scan: as opened.
        index: of the slice, the one nearest the middle that is not empty.
        kspace: of it, `[coil, ky, kx]` complex64.
        mask: its sampling mask, `[ky or 1, kx]` float32.
        center: `(rows, columns)` of the fully sampled box around the zero frequency.
    """

    scan: Scan
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # of a tuple
    kspace: np.ndarray
    mask: np.ndarray
    center: tuple[int, int]


def inspect_files(paths: Sequence[str | Path], output: str | Path = "inspect"
                  ) -> tuple[list[Inspection], dict[Path, str]]:
    """List what files hold and draw a slice of each kind: print a table and write PNGs.

    One slice of every file is read. Files of one format, coil count and size of k-space are of a
    kind; the first of each is drawn.

    Args:
        paths: files, or folders that are searched with all below them.
        output: folder for the pictures.

    Returns:
        `(seen, errors)`: the good files without their k-space, and what is wrong with the others.

    Raises:
        InputError: a path that does not exist or holds no data, or a folder that cannot be
            written.
    """
    files = _files(paths)
    folder = make_folder(output)
    seen, errors, drawn = [], {}, {}
    for file in tqdm(files, desc="inspect", unit="file", delay=2):
        try:
            one = inspect_scan(open_scan(file))
        except InputError as error:
            errors[file] = " ".join(str(error).split())
            continue
        kind = one.scan.form, one.scan.shape[1:]
        if kind not in drawn:
            names = unique_names([*(path.stem for path in drawn.values()), one.scan.name])
            drawn[kind] = folder / f"{names[-1]}.png"
            figures.save(draw(one), drawn[kind])
        seen.append(one._replace(kspace=np.empty(0)))
    if seen:
        print(table(seen))
        print(f"\na slice of each kind is drawn in {', '.join(map(str, drawn.values()))}")
    for message in errors.values():
        print(f"broken: {message}", file=sys.stderr)
    return seen, errors


def inspect_scan(scan: Scan) -> Inspection:
    """Read the slice nearest the middle of a scan that is not empty.

    Raises:
        InputError: as `slice_with_signal` and the scan's reader say.
    """
    index, kspace = slice_with_signal(scan)
    mask = find_mask(kspace) if scan.mask is None else scan.mask
    full = np.broadcast_to(mask, kspace.shape[1:])
    rows, columns = calibration_size(full)
    return Inspection(scan, index, kspace, mask, (int(rows), int(columns)))


def table(seen: Sequence[Inspection]) -> str:
    """A row per file, as Markdown."""
    return "\n".join(tables.markdown(_COLUMNS, map(_row, seen)))


def _row(one: Inspection) -> tuple[str, ...]:
    scan = one.scan
    slices, coils, *size = scan.shape
    missing = list(scan.missing)
    if coils > 1 and scan.maps is None and min(one.center) < KERNEL:
        missing.append(f"calibration lines ({KERNEL} or more, or maps)")
    if scan.simulated:
        acceleration, center = "-", "-"
    else:
        acceleration = f"{achieved_acceleration(one.mask):.2f}"
        center = " x ".join(map(str, one.center))
    return (str(scan.file), scan.form, str(slices), "-" if scan.simulated else str(coils),
            " x ".join(map(str, size)), " x ".join(map(str, scan.crop or size)),
            " x ".join(f"{n:.3g}" for n in scan.spacing) if scan.spacing else "?",
            acceleration, center, "; ".join(f"{k} {v}" for k, v in scan.facts.items()) or "-",
            ", ".join(missing) or "-")


def draw(one: Inspection) -> Figure:
    """k-space on a logarithmic scale, the mask, and the image of a slice.

    Coils are combined by root sum of squares. Of a volume, k-space is made of the image.
    """
    scan, mask = one.scan, np.broadcast_to(one.mask, one.kspace.shape[1:])
    samples = np.sqrt(np.sum(np.abs(one.kspace) ** 2, axis=0))
    samples = np.log10(np.maximum(samples / samples.max(), _FLOOR))
    image = np.sqrt(np.sum(np.abs(host_ifft2c(one.kspace)) ** 2, axis=0))
    image = center_crop(image, scan.crop or image.shape)
    acquired = "made of the image" if scan.simulated else f"{len(one.kspace)} coils"
    figure = figures.row([
        Panel(samples, f"log10 |k-space|, {acquired}", np.log10(_FLOOR), 0.0),
        Panel(mask, f"mask, R = {achieved_acceleration(mask):.2f}, center "
                    f"{' x '.join(map(str, one.center))}", 0.0, 1.0),
        Panel(image, "image" if mask.all() else "zero-filled image", 0.0,
              float(np.percentile(image, 99.9)))],
        f"{scan.file.name} ({scan.form}), slice {one.index + 1} of {scan.shape[0]}")
    last = figure.axes[-1]
    figure.colorbar(last.images[0], ax=last, shrink=0.8, label="intensity")
    return figure


def _files(paths: Sequence[str | Path]) -> list[Path]:
    """Files of the paths, folders with all below them."""
    files = []
    for path in map(Path, paths):
        folders = [path, *sorted(one for one in path.rglob("*") if one.is_dir())]
        found, reason = [], None
        for folder in folders:
            try:
                found += find_scans([folder])
            except InputError as error:
                reason = reason or error
        if reason and not found:
            raise reason
        files += found
    return files
