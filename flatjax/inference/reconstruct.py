"""Reconstruction of a user's own scans by a trained model, without targets."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import jax
import matplotlib.pyplot as plt
import nibabel
import numpy as np
from jax import Array
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from tqdm import tqdm

from flatjax import config as configuration
from flatjax.data.acquisition import Acquisition, draw_mask, draw_noise
from flatjax.data.io.kspace import (
    Reader,
    Scan,
    check_mask,
    find_files,
    find_mask,
    maps_for,
    open_maps,
    open_mask,
    open_scan,
    slice_with_signal,
)
from flatjax.errors import InputError
from flatjax.evaluation import report
from flatjax.evaluation.evaluate import at_test_time, load_config, load_params
from flatjax.files import make_folder, write_atomically
from flatjax.methods import Params
from flatjax.mri import Measurement, center_crop
from flatjax.mri.espirit import KERNEL, espirit
from flatjax.mri.forward import on_host
from flatjax.mri.masks import achieved_acceleration, calibration_size, seed_from_name
from flatjax.mri.sensitivities import from_calibration
from flatjax.mri.simulate import acquire, complex_noise, ifft2c

LARGEST_BOX = 32  # of calibration: more costs ESPIRiT time and gains little

# `(params, rng, measurement) -> {name: [batch, y, x] float32}`, jitted
Reconstruct = Callable[[Params, Array, Measurement], dict[str, Array]]


class Prepared(NamedTuple):
    """A slice as methods take it.

    Attributes:
        measurement: without its batch axis; its mask is `[1, ky, kx]`.
        scale: what the result has to be multiplied with, 0 for an empty slice.
    """

    measurement: Measurement
    scale: float


def reconstruct_files(config: ConfigDict, workdir: str | Path, inputs: Sequence[str | Path],
                      output: str | Path | None = None, *, mask: str | Path = "",
                      maps: str | Path = "", keep_going: bool = False) -> list[Path]:
    """Reconstruct files of k-space, or of magnitude volumes whose acquisition is simulated.

    Writes for each `NAME.h5` (`reconstruction` `[slice, y, x]` float32, and `std` of a method that
    draws posterior samples), `NAME.nii` and `NAME.png`. As many slices are in memory at once as
    `config.evaluation.batch_size`.

    Args:
        config: of the run, from `evaluate.load_config`; its acquisition is that of volumes.
        workdir: of the run.
        inputs: files, or folders of files, in the formats of `data.io.kspace.open_scan`.
        output: folder, by default `workdir/reconstructions`.
        mask: file of the sampling mask, by default the file's own or where samples are not zero.
            It may leave samples out.
        maps: file of coil sensitivities, by default the file's own or by `mri.espirit` from the
            fully sampled centre.
        keep_going: go on with the other files where one is broken, and raise at the end.

    Returns:
        the `.h5` files.

    Raises:
        InputError: for a broken file, in one line that names it; files of one name; results that
            would replace an input; a run without weights; a reconstruction that is not finite.
    """
    config = at_test_time(config, load_config(workdir))
    method = configuration.make_method(config)
    acquisition = configuration.make_acquisition(config)
    size = configuration.make_evaluation(config).batch_size
    files = find_files(inputs)
    params = jax.device_put(load_params(workdir, config, method)[0])
    output = make_folder(output or Path(workdir) / "reconstructions")
    coils = config.data.get("coils", 1)

    @jax.jit
    def reconstruct(params: Params, rng: Array, measurement: Measurement) -> dict[str, Array]:
        result = method.reconstruct(params, rng, measurement)
        return {"reconstruction": result.image} | (
            {} if result.std is None else {"std": result.std})

    given = {Path(path).resolve() for path in (*files, mask, maps) if path}
    written: dict[Path, Path] = {}
    broken = 0
    for file in tqdm(files, desc="reconstruct", unit="file", disable=len(files) < 2):
        try:
            scan = open_scan(file, coils)
            path = output / f"{scan.name}.h5"
            if path in written:
                raise InputError(f"{file}: {path} is the reconstruction of {written[path]}; rename "
                                 "one, or name another output folder for it")
            for target in map(path.with_suffix, (".h5", ".nii", ".png")):
                if target.resolve() in given:
                    raise InputError(f"{file}: its reconstruction would be written over {target}, "
                                     "which was given as input; name another output folder")
            measured = measure(scan, acquisition, mask, maps)
            rng = jax.random.key(config.seed)
            facts = _write(path, scan, reconstruct_slices(reconstruct, params, rng, measured, size))
            written[path] = file
            tqdm.write(f"{file}: {facts} -> {path}")
        except InputError as error:
            if not keep_going:
                raise
            broken += 1
            tqdm.write(f"evaluate: error: {' '.join(str(error).split())}", file=sys.stderr)
    if broken:
        raise InputError(f"{broken} of {len(files)} files could not be reconstructed, as said "
                         f"above; the others are in {output}")
    return list(written)


def measure(scan: Scan, acquisition: Acquisition, mask: str | Path = "",
            maps: str | Path = "") -> Iterator[Prepared]:
    """The slices of a scan as methods take them, one after the other.

    Args:
        scan: as opened.
        acquisition: of one that is simulated from a volume; others are what was measured.
        mask, maps: files, see `reconstruct_files`.

    Raises:
        InputError: a mask or maps of another size, k-space that is all zero, no calibration
            region where coil maps are to be made from it.
    """
    shape = scan.shape
    given = scan.mask
    if mask:
        given = open_mask(mask)
        check_mask(Path(mask), "the mask", given, shape[2:])
    reader = scan.maps
    if maps:
        reader = maps_for(shape, Path(maps), "the maps", *open_maps(maps))
    if scan.simulated and given is None:
        given = draw_mask(acquisition, shape[2:], seed_from_name(scan.name))
    slice_with_signal(scan)
    noise = draw_noise(acquisition, seed_from_name(scan.name)) if scan.simulated else 0.0
    return _prepared(scan, given, reader, noise)


def _prepared(scan: Scan, mask: np.ndarray | None, maps: Reader | None,
              noise: float) -> Iterator[Prepared]:
    every = range(scan.shape[0])
    rng = np.random.default_rng(seed_from_name(scan.name))
    for kspace, own in zip(scan.read(every), maps(every) if maps else [None] * len(every),
                           strict=True):
        if noise:
            kspace = acquire(kspace, 1, complex_noise(rng, kspace.shape, noise))
        try:
            yield prepare(kspace, mask, own)
        except InputError as error:
            raise InputError(f"{scan.file}: {error}") from error


def prepare(kspace: np.ndarray, mask: np.ndarray | None = None,
            maps: np.ndarray | None = None) -> Prepared:
    """One slice as methods take it, whatever its unit and the phase of its receiver.

    It is divided by its largest sample. Maps that are made here take up the smooth phase of the
    image, and what is left is turned by one phase, such that the zero-filled image `x` has a real
    and positive `sum x |x|`: models are trained on images whose phase is near 0, and a scan has
    any (`benchmarks/receiver_phase.py` tells what that is worth).

    Args:
        kspace: `[coil, ky, kx]` complex64.
        mask: `[ky or 1, kx]`, 1 where sampled; by default where any coil is not zero.
        maps: `[coil, y, x]`; by default made of the fully sampled centre: of several coils by
            ESPIRiT, of one coil its low-resolution phase, or ones where there is no such centre.

    Raises:
        InputError: no sample, or no calibration region where maps are made of it. The message
            does not name the file.
    """
    shape = kspace.shape[1:]
    found = find_mask(kspace)
    mask = np.broadcast_to(found if mask is None else mask * found, shape)
    kspace = mask * kspace
    peak = float(np.abs(kspace).max())
    if peak == 0:
        if found.any():
            raise InputError("the mask takes none of the samples of a slice, expected one of this "
                             "scan; leave it out to have the mask found in the data")
        ones = np.ones_like(kspace) / np.float32(np.sqrt(len(kspace)))
        return Prepared(_measurement(kspace, mask, ones), 0.0)
    kspace = kspace / np.float32(peak)
    if maps is not None:
        maps = _normalised(maps)
    elif len(kspace) == 1:
        maps = _phase(kspace, mask)
    else:
        maps = _calibrated(kspace, mask)
    image = np.sum(np.conj(maps) * ifft2c(kspace), axis=0)
    mean = np.sum(image * np.abs(image))
    if mean:
        kspace = kspace * np.complex64(np.conj(mean) / np.abs(mean))
    return Prepared(_measurement(kspace, mask, maps), peak)


def _measurement(kspace: np.ndarray, mask: np.ndarray, maps: np.ndarray) -> Measurement:
    with_axis = np.ascontiguousarray(mask[None], np.float32)
    return Measurement(on_host(kspace), on_host(with_axis), on_host(maps))


def _normalised(maps: np.ndarray) -> np.ndarray:
    power = np.sum(np.real(maps) ** 2 + np.imag(maps) ** 2, axis=0)
    if not power.any():
        raise InputError("the coil maps are zero everywhere, expected those of this scan")
    # below, maps are noise: dividing by it would make signal of it
    inside = power > 1e-6 * power.max()
    return (maps * np.where(inside, 1 / np.sqrt(np.where(inside, power, 1)), 0)).astype(
        np.complex64)


def _phase(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Unit phasors `[1, y, x]` of the low-resolution image of one coil."""
    rows, columns = (min(int(n), LARGEST_BOX) for n in calibration_size(mask))
    columns = min(columns, rows * kspace.shape[2] // kspace.shape[1])
    if columns < KERNEL:
        return np.ones_like(kspace)
    phase = from_calibration(kspace, columns)
    return np.where(phase == 0, 1, phase)


def _calibrated(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
    rows, columns = (min(int(n), LARGEST_BOX) for n in calibration_size(mask))
    if min(rows, columns) < KERNEL:
        raise InputError(f"the fully sampled centre of k-space is {rows} x {columns}, expected at "
                         f"least {KERNEL} x {KERNEL} calibration lines to make coil maps of; give "
                         "the maps as a file (--maps=FILE)")
    return np.asarray(espirit(kspace, (rows, columns), crop=0).maps)


def reconstruct_slices(reconstruct: Reconstruct, params: Params, rng: Array,
                       slices: Iterable[Prepared], size: int
                       ) -> Iterator[tuple[Prepared, dict[str, np.ndarray]]]:
    """Reconstruct slices of one shape in batches of one size.

    Args:
        reconstruct: see `Reconstruct`.
        params: of the method.
        rng: key; each batch gets its own.
        slices: from `measure`.
        size: slices at once.

    Yields:
        each slice with its images `[y, x]` float32 by name, in the unit of the data.
    """
    remaining = iter(slices)
    index = -1
    while part := list(islice(remaining, size)):
        index += 1
        padded = part + part[-1:] * (size - len(part))
        measurement = jax.tree.map(lambda *arrays: np.stack(arrays),
                                   *(one.measurement for one in padded))
        images = jax.device_get(reconstruct(params, jax.random.fold_in(rng, index), measurement))
        for i, one in enumerate(part):
            # an empty slice stays empty, whatever a network makes of it
            yield one, {name: one.scale * image[i] if one.scale else np.zeros_like(image[i])
                        for name, image in images.items()}


def _write(path: Path, scan: Scan, results: Iterable[tuple[Prepared, dict[str, np.ndarray]]]
           ) -> str:
    """Write the three files of a scan as results come in, and say what was found in it."""
    count, coils, *whole = scan.shape
    height, width = scan.crop or whole
    empty, accelerations = 0, []
    middle: list[tuple[int, Prepared, np.ndarray]] = []  # one at most

    def save(temporary: Path) -> None:
        nonlocal empty
        with h5py.File(temporary, "w") as file:
            for index, (one, images) in enumerate(results):
                for name, image in images.items():
                    if not np.isfinite(image).all():
                        raise InputError(
                            f"{scan.file}: the reconstruction of slice {index} is not finite, "
                            "expected numbers: take the checkpoint of a run that did not diverge")
                    if name not in file:
                        file.create_dataset(name, (count, height, width), np.float32)
                    file[name][index] = center_crop(image, (height, width))
                empty += not one.scale
                if one.scale:
                    accelerations.append(float(achieved_acceleration(one.measurement.mask)))
                    if not middle or index <= count // 2:
                        middle[:] = [(index, one, file["reconstruction"][index])]
            if scan.affine is not None:
                file.attrs["affine"] = scan.affine

    write_atomically(path, save)
    write_atomically(path.with_suffix(".nii"), lambda temporary: _save_nifti(temporary, path, scan))
    report.save(draw(scan, *middle[0], (height, width)), path.with_suffix(".png"))
    return (f"{count} slices{f', {empty} of them empty,' * bool(empty)} of {coils} x "
            f"{' x '.join(map(str, whole))}, R = {np.mean(accelerations):.2f}")


def _save_nifti(path: Path, images: Path, scan: Scan) -> None:
    """Slices `[slice, y, x]` as NIfTI's `[x, y, slice]`, which lie in a file in the same order."""
    with h5py.File(images) as file, open(path, "wb") as out:
        stored = file["reconstruction"]
        header = nibabel.Nifti1Header()
        header.set_data_dtype(np.float32)
        header.set_data_shape(stored.shape[::-1])
        header.set_zooms(scan.spacing or (1.0, 1.0, 1.0))
        header.set_xyzt_units("mm" if scan.spacing else "unknown")
        if scan.affine is not None:
            header.set_sform(scan.affine, code="scanner")
            header.set_qform(scan.affine, code="scanner")
        header["magic"], header["vox_offset"] = b"n+1", 352
        header.write_to(out)
        out.write(bytes(352 - out.tell()))
        for index in range(len(stored)):
            out.write(stored[index].astype("<f4").tobytes())


def draw(scan: Scan, index: int, one: Prepared, image: np.ndarray, crop: tuple[int, int]) -> Figure:
    """Zero-filled image and reconstruction of a slice in one grey window, and its mask."""
    kspace, mask, maps = map(np.asarray, one.measurement[:3])
    start = one.scale * np.abs(np.sum(np.conj(maps) * ifft2c(kspace), axis=0))
    start = center_crop(start, crop)
    peak = max(float(np.percentile(image, 99.9)), float(np.finfo(np.float32).tiny))
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), layout="constrained")
    panels: list[tuple[Any, str, float]] = [
        (start, "zero-filled", peak), (image, "reconstruction", peak),
        (mask[0], f"mask, R = {achieved_acceleration(mask):.2f}", 1.0)]
    for one_axes, (picture, title, top) in zip(axes, panels, strict=True):
        one_axes.imshow(picture, cmap="gray", vmin=0, vmax=top, interpolation="nearest")
        one_axes.set_title(title, fontsize=10)
        one_axes.set_xticks([])
        one_axes.set_yticks([])
    figure.suptitle(f"{scan.name}, slice {index + 1} of {scan.shape[0]}", fontsize=10)
    return figure
