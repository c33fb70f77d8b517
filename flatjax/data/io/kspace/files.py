"""From a path to a `Scan`: which reader a file takes."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from flatjax.data.io import fastmri
from flatjax.data.io.checks import reading
from flatjax.data.io.kspace.arrays import array_names, open_array, open_arrays, open_cfl
from flatjax.data.io.kspace.base import Reader, Scan, Shape, as_slices, guarded, maps_for
from flatjax.data.io.kspace.ismrmrd import open_ismrmrd
from flatjax.data.io.kspace.twix import open_twix
from flatjax.data.io.volumes import READERS, as_magnitude, format_of, read_oriented, stem
from flatjax.data.io.volumes.common import voxel_sizes
from flatjax.data.slices import IMAGE_PHASE, display_slices, make_sample
from flatjax.errors import InputError
from flatjax.mri.host.simulate import birdcage_maps, image_phase

NUMPY, BART, HDF5 = (".npy", ".npz"), (".cfl", ".hdr"), (".h5", ".hdf5", ".mrd")
FORMATS = (*NUMPY, ".cfl", *HDF5, ".mat", ".dat")
_SEED = 20  # of the phases of images that k-space is simulated of, one smooth phase per slice


def find_scans(paths: Sequence[str | Path]) -> list[Path]:
    """The files that paths name: themselves, or by name those of a folder that a reader takes.

    InputError for a path that does not exist, or a folder without such files.
    """
    files = []
    for path in (Path(one).expanduser() for one in paths):
        if not path.exists():
            raise InputError(f"{path}: no such file or folder; check the path")
        inside = [path]
        if path.is_dir():
            inside = sorted(one for one in path.glob("[!.]*")
                            if one.name.lower().endswith(FORMATS) or format_of(one.name))
        if not inside:
            raise InputError(f"{path}: holds no file named {', '.join((*FORMATS, *READERS))}; name "
                             "another folder or a file, and check its permissions")
        files += inside
    return files


def open_scan(file: str | Path, coils: int = 1, array: str = "", axes: str = "") -> Scan:
    """Look into a file of k-space, or a magnitude volume, for which so many coils are simulated.

    Of k-space nothing but headers, masks, noise and, for fastMRI, one slice is read; see
    `slice_with_signal`. InputError for a file that is missing, damaged, or of no known format.

    Args:
        file: of one of the formats.
        coils: to simulate for a volume.
        array: name of the k-space among a file's arrays, by default kspace.
        axes: names of its axes, of `arrays.AXES`, as "coil,ky,kx,kz".
    """
    file = Path(file)
    with reading(file):
        scan = _open(file, coils, array, tuple(axes.split(",")) if axes else ())
    return scan._replace(**{name: guarded(file, reader) for name in ("read", "maps", "calibration")
                            if (reader := getattr(scan, name))})


def _open(file: Path, coils: int, array: str, axes: tuple[str, ...]) -> Scan:
    suffix, names = file.suffix.lower(), []
    if suffix in NUMPY:
        return open_arrays(file, f"NumPy {suffix}", array, axes)
    if suffix == ".mat":
        return open_arrays(file, "MATLAB .mat", array, axes)
    if suffix in HDF5:
        names = array_names(file)
        if array or ("kspace" in names and "ismrmrd_header" not in names):
            return open_arrays(file, "HDF5", array, axes)
    if array or axes:
        raise InputError("tells itself where its k-space is and what its axes are; leave out "
                         "--array and --axes")
    if suffix in BART:
        found = open_cfl(file)
        return Scan(file, file.stem, "BART .cfl", *found.slices(), frames=found.frames)
    if suffix in HDF5:
        return _open_fastmri(file) if "kspace" in names else open_ismrmrd(file)
    if suffix == ".dat":
        return open_twix(file)
    if format_of(file.name):
        return _open_volume(file, coils)
    raise InputError(f"unknown format {file.suffix!r}, expected {', '.join(FORMATS)} or a volume "
                     f"as {', '.join(READERS)}; convert it")


def open_maps(file: str | Path, shape: Shape) -> Reader:
    """Coil maps `[coil, y, x]` complex64 for k-space of a shape: of `.npy`, `.npz` or `.cfl`.

    InputError for a file that is missing, damaged, or no maps for this scan.
    """
    file = Path(file)
    if file.suffix.lower() not in NUMPY + BART:
        raise InputError(f"{file}: expected coil maps as .npy, .npz or .cfl; convert them")
    with reading(file):
        found = open_cfl(file) if file.suffix.lower() in BART else open_array(file, "maps")
        return guarded(file, maps_for(shape, *found.slices()))


def open_mask(file: str | Path, shape: tuple[int, int]) -> np.ndarray:
    """A sampling mask `[ky or 1, kx]` float32 of 0 and 1 for k-space `(ky, kx)`: of `.npy`, `.npz`.

    InputError for a file that is missing, damaged, or no mask for this scan.
    """
    file = Path(file)
    if file.suffix.lower() not in NUMPY:
        raise InputError(f"{file}: expected a mask as .npy or .npz; save it with numpy.save")
    with reading(file):
        return open_array(file, "mask").mask(shape)


def _open_fastmri(file: Path) -> Scan:
    """A fastMRI file; its crop is that of its reference, or of the header for files without."""
    record = fastmri.read_record(file)
    coils = record.kspace[1] if len(record.kspace) == 4 else 1
    shape = as_slices("kspace", (record.kspace[0], coils, *record.kspace[-2:]))

    def read(indices: Iterable[int]) -> Iterator[np.ndarray]:
        return (kspace for kspace, _ in fastmri.read_fastmri_slices(file, record, [*indices]))

    there = {name: name in record.attributes for name in ("acquisition", "patient_id")}
    there |= {"reference": bool(record.references), "mask": bool(record.mask)}
    return Scan(file, file.stem, "fastMRI .h5", shape, read, mask=record.own_mask(),
                crop=record.crop, spacing=record.spacing, facts=record.attributes,
                missing=tuple(name for name, found in there.items() if not found))


def _open_volume(file: Path, coils: int) -> Scan:
    """Axial slices of a magnitude volume, read whole, as k-space of simulated birdcage coils."""
    voxels, affine, axes, told = read_oriented(file)
    images, _ = display_slices(as_magnitude(file, voxels), voxel_sizes(affine), "axial")
    shape = images.shape[1:]
    # columns run against x and rows against y
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])
    turned[:2, 3] = voxels.shape[0] - 1, voxels.shape[1] - 1
    maps = birdcage_maps(coils, shape)

    def read(indices: Iterable[int]) -> Iterator[np.ndarray]:
        for index in indices:
            phase = image_phase(np.random.default_rng([_SEED, index]), shape, IMAGE_PHASE)
            yield make_sample(images[index], phase, maps).kspace

    return Scan(file, stem(file.name), f"volume {format_of(file.name)}",
                (len(images), coils, *shape), read, maps=lambda indices: (maps for _ in indices),
                affine=affine @ turned, spacing=voxel_sizes(affine @ turned), axes=axes,
                missing=("k-space", "affine")[:2 - told], simulated=True,
                doubts=() if told else ("does not tell where its axes point: they are kept, and "
                                        "taken as right, anterior and superior",))
