"""k-space of Cartesian 2-D scans in ISMRMRD's HDF5 (Inati et al., MRM 2017; ismrmrd.github.io).

A group holds the header `xml` and the readouts `data`. A slice is `[coil, ky, kx]` with the readout
along ky and phase encoding along kx, as in fastMRI's files, which were made of such. Only heads are
read at first: some 340 bytes per readout; then the readouts of one slice.

The standard tells directions, but not which sign the Fourier transform to the image has. ISMRMRD's
own programs take the inverse one, as we do. In files of Siemens scanners, directions are the
scanner's quaternion (`siemens_to_ismrmrd`, main.cpp), which supposes the forward one: there an
image runs against both of its directions. The two transforms differ by a turn of 180 degrees about
pixel n // 2, never by a mirror. Found alike by who compared images with the scanner's: MRpro
(`KData.from_file` conjugates these k-spaces), lowfield_maxgirf (USC, `siemens_cartesian_fft_recon`:
forward transform), python-ismrmrd-server (`invertcontrast.py`: both axes flipped, "to be consistent
with ICE"), RecoTwix (`_extract_transformation`: both flipped, by experiment) and SIRF
(`set_up_geom_info`: directions negated). Gadgetron's DICOM writer does not (gadgetron#1003).
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

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
_CALIBRATION, _CALIBRATION_AND_IMAGING, _REVERSED = 20, 21, 22
# noise, navigator, phase correction, feedback, dummy, surface coil, phase stabilisation
_NOT_IMAGING = (19, 23, 24, 26, 27, 28, 29, 30, 31)
_FRAME = ("contrast", "phase", "repetition", "set")
_ALIKE = ("number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample")
_LEAST_SAMPLED = 64  # an encoded matrix with so many times more lines than were read is refused
_TOLERANCE = 0.01  # mm, of positions
_TO_RAS = np.array([-1.0, -1.0, 1.0])  # from positions toward left, posterior and superior


class _Lines(NamedTuple):
    """Where readouts go."""

    samples: tuple[int, int, int]  # `(first, last + 1, ky of the first)` of every readout
    images: list[np.ndarray]  # of each image `[readout, 2]`: row of the dataset and column kx


def open_ismrmrd(file: Path) -> Scan:
    """An ISMRMRD file with a Cartesian 2-D scan, of one or many slices; other scans are refused.

    It is the group `dataset`, or the only one of a scan. Slices are ordered along their normal,
    readouts of the same line are averaged. Contrasts, cardiac phases, repetitions and sets are
    frames. Lines for calibration alone make the maps, and nothing else, unless the header's
    calibrationMode is embedded or interleaved: such fill lines that no other readout does. The
    image is cropped to the header's recon field of view. Noise, navigators, feedback and dummies
    are left out, as are encodings after the first.
    """
    return isolated(_open, file)


def _group(content: h5py.File) -> str:
    """The group of a scan: dataset, or the only one that looks like it."""
    names = sorted(map(str, content))
    found = [name for name in names if isinstance(content.get(name), h5py.Group)
             and {"xml", "data"} & {*content[name]}]
    if "dataset" not in names and len(found) != 1:
        raise InputError("has neither a dataset kspace, as fastMRI's files, nor a group dataset, "
                         f"as ISMRMRD's, only {', '.join(names[:8])}; rename the k-space to kspace "
                         "or the group to dataset, for instance with h5py's move")
    return "dataset" if "dataset" in names else found[0]


def _open(file: Path) -> Scan:
    with h5py.File(file) as content:
        group = _group(content)
        header = read_header(content, f"{group}/xml")
        heads = stored_dataset(content, f"{group}/data")["head"]
    rows = np.flatnonzero(~_flagged(heads, _NOT_IMAGING) & (heads["encoding_space_ref"] == 0))
    mode = header.text("encoding/parallelImaging/calibrationMode").lower()
    filling = mode in ("embedded", "interleaved")
    imaging = rows if filling else rows[~_calibrates_alone(heads[rows])]
    if imaging.size == 0:
        raise InputError(f"none of {len(heads)} readouts is of an image; expected some without the "
                         "flags of noise, navigators or calibration")
    used = heads[imaging]
    _check_kind(header, used)
    frames, frame = _frames(used)
    numbers, first, number = np.unique(used["idx"]["slice"], return_index=True, return_inverse=True)
    order = np.argsort(used["position"][first] @ used["slice_dir"][0], kind="stable")
    slot, count = np.argsort(order)[number.ravel()], len(order)  # of each readout's slice
    image = frame * count + slot
    if 2 * len(np.unique(image)) < len(frames) * count:
        raise InputError(f"{len(np.unique(image))} images are of {len(frames)} contrasts, phases, "
                         f"repetitions or sets and {count} slices, expected each slice in each; "
                         "split the file")
    matrix = [header.number(f"encoding/encodedSpace/matrixSize/{axis}") for axis in "xy"]
    shape = as_slices("the encoded matrix", (len(frames) * count, int(used["active_channels"][0]),
                                             *matrix))
    read = partial(_read, file, group, shape)
    lines = _place(header, heads, imaging, image, len(frames) * count)
    calibration, own = None, rows[:0]
    if imaging.size < rows.size:
        own = rows[_flagged(heads[rows], [_CALIBRATION, _CALIBRATION_AND_IMAGING])
                   & np.isin(heads["idx"]["slice"][rows], numbers)]
        own = own[_frames(heads[own])[1] == 0]  # of one contrast
    if own.size:
        their = np.argsort(order)[np.searchsorted(numbers, heads["idx"]["slice"][own])]
        placed = _place(header, heads, own, their, count)
        calibration = partial(read, placed._replace(images=placed.images * len(frames)))
    facts = {name: header.text(path)[:80] for name, path in _FACTS.items() if header.text(path)}
    facts |= {f"{name}s": str(len(np.unique(values))) for name, values in zip(
        _FRAME, frames.T, strict=True) if np.ptp(values)}
    facts |= {"calibration readouts": str(own.size)} if own.size else {}
    crop = _crop(header, (shape[2], shape[3]))
    affine, spacing, why = _affine(header, used, slot, (shape[2], shape[3]), crop)
    missing = ["affine"] * (affine is None) + ["protocol"] * ("protocol" not in facts)
    return Scan(file, file.stem, "ISMRMRD", shape, partial(read, lines), calibration=calibration,
                frames=len(frames), crop=crop, affine=affine, spacing=spacing, facts=facts,
                missing=tuple(missing), doubts=(f"has no affine: {why}",) if why else ())


def _flagged(heads: np.ndarray, bits: Iterable[int]) -> np.ndarray:
    mask = sum(1 << (bit - 1) for bit in bits)
    return heads["flags"].astype(np.uint64) & np.uint64(mask) != 0


def _calibrates_alone(heads: np.ndarray) -> np.ndarray:
    """Which readouts are not for imaging as well; those that are may have both flags."""
    return _flagged(heads, [_CALIBRATION]) & ~_flagged(heads, [_CALIBRATION_AND_IMAGING])


def _frames(heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of `_FRAME` that there are, `[frame, 4]`, and the frame of each readout."""
    frames, frame = np.unique(np.stack([heads["idx"][name] for name in _FRAME], axis=1), axis=0,
                              return_inverse=True)
    return frames, frame.ravel()


def _place(header: Header, heads: np.ndarray, rows: np.ndarray, image: np.ndarray,
           count: int) -> _Lines:
    """Where the readouts of these rows go, each to the image that is told of so many.

    Those for calibration alone are left out where an image has another readout of their line.
    """
    used = heads[rows]
    for name in _ALIKE:
        if np.ptp(used[name]):
            raise InputError(f"{name} differs between readouts, from {used[name].min()} to "
                             f"{used[name].max()}, expected one; split the file")
    kx = header.number("encoding/encodedSpace/matrixSize/y")
    center = "encoding/encodingLimits/kspace_encoding_step_1/center"
    center = header.number(center, least=0) if header.text(center) else kx // 2
    columns = used["idx"]["kspace_encode_step_1"].astype(int) + kx // 2 - center
    lines = len(np.unique(columns))
    if columns.min() < 0 or columns.max() >= kx or kx > _LEAST_SAMPLED * lines:
        raise InputError(f"{lines} lines from {columns.min()} to {columns.max()} do not fit the "
                         f"encoded matrix of {kx}, as if it were another scan's; export it again")
    one, ky = used[0], header.number("encoding/encodedSpace/matrixSize/x")
    first, last = int(one["discard_pre"]), int(one["number_of_samples"]) - int(one["discard_post"])
    at = ky // 2 - int(one["center_sample"]) + first
    if not (0 <= first < last and at >= 0 and at + last - first <= ky):
        raise InputError(f"samples {first} to {last} with center {one['center_sample']} do not fit "
                         f"the encoded matrix of {ky}; export it again")
    alone, line = _calibrates_alone(used), image * kx + columns
    kept = np.flatnonzero(~alone | ~np.isin(line, line[~alone]))
    kept = kept[np.argsort(image[kept], kind="stable")]
    images = np.split(np.stack([rows, columns], axis=1)[kept],
                      np.searchsorted(image[kept], np.arange(1, count)))
    return _Lines((first, last, at), images)


def _check_kind(header: Header, used: np.ndarray) -> None:
    """Refuse what is no Cartesian 2-D scan."""
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


def _read(file: Path, group: str, shape: Shape, lines: _Lines,
          indices: Iterable[int]) -> Iterator[np.ndarray]:
    for index in indices:
        yield isolated(_slice, file, group, index, shape, lines.samples, lines.images[index])


def _slice(file: Path, group: str, index: int, shape: Shape, samples: tuple[int, int, int],
           readouts: np.ndarray) -> np.ndarray:
    _, coils, ky, kx = shape
    first, last, at = samples
    out = np.zeros((coils, ky, kx), np.complex64)
    counts = np.bincount(readouts[:, 1]).astype(np.float32)  # of readouts that share a column
    with h5py.File(file) as content:
        data = content[f"{group}/data"]
        for row, column in readouts.tolist():
            values = np.asarray(data[row]["data"], np.float32)
            read = values.size // (2 * coils)
            if values.size != 2 * coils * read or read < last:
                raise InputError(f"readout {row} has {values.size} numbers, expected {coils} "
                                 f"channels of at least {last} complex samples; export it again")
            line = values.view(np.complex64).reshape(coils, read)[:, first:last]
            out[:, at:at + last - first, column] += line / counts[column]
    return finite(f"{group}/data", index, out)


def _crop(header: Header, shape: tuple[int, int]) -> tuple[int, int]:
    """The pixels within the recon field of view; without fields of view, the recon matrix."""
    kept, whole = (header.field_of_view(space) for space in ("reconSpace", "encodedSpace"))
    ky, kx = (n * kept[axis] / whole[axis] if kept and whole
              else header.number(f"encoding/reconSpace/matrixSize/{'xy'[axis]}")
              for axis, n in enumerate(shape))
    return min(max(round(ky), 1), shape[0]), min(max(round(kx), 1), shape[1])


def _affine(header: Header, used: np.ndarray, slot: np.ndarray, shape: tuple[int, int],
            crop: tuple[int, int]
            ) -> tuple[np.ndarray | None, tuple[float, float, float] | None, str]:
    """Affine and spacing of `Scan`, the latter with the slices' distance, and why there is none.

    Of the heads of readouts and the numbers of their slices; see the top for Siemens.
    """
    spacing = header.spacing()
    first = used[np.unique(slot, return_index=True)[1]]  # a readout of each slice
    names = ("phase_dir", "read_dir", "slice_dir")
    axes = np.array([used[0][name] for name in names], float)
    positions = first["position"].astype(float)
    if spacing is None or not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
        return None, spacing, "no directions or field of view"
    turned = max(np.abs(used[name] - used[0][name]).max() for name in names)
    moved = np.abs(used["position"] - positions[slot]).max()
    if not (turned <= 1e-3 and moved <= _TOLERANCE):
        return None, spacing, "slices are turned against each other, or move"
    step = axes[2] * spacing[2]
    if len(positions) > 1:
        steps = np.diff(positions, axis=0)
        apart, step = np.linalg.norm(steps, axis=1), steps.mean(axis=0)
        if not (np.abs(steps - step).max() <= 2 * _TOLERANCE < apart.min()):
            return None, spacing, f"slices lie {apart.min():.3g} to {apart.max():.3g} mm apart"
        spacing = (*spacing[:2], float(np.linalg.norm(step)))
    vendor = header.text("acquisitionSystemInformation/systemVendor")
    sign = -1.0 if "siemens" in vendor.lower() else 1.0
    affine = np.eye(4)
    affine[:3, :3] = _TO_RAS[:, None] * np.stack(
        [sign * axes[0] * spacing[0], sign * axes[1] * spacing[1], step], axis=1)
    # position is that of the pixel at n // 2, where the transform has its origin
    center = [shape[axis] // 2 - (shape[axis] - crop[axis]) // 2 for axis in (1, 0)]
    affine[:3, 3] = _TO_RAS * positions[0] - affine[:3, :2] @ center
    return affine, spacing, ""
