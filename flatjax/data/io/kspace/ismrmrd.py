"""k-space of Cartesian 2-D scans in ISMRMRD's HDF5 (Inati et al., MRM 2017; ismrmrd.github.io).

The group `dataset` holds the header `xml` and the readouts `data`. A slice is `[coil, ky, kx]`
with the readout along ky and phase encoding along kx, as in fastMRI's files, which were made of
such. Only heads are read at first: some 340 bytes per readout; then the readouts of one slice.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from flatjax.data.io.checks import finite
from flatjax.data.io.hdf5 import isolated, stored_dataset
from flatjax.data.io.header import Header, read_header
from flatjax.data.io.kspace.base import Scan, Shape, as_slices
from flatjax.errors import InputError

_FACTS = {
    "protocol": "measurementInformation/protocolName",
    "field strength (T)": "acquisitionSystemInformation/systemFieldStrength_T",
    "TR (ms)": "sequenceParameters/TR",
    "TE (ms)": "sequenceParameters/TE",
}
# Bits of `flags`, counted from 1 in the standard.
_CALIBRATION, _REVERSED = 20, 22
# noise, navigator, phase correction, feedback, dummy, surface coil, phase stabilisation
_NOT_IMAGING = (19, 23, 24, 26, 27, 28, 29, 30, 31)
_FRAME = ("contrast", "phase", "repetition", "set", "slice")
_ALIKE = ("number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample")
_LEAST_SAMPLED = 64  # an encoded matrix with so many times more lines than were read is refused


def open_ismrmrd(file: Path) -> Scan:
    """An ISMRMRD file with a Cartesian 2-D scan, of one or many slices; other scans are refused.

    Contrasts, cardiac phases, repetitions and sets become further slices. Readouts of the same
    line are averaged. Those flagged as calibration alone fill lines that no other readout does;
    noise, navigators, feedback and dummies are left out, as are encodings after the first.
    """
    return isolated(_open, file)


def _open(file: Path) -> Scan:
    with h5py.File(file) as content:
        header = read_header(content, "dataset/xml")
        heads = stored_dataset(content, "dataset/data")["head"]
        shape, samples, readouts = _layout(header, heads)
        first = heads[[rows[0, 0] for rows in readouts]]  # a readout of each slice
        _, _, ky, kx = shape
        recon = [header.number(f"encoding/reconSpace/matrixSize/{axis}") for axis in "xy"]
        crop = min(recon[0], ky), min(recon[1], kx)
        affine, spacing = None, header.spacing()
        if spacing and all((first["idx"][name] == first["idx"][name][0]).all()
                           for name in _FRAME[:-1]):
            affine, spacing = _affine(first, (ky, kx), crop, spacing)
    facts = {name: header.text(path)[:80] for name, path in _FACTS.items() if header.text(path)}
    missing = ["affine"] * (affine is None) + ["protocol"] * ("protocol" not in facts)
    return Scan(file, file.stem, "ISMRMRD", shape, partial(_slices, file, shape, samples, readouts),
                crop=crop, affine=affine, spacing=spacing, facts=facts, missing=tuple(missing))


def _flagged(heads: np.ndarray, bits: Iterable[int]) -> np.ndarray:
    mask = sum(1 << (bit - 1) for bit in bits)
    return heads["flags"].astype(np.uint64) & np.uint64(mask) != 0


def _layout(header: Header, heads: np.ndarray
            ) -> tuple[Shape, tuple[int, int, int], list[np.ndarray]]:
    """Where readouts go: `(shape, samples, readouts)`.

    `samples` are `(first, last + 1, ky of the first)` of every readout; of each slice the readouts
    are `[readout, 2]`: the row of `dataset/data` and its column kx.
    """
    imaging = np.flatnonzero(~_flagged(heads, _NOT_IMAGING) & (heads["encoding_space_ref"] == 0))
    if imaging.size == 0:
        raise InputError(f"none of {len(heads)} readouts is of an image; expected some without the "
                         "flags of noise, navigators or calibration")
    used = heads[imaging]
    _check_kind(header, used)
    kx = header.number("encoding/encodedSpace/matrixSize/y")
    center = "encoding/encodingLimits/kspace_encoding_step_1/center"
    center = header.number(center, least=0) if header.text(center) else kx // 2
    columns = used["idx"]["kspace_encode_step_1"].astype(int) + kx // 2 - center
    count = len(np.unique(columns))
    if columns.min() < 0 or columns.max() >= kx or kx > _LEAST_SAMPLED * count:
        raise InputError(f"{count} lines from {columns.min()} to {columns.max()} do not fit the "
                         f"encoded matrix of {kx}, as if it were another scan's; export it again")
    one, ky = used[0], header.number("encoding/encodedSpace/matrixSize/x")
    first, last = int(one["discard_pre"]), int(one["number_of_samples"]) - int(one["discard_post"])
    at = ky // 2 - int(one["center_sample"]) + first
    if not (0 <= first < last and at >= 0 and at + last - first <= ky):
        raise InputError(f"samples {first} to {last} with center {one['center_sample']} do not fit "
                         f"the encoded matrix of {ky}; export it again")
    frames, inverse = np.unique(np.stack([used["idx"][name] for name in _FRAME], axis=1), axis=0,
                                return_inverse=True)
    shape = as_slices("the encoded matrix", (len(frames), int(one["active_channels"]), ky, kx))
    calibration = _flagged(used, [_CALIBRATION])
    readouts = []
    for frame in range(len(frames)):
        mine = inverse.ravel() == frame
        lines = columns[mine & ~calibration]
        taken = np.flatnonzero(mine & (~calibration | ~np.isin(columns, lines)))
        readouts.append(np.stack([imaging[taken], columns[taken]], axis=1))
    return shape, (first, last, at), readouts


def _check_kind(header: Header, used: np.ndarray) -> None:
    """Refuse what is no Cartesian 2-D scan of equal readouts."""
    trajectory = header.text("encoding/trajectory")
    if trajectory.lower() != "cartesian":
        raise InputError(f"trajectory is {trajectory[:80]!r}, expected 'cartesian'; grid the data "
                         "first, for instance with BART or sigpy")
    if header.number("encoding/encodedSpace/matrixSize/z") > 1 \
            or np.ptp(used["idx"]["kspace_encode_step_2"]):
        raise InputError("encodes along kspace_encode_step_2, expected a 2-D scan; transform the "
                         "3-D one along its readout and hand it over as .npy")
    if _flagged(used, [_REVERSED]).any():
        raise InputError("has reversed readouts, as EPI has, which need a phase correction; do it "
                         "first and hand over the k-space as .npy")
    for name in _ALIKE:
        if np.ptp(used[name]):
            raise InputError(f"{name} differs between readouts, from {used[name].min()} to "
                             f"{used[name].max()}, expected one; split the file")


def _slices(file: Path, shape: Shape, samples: tuple[int, int, int], readouts: list[np.ndarray],
            indices: Iterable[int]) -> Iterator[np.ndarray]:
    for index in indices:
        yield isolated(_slice, file, index, shape, samples, readouts[index])


def _slice(file: Path, index: int, shape: Shape, samples: tuple[int, int, int],
           readouts: np.ndarray) -> np.ndarray:
    _, coils, ky, kx = shape
    first, last, at = samples
    out = np.zeros((coils, ky, kx), np.complex64)
    counts = np.bincount(readouts[:, 1]).astype(np.float32)  # of readouts that share a column
    with h5py.File(file) as content:
        data = content["dataset/data"]
        for row, column in readouts.tolist():
            values = np.asarray(data[row]["data"], np.float32)
            read = values.size // (2 * coils)
            if values.size != 2 * coils * read or read < last:
                raise InputError(f"readout {row} has {values.size} numbers, expected {coils} "
                                 f"channels of at least {last} complex samples; export it again")
            line = values.view(np.complex64).reshape(coils, read)[:, first:last]
            out[:, at:at + last - first, column] += line / counts[column]
    return finite("dataset/data", index, out)


def _affine(heads: np.ndarray, shape: tuple[int, int], crop: tuple[int, int],
            spacing: tuple[float, float, float]) -> tuple[np.ndarray | None,
                                                          tuple[float, float, float]]:
    """The affine of `Scan` where heads tell a position, and the spacing with the slices' own.

    Positions and directions are the patient's, toward left, posterior and superior.
    """
    axes = np.array([heads[0][name] for name in ("phase_dir", "read_dir", "slice_dir")], float)
    if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
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
