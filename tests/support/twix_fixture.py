"""Siemens raw files of VD and VE software, written byte by byte for tests."""

import struct

import numpy as np

_FLAGS = {"noise": 25, "reference": 22, "reference and image": 23, "reflect": 24, "phase": 21}
_PROTOCOL = """### ASCCONV BEGIN ###
tProtocolName\t = \t"gre"
alTR[0]\t = \t10000
alTE[0]\t = \t3000
sKSpace.lBaseResolution\t = \t{base}
sKSpace.lPhaseEncodingLines\t = \t{lines}
sKSpace.lPartitions\t = \t{partitions}
sKSpace.ucDimension\t = \t{dimension}
sKSpace.ucTrajectory\t = \t{trajectory}
sSliceArray.asSlice[0].dThickness\t = \t4.0
sSliceArray.asSlice[0].dPhaseFOV\t = \t{phase_fov}
sSliceArray.asSlice[0].dReadoutFOV\t = \t{read_fov}
sRXSPEC.alDwellTime[0]\t = \t{dwell}
sPat.ucRefScanMode\t = \t{reference}
### ASCCONV END ###
"""


def readout(data, line=0, *, part=0, slice=0, repetition=0, center_line=0, center_part=0,
            center=None, flags=(), position=(0, 0, 0), quaternion=(1, 0, 0, 0)):
    """A readout of `[coil, sample]` after its header of 192 bytes, each channel after one of 32."""
    coils, samples = data.shape
    mask = sum(1 << _FLAGS[flag] for flag in flags)
    header = struct.pack("<IiIIIHHiiiiQHH", 192 + coils * (32 + 8 * samples), 0, 1, 0, 0, 0, 0,
                         0, 0, 0, 0, mask, samples, coils)
    header += struct.pack("<14H", line, 0, slice, part, 0, 0, repetition, *[0] * 7)
    header += struct.pack("<4HfIHH", 0, 0, samples // 2 if center is None else center, 0, 0, 0,
                          center_line, center_part)
    header += struct.pack("<7f", *position, *quaternion)
    header = header.ljust(192, b"\0")
    return header + b"".join(
        struct.pack("<IiIiIIHHI", 0, 0, 1, 0, 0, 0, channel, 0, 0) + one.astype("<c8").tobytes()
        for channel, one in enumerate(np.asarray(data)))


def write_twix(path, readouts, *, base, lines, partitions=1, dimension=2, trajectory=1, dwell=5000,
               phase_fov=200.0, read_fov=200.0, reference=1, oversampling=2.0):
    """A file of one measurement."""
    protocol = _PROTOCOL.format(**{name: value for name, value in locals().items()
                                   if name not in ("path", "readouts")})
    dicom = f'<ParamDouble."flReadoutOSFactor"> {{ <Precision> 6  {oversampling} }}\n'
    parts = b"".join(name + b"\0" + struct.pack("<I", len(text)) + text for name, text in (
        (b"Config", b"-" * 60), (b"Dicom", dicom.encode().ljust(60)), (b"Meas", b"-" * 60),
        (b"MeasYaps", protocol.encode()), (b"Phoenix", b"-" * 60), (b"Spice", b"-" * 60)))
    header = struct.pack("<II", 8 + len(parts), 6) + parts
    end = struct.pack("<IiIIIHHiiiiQ", 352, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1).ljust(352, b"\0")
    body = header + b"".join(readouts) + end
    first = struct.pack("<II", 0, 1) + struct.pack("<IIQQ", 1, 1, 10240, len(body))
    path.write_bytes(first.ljust(10240, b"\0") + body)
    return path
