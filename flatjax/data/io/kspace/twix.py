"""k-space of Siemens raw files (`.dat`, "twix") of VB, VD and VE, by the package twixtools.

Heads of readouts and the protocol are put into ISMRMRD's terms, as `siemens_to_ismrmrd` does, and
read on as such: see `ismrmrd` for slices, frames, calibration and noise, `geometry` for where
images lie. The oversampling of whole echoes is removed; of others, the image is cropped. A line
lies where its own center line says, which differs where reference lines are a scan apart. Of
several measurements in a file the last is read; the others may bring the noise scan.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import scipy.fft

from flatjax.data.io.hdf5 import isolated
from flatjax.data.io.header import NAMESPACE, Header
from flatjax.data.io.kspace.base import Scan
from flatjax.data.io.kspace.ismrmrd import scan_of
from flatjax.errors import InputError

# flags of a readout, and their bits in ISMRMRD
_FLAGS = {"NOISEADJSCAN": 19, "PATREFSCAN": 20, "PATREFANDIMASCAN": 21, "REFLECT": 22,
          "noname60": 23, "PACE": 23, "PHASCOR": 24, "HPFEEDBACK": 26, "RETRO_DUMMYSCAN": 27,
          "B1_CONTROLLOOP": 27, "MDH_VOP": 27, "RTFEEDBACK": 28, "REFPHASESTABSCAN": 30,
          "PHASESTABSCAN": 31}
_COUNTERS = {"slice": "Sli", "contrast": "Eco", "phase": "Phs", "repetition": "Rep", "set": "Set"}
_TRAJECTORIES = {1: "cartesian", 2: "radial", 4: "spiral", 8: "blade"}
_CALIBRATION_MODES = {2: "embedded", 4: "separate", 8: "separate", 16: "interleaved",
                      32: "interleaved", 64: "interleaved"}
# where a readout lies: bytes before it, bytes before each channel
_STORED = [(name, "i8") for name in ("start", "apart", "channels", "samples", "center")]
_HEAD = np.dtype([
    ("flags", "u8"), ("sample_time_us", "f4"),
    *((name, "i8") for name in ("encoding_space_ref", "number_of_samples", "active_channels",
                                "discard_pre", "discard_post", "center_sample")),
    *((name, "f4", 3) for name in ("position", "read_dir", "phase_dir", "slice_dir")),
    ("idx", [(name, "i8") for name in ("kspace_encode_step_1", "kspace_encode_step_2",
                                       *_COUNTERS)])])


def open_twix(file: Path) -> Scan:
    """A raw file with a Cartesian scan; see `ismrmrd.scan_of` for what is refused."""
    try:
        import_module("twixtools")
    except ImportError as error:
        raise InputError("Siemens raw files are read by the package twixtools, which is not "
                         "installed; install flatjax[twix]") from error
    return isolated(_open, file)


def _open(file: Path) -> Scan:
    measured = import_module("twixtools").read_twix(
        str(file), parse_pmu=False, parse_geometry=False, verbose=False, keep_syncdata=False)
    last = measured[-1]
    blocks = [(one, block) for one in measured for block in one["mdb"]
              if one is last or block.is_flag_set("NOISEADJSCAN")]
    if any(block.is_flag_set("SLICE_ACCEL_REFSCAN") for _, block in blocks):
        raise InputError("excites several slices at once, expected one at a time; separate them "
                         "first and hand over the k-space as .npy")
    grid = last["hdr"]["MeasYaps"]["sKSpace"]
    base = int(grid["lBaseResolution"])
    full = round(base * _number(last["hdr"]["Dicom"].get("flReadoutOSFactor"), 2.0))
    if any((block.mdh.SamplesInScan, block.mdh.CenterCol) != (full, full // 2)
           or block.mdh.CutOff.Pre or block.mdh.CutOff.Post for _, block in blocks
           if block.is_image_scan() or block.is_flag_set("PATREFSCAN")):
        base = full
    shape = (base, int(grid["lPhaseEncodingLines"]),
             int(grid["lPartitions"]) if grid.get("ucDimension") == 4 else 1)
    stored, heads = np.zeros(len(blocks), _STORED), np.zeros(len(blocks), _HEAD)
    for row, (one, block) in enumerate(blocks):
        start, apart = (192, 32) if block.version_is_ve else (0, 128)  # bytes of headers
        stored[row] = (block.mem_pos + start, apart, block.mdh.UsedChannels,
                       block.mdh.SamplesInScan, block.mdh.CenterCol)
        _fill(heads[row], block, one["hdr"]["MeasYaps"], shape, full)
        if _channels(block) != _channels(blocks[-1][1]):
            heads["active_channels"][row] = 0  # of other coils
        if block.is_flag_set("NOISEADJSCAN"):
            stored["center"][row] = -1
    return scan_of(file, "Siemens .dat", _header(last["hdr"], shape), heads,
                   partial(_readouts, stored, base, full))


def _fill(head: np.void, block: Any, protocol: Any, shape: tuple[int, int, int],
          full: int) -> None:
    """The head of a readout as `_readouts` gives it, of noise, as it was read."""
    mdh, base = block.mdh, shape[0]
    flags = {bit for name, bit in _FLAGS.items() if block.is_flag_set(name)}
    head["flags"] = sum(1 << (bit - 1) for bit in flags)
    head["active_channels"] = mdh.UsedChannels
    if _FLAGS["NOISEADJSCAN"] in flags:
        # as siemens_to_ismrmrd: 130 Hz per pixel, or that of the adjustments' sequences
        times = {"AdjCoilSens": 5.0, "AdjQuietCoilSens": 4.0}
        head["sample_time_us"] = (times.get(str(protocol.get("tProtocolName")))
                                  or 1e6 / mdh.SamplesInScan / 130)
    else:
        before = full // 2 - mdh.CenterCol
        head["number_of_samples"], head["center_sample"] = base, base // 2
        head["discard_pre"] = before + mdh.CutOff.Pre
        head["discard_post"] = full - before - mdh.SamplesInScan + mdh.CutOff.Post
        dwell = protocol["sRXSPEC"]["alDwellTime"][mdh.Counter.Eco]  # in ns
        head["sample_time_us"] = float(dwell) / 1000 * full / base
    w, x, y, z = map(float, mdh.SliceData.Quaternion)  # of columns phase, read, slice
    head["phase_dir"] = 1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)
    head["read_dir"] = 2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)
    head["slice_dir"] = 2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)
    place = mdh.SliceData.SlicePos
    head["position"] = place.Sag, place.Cor, place.Tra
    head["idx"] = (mdh.Counter.Lin - mdh.CenterLin + shape[1] // 2,
                   mdh.Counter.Par - mdh.CenterPar + shape[2] // 2 if shape[2] > 1 else 0,
                   *(getattr(mdh.Counter, name) for name in _COUNTERS.values()))


def _channels(block: Any) -> list[int]:
    return [one.ChannelId for one in block.channel_hdr or ()]


def _header(parts: Any, shape: tuple[int, int, int]) -> Header:
    """The protocol as ISMRMRD's header, with fields of view as `siemens_to_ismrmrd` has them."""
    protocol = parts["MeasYaps"]
    grid, one = protocol["sKSpace"], protocol["sSliceArray"]["asSlice"][0]
    lines, partitions = (1 + _number(grid.get(f"d{axis}OversamplingForDialog"), 0.0)
                         for axis in ("Phase", "Slice"))
    kept = one["dReadoutFOV"], one["dPhaseFOV"], one["dThickness"]
    whole = (kept[0] * shape[0] / grid["lBaseResolution"], kept[1] * lines,
             kept[2] * (partitions if shape[2] > 1 else 1))
    trajectory = _TRAJECTORIES.get(grid.get("ucTrajectory", 1), "other")
    if _number((parts["Meas"].get("alRegridMode") or [0])[0], 0.0) > 1:
        trajectory = "EPI with ramp sampling"
    spaces = {name: {"matrixSize": dict(zip("xyz", shape, strict=True)),
                     "fieldOfView_mm": dict(zip("xyz", view, strict=True))}
              for name, view in (("encodedSpace", whole), ("reconSpace", kept))}
    mode = _CALIBRATION_MODES.get(protocol.get("sPat", {}).get("ucRefScanMode"), "other")
    return Header(_xml({f'ismrmrdHeader xmlns="{NAMESPACE}"': {
        "measurementInformation": {"protocolName": protocol.get("tProtocolName", "")},
        "acquisitionSystemInformation": {
            "systemVendor": "Siemens",
            "systemFieldStrength_T": parts["Dicom"].get("flMagneticFieldStrength", ""),
            "relativeReceiverNoiseBandwidth": 0.793},
        "encoding": {"trajectory": trajectory, **spaces,
                     "parallelImaging": {"calibrationMode": mode}},
        "sequenceParameters": {name: float(protocol[f"al{name}"][0]) / 1000
                               for name in ("TR", "TE") if protocol.get(f"al{name}")},
    }}).encode(), "the protocol")


def _xml(tree: Any) -> str:
    if not isinstance(tree, dict):
        return escape(str(tree))
    return "".join(f"<{tag}>{_xml(inside)}</{tag.split()[0]}>" for tag, inside in tree.items())


def _number(value: Any, default: float) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return default


def _readouts(stored: np.ndarray, base: int, full: int, file: Path,
              rows: Iterable[int]) -> Iterator[np.ndarray]:
    """Readouts of at most `full` samples on a grid of `base`, those of noise as they are.

    Samples keep their size. Their noise is that of a dwell time longer by `full / base`.
    """
    for one in stored[list(rows)]:
        kind = np.dtype([("header", f"V{one['apart']}"), ("data", "<c8", one["samples"])])
        line = np.fromfile(file, kind, one["channels"], offset=one["start"])["data"]
        before = full // 2 - one["center"]
        after = full - before - one["samples"]
        if one["center"] >= 0:
            line = np.fft.ifftshift(np.pad(line, ((0, 0), (before, after))), axes=1)
            image = np.fft.fftshift(scipy.fft.ifft(line), axes=1)[:, full // 2 - base // 2:]
            image = np.fft.ifftshift(image[:, :base], axes=1)
            line = np.fft.fftshift(scipy.fft.fft(image), axes=1)
        yield line
