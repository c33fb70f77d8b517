"""Writes small volumes in every format, as the programs that make such files lay them out."""

import bz2
import gzip
from pathlib import Path

import h5py
import nibabel
import numpy as np
from scipy.io import netcdf_file

SHAPE, SPACING = (19, 22, 31), (2.0, 1.5, 2.5)
_WORLD = {"xspace": (1.0, 0.0, 0.0), "yspace": (0.0, 1.0, 0.0), "zspace": (0.0, 0.0, 1.0)}


def head(shape=SHAPE, seed=0):
    """A lop-sided ellipsoid `[x, y, z]` with no symmetry, not negative."""
    rng = np.random.default_rng(seed)
    axes = [np.linspace(-1.05, 1.05, n) for n in shape]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    inside = x**2 + y**2 + z**2 < 1
    return (inside * (1 + 0.3 * x + 0.2 * y - 0.1 * z + 0.2 * rng.random(shape))).astype(
        np.float32)


def packed(path, content):
    """Write bytes, compressed if the name says so."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content, 1) if path.name.endswith(".gz") else content)
    return path


def write_nifti(path, data, spacing=SPACING):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([*spacing, 1.0])), path)
    return Path(path)


def write_nrrd(path, data, spacing=SPACING, *, encoding="gzip", space="left-posterior-superior",
               beside="", skip=b"", stored=(0, 1, 2), extra="", **replaced):
    """Write `data`, which is RAS, in NRRD.

    Args:
        path: of the `.nrrd` or `.nhdr` file.
        data: `[x, y, z]`.
        spacing: in mm.
        encoding: raw, gzip or bzip2.
        space: of which the axes are written.
        beside: name of the file of a detached header's voxels.
        skip: bytes between header and voxels, told as `byte skip`.
        stored: order of the axes, the fastest first.
        extra: more lines.
        **replaced: values of fields, spaces in their names as underscores; None for no field.
    """
    signs = {"l": (-1, -1, 1), "r": (1, 1, 1)}[space[0]] if space else (1, 1, 1)
    signs = (-1, 1, 1) if space.startswith(("left-ant", "LAS")) else signs
    directions = np.diag(np.multiply(signs, spacing))[list(stored)]
    kind = {"u1": "uchar", "i2": "short", "u2": "ushort", "f4": "float", "f8": "double",
            "i4": "int"}[data.dtype.str[1:]]
    fields = {
        "type": kind, "dimension": "3",
        "space": space or None,
        "sizes": " ".join(str(data.shape[axis]) for axis in stored),
        "space directions": " ".join(f"({','.join(map(str, row))})" for row in directions.tolist()),
        "kinds": "domain domain domain",
        "endian": "little" if data.dtype.byteorder != ">" else "big",
        "encoding": encoding,
        "byte skip": str(len(skip)) if skip else None,
        "data file": beside or None,
    } | {name.replace("_", " "): value for name, value in replaced.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    header = "\n".join(["NRRD0004", "# made for a test", *lines, *extra.splitlines()]) + "\n"
    voxels = data.transpose(stored).tobytes(order="F")
    voxels = {"raw": skip + voxels, "gzip": gzip.compress(skip + voxels, 1),
              "bzip2": bz2.compress(skip + voxels)}.get(encoding, voxels)
    if beside:
        packed(Path(path).parent / beside, voxels)
        return packed(path, header.encode())
    return packed(path, header.encode() + b"\n" + voxels)


def _quantized(data, dtype, per_slice):
    """Voxels as they are stored, the range of integers, and the real values that it means."""
    axes = (1, 2) if per_slice else (0, 1, 2)
    if np.dtype(dtype).kind == "f":
        return (data.astype(dtype), None, data.min(axis=axes), data.max(axis=axes))
    low, high = data.min(axis=axes, keepdims=True), data.max(axis=axes, keepdims=True)
    most = np.iinfo(dtype).max
    span = np.where(high > low, high - low, 1)
    return (np.round((data - low) / span * most).astype(dtype), (0, most),
            low.ravel() if per_slice else low.item(), high.ravel() if per_slice else high.item())


def write_minc1(path, data, spacing=SPACING, *, axes=("zspace", "yspace", "xspace"),
                dtype="uint8", per_slice=True, attributes=True, flipped=()):
    """Write `data`, which is RAS, as netCDF 3.

    Args:
        path: a `.mnc` or `.mnc.gz` file.
        data: `[x, y, z]`.
        spacing: in mm.
        axes: of the file, the slowest first.
        dtype: of the voxels; floats are not scaled.
        per_slice: whether every slice has a scale of its own.
        attributes: whether the optional ones are written.
        flipped: axes that run the other way, with a negative step.
    """
    stored, axes = _stored(data, axes, flipped), list(axes)
    real = np.dtype(dtype).kind == "f"
    voxels, valid, low, high = _quantized(stored, dtype, per_slice)
    temporary = Path(path).with_name("temporary.mnc")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    signed = voxels.dtype.kind != "u"
    with netcdf_file(temporary, "w") as file:
        for axis, size in zip(axes, stored.shape, strict=True):
            file.createDimension(axis, size)
            if attributes:
                variable = file.createVariable(axis, "i", ())
                variable.data[...] = 0
                variable.spacing = b"regular__"
                variable.step = np.float64(_step(axis, spacing, flipped))
                variable.start = np.float64(-20)
                variable.direction_cosines = np.array(_WORLD[axis])
        kind = voxels.dtype.str[1:].replace("u", "i")
        image = file.createVariable("image", kind.replace("i1", "b"), axes)
        image[:] = voxels.view(kind) if voxels.dtype.kind == "u" else voxels
        if attributes and not real:
            image.signtype = b"signed__" if signed else b"unsigned"
            image.valid_range = np.array(valid, np.float64)
        if attributes or not real:
            for name, value in (("image-min", low), ("image-max", high)):
                variable = file.createVariable(name, "d", axes[:1] if per_slice else ())
                variable.data[...] = value
    content = temporary.read_bytes()
    temporary.unlink()
    return packed(path, content)


def write_minc2(path, data, spacing=SPACING, *, axes=("zspace", "yspace", "xspace"),
                dtype="uint16", per_slice=True, attributes=True, flipped=(), **storage):
    """Write `data` as HDF5; arguments as of `write_minc1`, and those of `create_dataset`."""
    stored = _stored(data, axes, flipped)
    real = np.dtype(dtype).kind == "f"
    voxels, valid, low, high = _quantized(stored, dtype, per_slice)
    temporary = Path(path).with_name("temporary.mnc")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(temporary, "w") as file:
        image = file.create_dataset("minc-2.0/image/0/image", data=voxels, **storage)
        image.attrs["dimorder"] = np.bytes_(",".join(axes))
        for axis, size in zip(axes, stored.shape, strict=True):
            dimension = file.create_dataset(f"minc-2.0/dimensions/{axis}", data=0)
            dimension.attrs["length"] = np.uint32(size)
            if attributes:
                dimension.attrs["spacing"] = np.bytes_("regular__")
                dimension.attrs["step"] = _step(axis, spacing, flipped)
                dimension.attrs["start"] = -20.0
                dimension.attrs["direction_cosines"] = np.array(_WORLD[axis])
        if attributes or not real:
            if attributes and not real:
                image.attrs["valid_range"] = np.array(valid, np.float64)
            for name, value in (("image-min", low), ("image-max", high)):
                bound = file.create_dataset(f"minc-2.0/image/0/{name}", data=value)
                if per_slice:
                    bound.attrs["dimorder"] = np.bytes_(axes[0])
    content = temporary.read_bytes()
    temporary.unlink()
    return packed(path, content)


def write_raw(path, data, dtype="uint8", order="zyx"):
    """Write `data`, which is RAS, without a header; axes from the slowest to the fastest."""
    stored = data.transpose(["xyz".index(axis) for axis in order])
    return packed(path, stored.astype(dtype).tobytes())


def labels(seed=0, shape=SHAPE, count=12):
    """A head of labels `[x, y, z]` uint8: nested shells of all tissues, lop-sided."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1.1, 1.1, n) for n in shape), indexing="ij")
    radius = np.sqrt(x**2 + (y * 0.95) ** 2 + z**2) * (1 + 0.05 * x - 0.04 * y + 0.03 * z)
    edges = np.sort(rng.uniform(0.75, 1, count - 4))
    shells = np.array([3, 2, 1, *range(4, count), 0])
    out = shells[np.searchsorted(np.concatenate([[0.45, 0.65, 0.7], edges]), radius)]
    return out.astype(np.uint8)


def write_brainweb(folder, numbers=(4, 5, 6, 18, 20), source="crisp"):
    """A folder like BrainWeb's with some of the twenty subjects, in its formats by turns."""
    writers = [("mnc", write_minc1), ("mnc.gz", write_minc1), ("mnc", write_minc2),
               ("mnc.gz", write_minc2), ("nii.gz", write_nifti)]
    for number, (suffix, write) in zip(numbers, 4 * writers, strict=False):
        whole, lead = labels(number), f"subject{number:02d}"
        spacing = (0.5, 0.5, 0.5)
        if source == "crisp":
            options = {} if write is write_nifti else {"per_slice": False}
            write(folder / f"{lead}_crisp_v.{suffix}", whole, spacing, **options)
        elif source == "fuzzy":
            for label, part in enumerate(("bck", "csf", "gm", "wm", "fat", "muscles",
                                          "muscles_skin", "skull", "vessels", "fat2", "dura",
                                          "marrow")):
                fraction = (whole == label).astype(np.float32)
                write(folder / f"{lead}_{part}_v.{suffix}", fraction, spacing)
        else:
            write(folder / f"{lead}_t1w_p4.{suffix}", np.round(1000 * head(seed=number)))
    return folder


def write_mrbrains13(folder, subjects=("1", "2", "3", "4", "5"), shape=(24, 20, 9)):
    """A folder like MRBrainS13's, small."""
    for subject in subjects:
        place = Path(folder) / "TrainingData" / subject
        for index, contrast in enumerate(("T1", "T1_IR", "T2_FLAIR")):
            volume = (900 * head(shape, 10 * int(subject) + index)).astype(np.int16)
            write_nifti(place / f"{contrast}.nii", volume, (0.958, 0.958, 3.0))
        write_nifti(place / "T1_1mm.nii", head((20, 26, 22), int(subject)), (1.0, 1.0, 1.0))
        write_nifti(place / "LabelsForTraining.nii", labels(int(subject), shape, 9))
    return Path(folder) / "TrainingData"


def _stored(data, axes, flipped):
    data = data.transpose(["xyz".index(axis[0]) for axis in axes])
    return np.flip(data, [axes.index(axis) for axis in flipped])


def _step(axis, spacing, flipped):
    return (-1.0 if axis in flipped else 1.0) * spacing["xyz".index(axis[0])]
