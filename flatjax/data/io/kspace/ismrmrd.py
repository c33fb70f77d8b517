"""k-space of Cartesian 2-D scans in ISMRMRD's HDF5 (Inati et al., MRM 2017; ismrmrd.github.io).

The group `dataset` holds the header `xml` and the readouts `data`. A slice is `[coil, ky, kx]`
with the readout along ky and phase encoding along kx, as in fastMRI's files, which were made of
such. Only heads are read at first: some 340 bytes per readout; then the readouts of one slice.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from flatjax.data.io import fastmri_header
from flatjax.data.io.hdf5 import check_stored, isolated, open_hdf5
from flatjax.data.io.kspace.base import Scan, as_slices, to_complex64
from flatjax.errors import InputError

_ENCODING = ("ismrmrdHeader", "encoding")
_SIZES = {f"{space}_{axis}": (*_ENCODING, f"{space}Space", "matrixSize", axis)
          for space in ("encoded", "recon") for axis in "xyz"}
_CENTER = (*_ENCODING, "encodingLimits", "kspace_encoding_step_1", "center")
_TEXTS = {
    "trajectory": (*_ENCODING, "trajectory"),
    "protocol": ("ismrmrdHeader", "measurementInformation", "protocolName"),
    "field strength (T)": ("ismrmrdHeader", "acquisitionSystemInformation",
                           "systemFieldStrength_T"),
    "TR (ms)": ("ismrmrdHeader", "sequenceParameters", "TR"),
    "TE (ms)": ("ismrmrdHeader", "sequenceParameters", "TE"),
}
_FACTS = tuple(_TEXTS)[1:]
# Bits of `flags`, counted from 1 in the standard.
_CALIBRATION, _REVERSED = 20, 22
# noise, navigator, phase correction, feedback, dummy, surface coil, phase stabilisation
_NOT_IMAGING = (19, 23, 24, 26, 27, 28, 29, 30, 31)
_FRAME = ("contrast", "phase", "repetition", "set", "slice")
_HEAD = ("flags", "number_of_samples", "active_channels", "discard_pre", "discard_post",
         "center_sample", "encoding_space_ref", "position", "read_dir", "phase_dir", "slice_dir",
         "idx")
_LEAST_SAMPLED = 64  # an encoded matrix with so many times more lines than were read is refused


class Layout(NamedTuple):
    """Where readouts go.

    Attributes:
        shape: `(slices, coils, ky, kx)`.
        rows: of `dataset/data`, a list per slice.
        columns: kx of each of them, a list per slice.
        counts: how many readouts share that column, a list per slice.
        samples: `(first, last + 1, ky of the first)`, the part of every readout that is used.
    """

    shape: tuple[int, int, int, int]
    rows: list[np.ndarray]
    columns: list[np.ndarray]
    counts: list[np.ndarray]
    samples: tuple[int, int, int]


def open_ismrmrd(file: Path) -> Scan:
    """An ISMRMRD file with a Cartesian 2-D scan, of one or many slices.

    Contrasts, cardiac phases, repetitions and sets become further slices. Readouts of the same
    line are averaged. Those flagged as calibration alone fill lines that no other readout does;
    noise, navigators, feedback and dummies are left out, as are encodings after the first.

    Raises:
        InputError: it is damaged, its header is not one, or the scan is not Cartesian, is 3-D, or
            has reversed readouts, which need a phase correction that is not done here.
    """
    return isolated(_open, file)


def _open(file: Path) -> Scan:
    with open_hdf5(file) as content:
        xml = content.get("dataset/xml")
        data = content.get("dataset/data")
        if not isinstance(xml, h5py.Dataset) or xml.size != 1 \
                or not h5py.check_string_dtype(xml.dtype):
            raise InputError(f"{file}: has no header dataset/xml of one string; expected ISMRMRD, "
                             "as the converters of siemens_to_ismrmrd and others write it")
        if not isinstance(data, h5py.Dataset) or data.ndim != 1 or data.size == 0 \
                or not {"head", "data"} <= set(data.dtype.names or ()):
            raise InputError(f"{file}: has no readouts dataset/data; expected raw k-space in "
                             "ISMRMRD, not images")
        for dataset in (xml, data):
            check_stored(file, dataset)
        text = np.asarray(xml[()]).item()
        try:
            header = _header(text.encode() if isinstance(text, str) else bytes(text))
        except InputError as error:
            raise InputError(f"{file}: dataset/xml: {error}") from error
        names = data.dtype["head"].names or ()
        if set(_HEAD) - set(names):
            raise InputError(f"{file}: the heads of dataset/data lack "
                             f"{', '.join(sorted(set(_HEAD) - set(names)))}; write it anew with "
                             "a current ISMRMRD library")
        heads = data["head"]
        layout, first = _layout(file, header, heads)
    _, _, ky, kx = layout.shape
    crop = min(header["recon_x"], ky), min(header["recon_y"], kx)
    facts = {name: header[name] for name in _FACTS if name in header}
    spacing = header["spacing"]
    affine = None
    if spacing and len({tuple(int(heads["idx"][name][i]) for name in _FRAME[:-1])
                        for i in first}) == 1:
        affine, spacing = _affine(heads[first], (ky, kx), crop, spacing)
    missing = tuple(name for name, there in (("affine", affine is not None),
                                             ("protocol", "protocol" in facts)) if not there)
    return Scan(file, file.stem, "ISMRMRD", layout.shape, partial(_slices, file, layout),
                crop=crop, affine=affine, spacing=spacing, facts=facts, missing=missing)


def _header(xml: bytes) -> dict[str, Any]:
    found = fastmri_header.texts(xml, {"center": _CENTER} | _SIZES | _TEXTS)
    out: dict[str, Any] = {name: fastmri_header.number(found.get(name), path, 1)
                           for name, path in _SIZES.items()}
    out["center"] = (fastmri_header.number(found["center"], _CENTER, 0) if "center" in found
                     else out["encoded_y"] // 2)
    out["spacing"] = fastmri_header.spacing(xml)
    out |= {name: found[name].strip()[:80] for name in _TEXTS if found.get(name, "").strip()}
    if out.get("trajectory", "").lower() != "cartesian":
        raise InputError(f"trajectory is {out.get('trajectory')!r}, expected 'cartesian'; grid the "
                         "data first, for instance with BART or sigpy")
    if out["encoded_z"] > 1:
        raise InputError(f"{'/'.join(_SIZES['encoded_z'])} is {out['encoded_z']}, expected 1: of a "
                         "3-D scan transform the readout and hand over its slices as .npy")
    return out


def _flagged(flags: np.ndarray, bits: Iterable[int]) -> np.ndarray:
    mask = sum(1 << (bit - 1) for bit in bits)
    return flags & np.uint64(mask) != 0


def _layout(file: Path, header: dict[str, Any], heads: np.ndarray) -> tuple[Layout, list[int]]:
    """Where readouts go, and a readout of every slice."""
    flags = heads["flags"].astype(np.uint64)
    imaging = np.flatnonzero(~_flagged(flags, _NOT_IMAGING) & (heads["encoding_space_ref"] == 0))
    if imaging.size == 0:
        raise InputError(f"{file}: none of {len(heads)} readouts is of an image; expected some "
                         "without the flags of noise, navigators or calibration")
    used = heads[imaging]
    if _flagged(used["flags"].astype(np.uint64), [_REVERSED]).any():
        raise InputError(f"{file}: has reversed readouts, as EPI has, which need a phase "
                         "correction; do it first and hand over the k-space as .npy")
    if (used["idx"]["kspace_encode_step_2"] != used["idx"]["kspace_encode_step_2"][0]).any():
        raise InputError(f"{file}: encodes along kspace_encode_step_2, expected a 2-D scan; "
                         "transform the 3-D one along its readout and hand it over as .npy")
    for name in ("number_of_samples", "active_channels", "discard_pre", "discard_post",
                 "center_sample"):
        if (used[name] != used[name][0]).any():
            raise InputError(f"{file}: {name} differs between readouts, from {used[name].min()} to "
                             f"{used[name].max()}, expected one; split the file")
    one = used[0]
    ky, kx, coils = header["encoded_x"], header["encoded_y"], int(one["active_channels"])
    first, last = int(one["discard_pre"]), int(one["number_of_samples"]) - int(one["discard_post"])
    at = ky // 2 - int(one["center_sample"]) + first
    if not (0 <= first < last and at >= 0 and at + last - first <= ky and coils):
        raise InputError(f"{file}: readouts of {one['number_of_samples']} samples with their "
                         f"center at {one['center_sample']} do not fit the encoded matrix of {ky}, "
                         "expected the header of this scan; export it again")
    frames, inverse = np.unique(np.stack([used["idx"][name] for name in _FRAME], axis=1), axis=0,
                                return_inverse=True)
    columns = used["idx"]["kspace_encode_step_1"].astype(int) + kx // 2 - header["center"]
    if columns.min() < 0 or columns.max() >= kx:
        raise InputError(f"{file}: lines {columns.min()} to {columns.max()} do not fit the encoded "
                         f"matrix of {kx}, expected 0 to {kx - 1}: encodingLimits belong to "
                         "another scan; export it again")
    if kx > _LEAST_SAMPLED * len(np.unique(columns)):
        raise InputError(f"{file}: {len(np.unique(columns))} of {kx} lines were read, expected at "
                         f"least one in {_LEAST_SAMPLED}; the header belongs to another scan")
    shape = as_slices(file, "the encoded matrix", (len(frames), coils, ky, kx))
    calibration = _flagged(used["flags"].astype(np.uint64), [_CALIBRATION])
    layout = Layout(shape, [], [], [], (first, last, at))
    for frame in range(len(frames)):
        mine = inverse.ravel() == frame
        lines = set(columns[mine & ~calibration])
        taken = np.flatnonzero(mine & (~calibration | ~np.isin(columns, list(lines))))
        layout.rows.append(imaging[taken])
        layout.columns.append(columns[taken])
        layout.counts.append(np.bincount(columns[taken], minlength=kx)[columns[taken]])
    return layout, [int(rows[0]) for rows in layout.rows]


def _slices(file: Path, layout: Layout, indices: Iterable[int]) -> Iterator[np.ndarray]:
    for index in indices:
        yield isolated(_slice, file, index, layout.shape, layout.samples, layout.rows[index],
                       layout.columns[index], layout.counts[index])


def _slice(file: Path, index: int, shape: tuple[int, int, int, int],
           samples: tuple[int, int, int], rows: np.ndarray, columns: np.ndarray,
           counts: np.ndarray) -> np.ndarray:
    _, coils, ky, kx = shape
    first, last, at = samples
    out = np.zeros((coils, ky, kx), np.complex64)
    with open_hdf5(file) as content:
        data = content["dataset/data"]
        for row, column, count in zip(rows, columns, counts, strict=True):
            values = np.asarray(data[int(row)]["data"], np.float32)
            read = values.size // (2 * coils)
            if values.size != 2 * coils * read or read < last:
                raise InputError(f"{file}: readout {row} has {values.size} numbers, expected "
                                 f"{coils} channels of at least {last} complex samples; export it "
                                 "again")
            line = values.view(np.complex64).reshape(coils, read)[:, first:last]
            out[:, at:at + last - first, column] += line / np.float32(count)
    return to_complex64(file, "dataset/data", index, out)


def _affine(heads: np.ndarray, shape: tuple[int, int], crop: tuple[int, int],
            spacing: tuple[float, float, float]) -> tuple[np.ndarray | None,
                                                          tuple[float, float, float]]:
    """The affine of `Scan` where heads tell a position, and the spacing with the slices' own.

    Positions and directions are the patient's, toward left, posterior and superior.
    """
    axes = [heads[0][name].astype(float) for name in ("phase_dir", "read_dir", "slice_dir")]
    if not np.allclose(np.array(axes) @ np.array(axes).T, np.eye(3), atol=1e-3):
        return None, spacing
    positions = heads["position"].astype(float)
    step = axes[2] * spacing[2]
    if len(heads) > 1:
        step = positions[1] - positions[0]
        even = positions[0] + step * np.arange(len(heads))[:, None]
        if np.linalg.norm(step) == 0 or not np.allclose(positions, even, atol=1e-2):
            return None, spacing
        spacing = (*spacing[:2], float(np.linalg.norm(step)))
    to_ras = np.array([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = to_ras[:, None] * np.stack(
        [axes[0] * spacing[0], axes[1] * spacing[1], step], axis=1)
    # position is that of the pixel at n // 2, where the transform has its origin
    center = [shape[axis] // 2 - (shape[axis] - crop[axis]) // 2 for axis in (1, 0)]
    affine[:3, 3] = to_ras * positions[0] - affine[:3, :2] @ center
    return affine, spacing
