"""Reconstruction of a user's own scans by a trained model, without targets."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import h5py
import jax
import nibabel
import numpy as np
from jax import Array
from matplotlib.figure import Figure
from ml_collections import ConfigDict
from tqdm import tqdm

from flatjax import config as configuration
from flatjax.data.io.kspace import Scan, find_scans, open_scan
from flatjax.errors import InputError
from flatjax.evaluation import figures
from flatjax.evaluation.figures import Panel
from flatjax.files import make_folder, write_atomically
from flatjax.inference.prepare import Prepared, measure
from flatjax.methods import Params
from flatjax.mri import Measurement, center_crop
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import achieved_acceleration
from flatjax.runs.workdir import at_test_time, load_config, load_params

# `(params, rng, measurement) -> {name: [batch, y, x] float32}`, jitted
Reconstruct = Callable[[Params, Array, Measurement], dict[str, Array]]


def reconstruct_files(config: ConfigDict, workdir: str | Path, inputs: Sequence[str | Path],
                      output: str | Path | None = None, *, mask: str | Path = "",
                      maps: str | Path = "", keep_going: bool = False) -> list[Path]:
    """Reconstruct files of k-space, or of magnitude volumes whose acquisition is simulated.

    Writes for each `NAME.h5` (`reconstruction` `[slice, y, x]` float32, and `std` of a method that
    draws posterior samples), `NAME.nii` and `NAME.png`. As many slices are in memory at once as
    `config.evaluation.batch_size`.

    Args:
        config: of the run, from `runs.workdir.load_config`; its acquisition is that of volumes.
        workdir: of the run.
        inputs: files, or folders of files, in the formats of `data.io.kspace.open_scan`.
        output: folder, by default `workdir/reconstructions`.
        mask: file of the sampling mask, by default the file's own or where samples are not zero.
            It may leave samples out.
        maps: file of coil sensitivities, by default the file's own or by `mri.espirit` from the
            fully sampled center.
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
    files = find_scans(inputs)
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
            tqdm.write(f"flatjax reconstruct: error: {' '.join(str(error).split())}",
                       file=sys.stderr)
    if broken:
        raise InputError(f"{broken} of {len(files)} files could not be reconstructed, as said "
                         f"above; the others are in {output}")
    return list(written)


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
    figures.save(draw(scan, *middle[0], (height, width)), path.with_suffix(".png"))
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
    """Zero-filled image and reconstruction of a slice in one gray window, and its mask."""
    kspace, mask, maps = map(np.asarray, one.measurement[:3])
    start = one.scale * np.abs(np.sum(np.conj(maps) * host_ifft2c(kspace), axis=0))
    start = center_crop(start, crop)
    peak = max(float(np.percentile(image, 99.9)), float(np.finfo(np.float32).tiny))
    return figures.row([
        Panel(start, "zero-filled", 0.0, peak), Panel(image, "reconstruction", 0.0, peak),
        Panel(mask[0], f"mask, R = {achieved_acceleration(mask):.2f}", 0.0, 1.0)],
        f"{scan.name}, slice {index + 1} of {scan.shape[0]}")
