"""Reconstruction of a user's own scans by a trained model, without targets."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import jax
import jax.numpy as jnp
import nibabel
import numpy as np
from jax import Array, lax
from ml_collections import ConfigDict
from nibabel.orientations import io_orientation, ornt_transform
from tqdm import tqdm

from flatjax import __version__, config as configuration
from flatjax.data.io.kspace import Scan, find_scans, open_scan
from flatjax.data.prepare import Prepared
from flatjax.errors import InputError
from flatjax.evaluation import figures, viewer
from flatjax.evaluation.figures import Panel
from flatjax.evaluation.viewer import View
from flatjax.files import make_folder, printable, write_atomically
from flatjax.inference.adapt import adapt
from flatjax.inference.measure import measure
from flatjax.inference.pretrained import check_no_run, write_model
from flatjax.inference.turning import Reconstruct, turned, turning
from flatjax.methods import Method, Params
from flatjax.mri import Measurement, center_crop, combine
from flatjax.mri.host.coil_compression import whitening
from flatjax.mri.host.simulate import host_ifft2c
from flatjax.mri.sampling import achieved_acceleration
from flatjax.runs import weights
from flatjax.runs.workdir import at_test_time, load_config, load_params

Result = tuple[Prepared, dict[str, np.ndarray]]  # a slice, and its images `[y, x]` by name


def reconstruct_files(config: ConfigDict, workdir: str | Path, inputs: Sequence[str | Path],
                      output: str | Path | None = None, *, mask: str | Path = "",
                      maps: str | Path = "", array: str = "", axes: str = "",
                      undersample: bool = False, keep_going: bool = False,
                      adapt_minutes: float = 0.0, keep_weights: bool = False) -> list[Path]:
    """Reconstruct files of k-space, or of magnitude volumes whose acquisition is simulated.

    Writes for each `NAME.h5` (`reconstruction` `[slice, y, x]` float32, or `[frame, slice, y, x]`
    of several repetitions or the like, and `std` of a method that draws posterior samples;
    attributes say how it was made), `NAME.nii` with the same axes reversed, or those of the input
    volume, and `NAME.png`; and of all files together `report.html`, which shows slices and their
    states interactively. Returns the paths of the first. k-space of
    `config.evaluation.batch_size` slices is in memory at once (of a `.npz`, `.mat` or plain `.h5`,
    all), and the images of one file.

    Args:
        config, workdir: of the run; the config's acquisition is that of volumes.
        inputs: files, or folders of files, in the formats of `data.io.kspace.open_scan`.
        output: folder, by default `workdir/reconstructions`.
        mask: file of the sampling mask, by default the file's own or where samples are not zero.
        maps: file of coil sensitivities, by default the file's own or by ESPIRiT.
        array, axes: of files of arrays, see `data.io.kspace.open_scan`.
        undersample: k-space that is fully sampled is undersampled as the config's acquisition says,
            without its noise.
        keep_going: go on with the other files where one is broken, and raise at the end.
        adapt_minutes: fine-tune the weights on each scan for at most so long, see `adapt.adapt`,
            with all its slices in memory; 0 to leave them as they are.
        keep_weights: write these weights into a folder `NAME`, as a packed model.

    Raises:
        InputError: for a broken file, in one line that names it; results that would replace an
            input or each other; a run without weights; a reconstruction that is not finite.
    """
    trained = load_config(workdir)
    config = at_test_time(config, trained)
    method = configuration.make_method(config)
    acquisition, learned = map(configuration.make_acquisition, (config, trained))
    size = configuration.make_evaluation(config).batch_size
    files = find_scans(inputs)
    rng = jax.random.key(config.seed)
    params, step = load_params(workdir, config, method)
    params = jax.device_put(params)
    output = make_folder(output or Path(workdir) / "reconstructions")

    @jax.jit
    def reconstruct(params: Params, rng: Array, measurement: Measurement) -> dict[str, Array]:
        result = method.reconstruct(params, rng, measurement, trajectory=viewer.STATES)
        states, maps = result.trajectory, measurement.maps if result.maps is None else result.maps
        if states is not None:  # one after the other, for coil images take much memory
            states = lax.map(lambda kspace: combine(kspace, maps, config.combine), states)
            states = jnp.moveaxis(states, 0, 1)
        images = {"reconstruction": result.image, "std": result.std, "states": states}
        return {name: image for name, image in images.items() if image is not None}

    function = turning(reconstruct, learned)
    taken = {Path(path).resolve(): "which was given as input"
             for path in (*files, mask, maps) if path}
    written: list[Path] = []
    views: list[View] = []
    for file in tqdm(files, desc="reconstruct", unit="file", disable=len(files) < 2):
        try:
            scan = open_scan(file, config.data.get("coils", 1), array, axes)
            targets = [output / f"{scan.name}{suffix}" for suffix in (".h5", ".nii", ".png")]
            for target in targets:
                if (known := taken.get(target.resolve())):
                    raise InputError(f"{file}: its reconstruction would be written over {target}, "
                                     f"{known}; rename it, or name another output folder")
            slices, own = measure(scan, acquisition, mask, maps, undersample), params
            origin = _origin(workdir, step, config, scan, mask)
            if keep_weights:
                check_no_run(output / scan.name)
            if adapt_minutes:
                slices = list(slices)
                own = adapt_to(scan, method, params, [
                    turned(one.measurement, learned) for one in slices], adapt_minutes, config.seed)
                origin["adapted"] = f"on this scan, at most {adapt_minutes:g} minutes"
            results = reconstruct_slices(function, own, rng, slices, min(size, scan.shape[0]))
            facts, shown = _write(targets, scan, results, origin)
            views += shown
            if keep_weights:
                write_model(output / scan.name, trained, own, step)
            taken[targets[0].resolve()] = f"the reconstruction of {file}"
            written.append(targets[0])
            tqdm.write(f"{file}: {facts} -> {targets[0]}")
        except InputError as error:
            if not keep_going:
                raise
            tqdm.write(f"flatjax reconstruct: error: {' '.join(str(error).split())}",
                       file=sys.stderr)
    if views:
        name = config.method.name
        viewer.write(output / "report.html", ", ".join(path.stem for path in written),
                     f"Reconstructed by {_name(workdir)}", {name: views}, {name: name})
    if len(written) < len(files):
        raise InputError(f"{len(files) - len(written)} of {len(files)} files could not be "
                         f"reconstructed, as said above; the others are in {output}")
    return written


def adapt_to(scan: Scan, method: Method, params: Params, slices: Sequence[Measurement],
             minutes: float, seed: int) -> Params:
    """`adapt.adapt`, with a line of what it brought."""
    try:
        params, errors = adapt(method, params, slices, minutes=minutes, seed=seed)
    except InputError as error:
        raise InputError(f"{scan.file}: {error}") from error
    tqdm.write(f"{scan.file}: adapted, validation error {errors[0]:.4f} -> {min(errors):.4f}")
    return params


def reconstruct_slices(reconstruct: Reconstruct, params: Params, rng: Array,
                       slices: Iterable[Prepared], size: int) -> Iterator[Result]:
    """Reconstruct slices of one shape, from `measure`, in batches of one size, each with its key.

    Yields each slice with its images `[y, x]` float32 by name, in the unit of the data.
    """
    remaining = iter(slices)
    for index, part in enumerate(iter(lambda: list(islice(remaining, size)), [])):
        padded = part + part[-1:] * (size - len(part))
        measurement = jax.tree.map(lambda *arrays: np.stack(arrays),
                                   *(one.measurement for one in padded))
        images = jax.device_get(reconstruct(params, jax.random.fold_in(rng, index), measurement))
        for i, one in enumerate(part):
            yield one, {name: one.scale * image[i] for name, image in images.items()}


def _origin(workdir: str | Path, step: int, config: ConfigDict, scan: Scan, mask: str | Path
            ) -> dict[str, str | int | float]:
    """How a reconstruction is made, as the attributes of its file tell."""
    source = "samples that are not zero"
    if mask or scan.mask is not None:
        source = str(mask or scan.file)
    elif scan.simulated:
        source = "drawn as the config says"
    unit = ("1 is the maximum of the volume" if scan.simulated else
            "that of the k-space, by an orthonormal Fourier transform")
    known = {}
    if scan.noise is not None:
        known["noise"] = whitening(scan.noise)[1]
        unit += ", of prewhitened coils; noise is the standard deviation of a sample's"
    return {"model": _name(workdir),
            "method": config.method.name, "checkpoint_step": step,
            "config_hash": configuration.config_hash(config), "flatjax": __version__,
            "mask": printable(source), "unit": unit, **known}


def _name(workdir: str | Path) -> str:
    """What a model is called: a packed one by its folder's name, a run by its path."""
    model = Path(workdir).resolve()
    return printable(model.name if (model / weights.FILE).is_file() else str(model))


def _write(targets: list[Path], scan: Scan, results: Iterable[Result],
           origin: dict[str, str | int | float]) -> tuple[str, list[View]]:
    """Write the three files of a scan, and give what was found in it and views of slices."""
    count, coils, *whole = scan.shape
    crop = scan.crop or whole
    found: dict[str, list[np.ndarray]] = {}
    accelerations, middle = [], None
    chosen, seen = viewer.spread(count, viewer.SLICES), dict[int, list[np.ndarray]]()
    for index, (one, images) in enumerate(results):
        states = [*images.pop("states", ())[:-1], images["reconstruction"]]
        if index in chosen:
            seen[index] = [center_crop(each, crop) for each in (_zero_filled(one), *states)]
        for name, image in images.items():
            if not np.isfinite(image).all():
                raise InputError(f"{scan.file}: the reconstruction of slice {index} is not finite: "
                                 "take the checkpoint of a run that did not diverge")
            found.setdefault(name, []).append(center_crop(image, crop))
        if one.scale:
            accelerations.append(achieved_acceleration(one.measurement.mask))
            if middle is None or index <= count // 2:
                middle = index, one

    shape = (scan.frames, -1, *crop) if scan.frames > 1 else (-1, *crop)
    volumes = {name: np.stack(images).reshape(shape) for name, images in found.items()}
    volume, acceleration = volumes["reconstruction"], float(np.mean(accelerations))

    def save(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            for name, images in volumes.items():
                file[name] = images
            file.attrs.update(origin, acceleration=acceleration)
            if scan.placed:
                file.attrs["affine"] = scan.affine

    white = float(np.percentile(volume, 99.9))
    views = [viewer.view(scan.name, index, count, *own, white=white)
             for index, own in seen.items()]
    h5, nii, png = targets
    write_atomically(h5, save)
    write_atomically(nii, lambda temporary: nibabel.save(_nifti(volume, scan), temporary))
    if middle:
        figures.save(draw(scan, *middle, found["reconstruction"][middle[0]]), png,
                     pdf=False)
    empty, frames = count - len(accelerations), scan.frames
    told = [f", left out: {scan.facts[one]}" for one in scan.facts if one == "left out"]
    told += [", prewhitened"] * (scan.noise is not None)
    return (f"{f'{frames} times ' * (frames > 1)}{count // frames} slices"
            f"{f', {empty} of them empty,' * bool(empty)} of {coils} x "
            f"{' x '.join(map(str, whole))}, R = {acceleration:.2f}{''.join(told)}"), views


def _nifti(volume: np.ndarray, scan: Scan) -> nibabel.Nifti1Image:
    """Slices `[slice, y, x]` as NIfTI's `[x, y, slice]` or the input's axes, where they lie.

    With frames, `[frame, slice, y, x]`, they are its fourth axis.
    """
    image = (nibabel.Nifti1Image if max(volume.shape) < 2**15 else nibabel.Nifti2Image)(
        volume.T, scan.affine)
    image.header.set_zooms((*(scan.spacing or (1.0, 1.0, 1.0)), 1.0)[:volume.ndim])
    image.header.set_xyzt_units("mm" if scan.spacing else "unknown")
    if scan.axes is not None:
        turn: Any = ornt_transform(io_orientation(scan.affine), scan.axes)
        image = image.as_reoriented(turn)
    for place in (image.set_sform, image.set_qform):
        place(image.affine, code="scanner" if scan.placed else "unknown")
    return image


def _zero_filled(one: Prepared) -> np.ndarray:
    kspace, _, maps = map(np.asarray, one.measurement[:3])
    return one.scale * np.abs(np.sum(np.conj(maps) * host_ifft2c(kspace), axis=0))


def draw(scan: Scan, index: int, one: Prepared, image: np.ndarray) -> "figures.Figure":
    """Zero-filled image and reconstruction of a slice in one gray window, and its mask."""
    mask = np.asarray(one.measurement.mask)
    peak = max(float(np.percentile(image, 99.9)), float(np.finfo(np.float32).tiny))
    return figures.row([
        Panel(center_crop(_zero_filled(one), image.shape), "zero-filled", 0.0, peak),
        Panel(image, "reconstruction", 0.0, peak),
        Panel(mask[0], f"mask, R = {achieved_acceleration(mask):.2f}", 0.0, 1.0)],
        f"{scan.name}, slice {index + 1} of {scan.shape[0]}")
