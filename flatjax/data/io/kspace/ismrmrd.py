"""k-space of Cartesian scans in ISMRMRD's HDF5 (Inati et al., MRM 2017; ismrmrd.github.io).

A group holds the header `xml` and the readouts `data`. A slice is `[coil, ky, kx]` with the readout
along ky and phase encoding along kx, as in fastMRI's files, which were made of such. Only heads are
read at first: some 340 bytes per readout; then the readouts of one slice.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from flatjax.data.io.checks import finite
from flatjax.data.io.hdf5 import isolated, stored_dataset
from flatjax.data.io.header import Header, read_header
from flatjax.data.io.kspace.base import Scan, Shape, as_slices
from flatjax.data.io.kspace.geometry import affine_of, crop_of
from flatjax.data.io.kspace.volume import along_readout
from flatjax.errors import InputError
from flatjax.mri.host.coil_compression import noise_covariance

_FACTS = {
    "protocol": "measurementInformation/protocolName",
    "field strength (T)": "acquisitionSystemInformation/systemFieldStrength_T",
    "TR (ms)": "sequenceParameters/TR",
    "TE (ms)": "sequenceParameters/TE",
}
# Bits of `flags`, counted from 1 in the standard.
_NOISE, _CALIBRATION, _CALIBRATION_AND_IMAGING, _REVERSED = 19, 20, 21, 22
_LEFT_OUT = {"navigator": (23,), "phase correction": (24,), "feedback": (26, 28), "dummy": (27,),
             "surface coil correction": (29,), "phase stabilization": (30, 31)}
_NOT_IMAGING = (_NOISE, *chain(*_LEFT_OUT.values()))
_FRAME = ("contrast", "phase", "repetition", "set")
_ALIKE = ("number_of_samples", "active_channels", "discard_pre", "discard_post", "center_sample")
_LEAST_SAMPLED = 64  # an encoded matrix with so many times more lines than were read is refused


# `(file, rows) -> iterator` over the readouts `[coil, sample]` complex64 of these heads; picklable
Readouts = Callable[[Path, Iterable[int]], Iterator[np.ndarray]]


class _Lines(NamedTuple):
    """Where readouts go."""

    samples: tuple[int, int, int]  # `(first, last + 1, ky of the first)` of every readout
    images: list[np.ndarray]  # of each image `[readout, 2]`: row of the dataset and column kx


def open_ismrmrd(file: Path) -> Scan:
    """An ISMRMRD file with a Cartesian scan: the group `dataset`, or the only one of a scan."""
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
    return scan_of(file, "ISMRMRD", header, heads, partial(_readouts, group))


def scan_of(file: Path, form: str, header: Header, heads: np.ndarray, readouts: Readouts) -> Scan:
    """The scan of ISMRMRD's header and heads of readouts, `[readout]` with fields.

    Slices are ordered along their normal, readouts of the same line are averaged. A 3-D scan
    becomes slices along its readout. Contrasts, cardiac phases, repetitions and sets are frames.
    Lines for calibration alone make the maps, and nothing else, unless the header's
    calibrationMode is embedded or interleaved: such fill lines that no other readout does. The
    image is cropped to the header's recon field of view. A noise scan tells the coils' noise.
    Navigators, feedback and the like are left out, as are encodings after the first. InputError
    for what is not Cartesian, and for EPI.
    """
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
    depth = header.number("encoding/encodedSpace/matrixSize/z")
    if depth > 1:
        if count > 1:
            raise InputError(f"{count} slabs are encoded in 3-D, expected one; split the file")
        slot, count = _encoded(header, used, 2, depth), depth
    image = frame * count + slot
    if depth == 1 and 2 * len(np.unique(image)) < len(frames) * count:
        raise InputError(f"{len(np.unique(image))} images are of {len(frames)} contrasts, phases, "
                         f"repetitions or sets and {count} slices, expected each slice in each; "
                         "split the file")
    matrix = [header.number(f"encoding/encodedSpace/matrixSize/{axis}") for axis in "xy"]
    shape = as_slices("the encoded matrix", (len(frames) * count, int(used["active_channels"][0]),
                                             *matrix))
    read = partial(_read, file, readouts, shape)
    lines = _place(header, heads, imaging, image, len(frames) * count)
    calibration, own = None, rows[:0]
    if imaging.size < rows.size:
        own = rows[_flagged(heads[rows], [_CALIBRATION, _CALIBRATION_AND_IMAGING])
                   & np.isin(heads["idx"]["slice"][rows], numbers)]
        own = own[_frames(heads[own])[1] == 0]  # of one contrast
    if own.size:
        their = _encoded(header, heads[own], 2, depth) if depth > 1 else np.argsort(order)[
            np.searchsorted(numbers, heads["idx"]["slice"][own])]
        placed = _place(header, heads, own, their, count)
        calibration = partial(read, placed._replace(images=placed.images * len(frames)))
    whole, reading = (*shape[2:], depth), partial(read, lines)
    *crop, kept = crop_of(header, whole)
    affine, spacing, why = affine_of(header, used, slot, whole, (*crop, kept))
    if depth > 1:
        slices = partial(along_readout, shape, frames=len(frames), kept=crop[0])
        calibration = calibration and slices(calibration)[1]
        (shape, reading), crop = slices(reading), [kept, crop[1]]
    facts = {name: header.text(path)[:80] for name, path in _FACTS.items() if header.text(path)}
    facts |= {f"{name}s": str(len(np.unique(values))) for name, values in zip(
        _FRAME, frames.T, strict=True) if np.ptp(values)}
    facts |= {"calibration readouts": str(own.size)} if own.size else {}
    left = {name: np.count_nonzero(_flagged(heads, bits)) for name, bits in _LEFT_OUT.items()}
    if any(left.values()):
        facts["left out"] = ", ".join(f"{n} of {name}" for name, n in left.items() if n)
    noise, unused = _noise(file, header, heads, used[0], lines, readouts)
    there = {"affine": affine is not None, "protocol": "protocol" in facts,
             "noise scan": noise is not None}
    doubts = [f"has no affine: {why}"] * bool(why) + [
        f"the noise scan is not used: it is {unused}"] * bool(unused)
    return Scan(file, file.stem, form, shape, reading, calibration=calibration,
                frames=len(frames), crop=(crop[0], crop[1]), affine=affine, spacing=spacing,
                noise=noise, facts=facts, doubts=tuple(doubts),
                missing=tuple(name for name, found in there.items() if not found))


def _noise(file: Path, header: Header, heads: np.ndarray, one: np.ndarray, lines: _Lines,
           readouts: Readouts) -> tuple[np.ndarray | None, str]:
    """The covariance of the noise of an image's samples, or why a noise scan does not tell it.

    That of the noise scan, by the ratio of bandwidths and the receiver's own (Kellman and McVeigh,
    MRM 54(6), 2005, with its erratum), as Gadgetron has it; of averaged readouts, their share.
    """
    rows = np.flatnonzero(_flagged(heads, [_NOISE]))
    if rows.size == 0:
        return None, ""
    if (heads["active_channels"][rows] != one["active_channels"]).any():
        return None, "of other coils"
    covariance = noise_covariance(np.concatenate([*readouts(file, rows)], axis=1))
    if covariance is None:
        return None, "too short, or of coils without noise"
    times = float(heads["sample_time_us"][rows[0]]), float(one["sample_time_us"])
    ratio = times[0] / times[1] if min(times) > 0 else 1.0
    receiver = header.text("acquisitionSystemInformation/relativeReceiverNoiseBandwidth")
    with suppress(ValueError):
        ratio /= float(receiver) if 0 < float(receiver) <= 1 else 1.0
    counts = np.concatenate([np.unique(image[:, 1], return_counts=True)[1]
                             for image in lines.images])
    return covariance * ratio * np.mean(1 / counts), ""


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
    columns = _encoded(header, used, 1, kx)
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


def _encoded(header: Header, used: np.ndarray, step: int, size: int) -> np.ndarray:
    """Where the readouts lie along a phase encoding, 1 or 2, of a matrix of this size."""
    center = f"encoding/encodingLimits/kspace_encoding_step_{step}/center"
    center = header.number(center, least=0) if header.text(center) else size // 2
    at = used["idx"][f"kspace_encode_step_{step}"].astype(int) + size // 2 - center
    lines = len(np.unique(at))
    if at.min() < 0 or at.max() >= size or size > _LEAST_SAMPLED * lines:
        raise InputError(f"{lines} lines from {at.min()} to {at.max()} do not fit the encoded "
                         f"matrix of {size}, as if it were another scan's; export it again")
    return at


def _check_kind(header: Header, used: np.ndarray) -> None:
    """Refuse what is no Cartesian scan."""
    trajectory = header.text("encoding/trajectory")
    if trajectory.lower() != "cartesian":
        raise InputError(f"trajectory is {trajectory[:80]!r}, expected 'cartesian'; grid the data "
                         "first, for instance with BART or sigpy")
    if header.number("encoding/encodedSpace/matrixSize/z") == 1 \
            and np.ptp(used["idx"]["kspace_encode_step_2"]):
        raise InputError("encodes along kspace_encode_step_2, but the encoded matrix has z = 1, "
                         "expected that of a 3-D scan; export it again")
    if _flagged(used, [_REVERSED]).any():
        raise InputError("has reversed readouts, as EPI has, which need a phase correction; do it "
                         "first and hand over the k-space as .npy")


def _read(file: Path, readouts: Readouts, shape: Shape, lines: _Lines,
          indices: Iterable[int]) -> Iterator[np.ndarray]:
    for index in indices:
        yield isolated(_slice, file, readouts, index, shape, lines.samples, lines.images[index])


def _slice(file: Path, readouts: Readouts, index: int, shape: Shape,
           samples: tuple[int, int, int], where: np.ndarray) -> np.ndarray:
    _, coils, ky, kx = shape
    first, last, at = samples
    out = np.zeros((coils, ky, kx), np.complex64)
    counts = np.bincount(where[:, 1]).astype(np.float32)  # of readouts that share a column
    for (row, column), line in zip(where, readouts(file, where[:, 0]), strict=True):
        if line.shape[0] != coils or line.shape[1] < last:
            raise InputError(f"readout {row} has {line.shape[0]} channels of {line.shape[1]} "
                             f"complex samples, expected {coils} channels of at least {last}; "
                             "export it again")
        out[:, at:at + last - first, column] += line[:, first:last] / counts[column]
    return finite("the readouts", index, out)


def _readouts(group: str, file: Path, rows: Iterable[int]) -> Iterator[np.ndarray]:
    with h5py.File(file) as content:
        data = content[f"{group}/data"]
        for row in rows:
            one = data[row]
            values = np.asarray(one["data"], np.float32)
            values = values[:values.size // 2 * 2].view(np.complex64)
            coils = max(int(one["head"]["active_channels"]), 1)
            yield values[:values.size // coils * coils].reshape(coils, -1)
