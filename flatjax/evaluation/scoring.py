"""Reconstruct volumes and score them: quality, stability and cost."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flatjax.data.batches import padded_batches
from flatjax.evaluation import metrics
from flatjax.flow import path
from flatjax.methods import Method
from flatjax.mri import Batch, center_crop, combine, reduce
from flatjax.mri.sampling import achieved_acceleration

QUALITY = ("psnr", "ssim", "nmse")  # over the whole image, as fastMRI does
OBJECT = ("psnr_object", "ssim_object")  # inside the object
STATES = 51  # at most so many of a method's states are scored: more would not fit in memory
_BY_STATE = ("states", "straightness", "path_distance", "residuals")
_LONG_ENOUGH = 10.0  # seconds to time a reconstruction for


class Scored(NamedTuple):
    """One reconstructed volume. Images are magnitudes `[slices, h, w]` float32.

    Attributes:
        name: of the volume.
        target, zero_filled, reconstruction: images.
        std: standard deviation over posterior samples `[slices, h, w]` float32, or None.
        steps: numbers of steps after which the states are, `[states]`, from 0 to the last.
        states: the image then, `[states, slices, h, w]`.
        times: flow times of the states, `[states]`; uniform from 1 to 0 for a method without.
        straightness: of the trajectory up to each state, `[states, slices]`, see `metrics`.
        path_distance: from the ideal path at these times, `[states, slices]`.
        residuals: `||M k - y|| / ||y||` of each state, `[states, slices]`.
        residual: of the result, `[slices]`.
        acceleration: achieved by the mask.
        nfe: network evaluations per image, their mean where the data decide them.
    """

    name: str
    target: np.ndarray
    zero_filled: np.ndarray
    reconstruction: np.ndarray
    std: np.ndarray | None
    steps: np.ndarray
    states: np.ndarray
    times: np.ndarray
    straightness: np.ndarray
    path_distance: np.ndarray
    residuals: np.ndarray
    residual: np.ndarray
    acceleration: float
    nfe: float

    @property
    def stem(self) -> str:
        """The name without the `.h5` of fastMRI's, for files made of it."""
        return self.name.removesuffix(".h5")


def scorer(method: Method, combine_kind: str) -> Callable[..., dict[str, Array]]:
    """A jitted `(params, rng, batch) -> arrays` with all that scoring needs of a batch."""
    @jax.jit
    def score(params: Any, rng: Array, batch: Batch) -> dict[str, Array]:
        measurement, maps = batch.measurement, batch.measurement.maps
        result = method.reconstruct(params, rng, measurement, trajectory=STATES)
        own = maps if result.maps is None else result.maps

        def crop(image: Array) -> Array:
            return center_crop(image, batch.target.shape[-2:])

        def residual(kspace: Array) -> Array:
            apart, whole = (jnp.linalg.norm(k.reshape(len(k), -1), axis=1) for k in (
                measurement.mask * kspace - measurement.kspace, measurement.kspace))
            return apart / jnp.where(whole > 0, whole, 1.0)

        times, steps = result.times, result.steps
        if times is None and steps is not None:
            times = 1 - steps / max(steps[-1], 1)
        out = {
            "reconstruction": crop(result.image),
            "zero_filled": crop(combine(measurement.kspace, maps, combine_kind)),
            "residual": residual(result.kspace),
            "nfe": jnp.broadcast_to(result.nfe, len(measurement.kspace)),
            "steps": steps,
            "times": times,
            # One state after the other, for their coil images would take much memory at once.
            "states": lax.map(lambda k: crop(combine(k, own, combine_kind)), result.trajectory),
            "images": lax.map(lambda k: reduce(k, own), result.trajectory),
            "residuals": lax.map(residual, result.trajectory),
            "ideal": path.interpolate(  # the path is straight, and E^H linear
                reduce(measurement.kspace, own), reduce(batch.kspace, own),
                jnp.asarray(times)[:, None, None, None]),
        }
        return out if result.std is None else out | {"std": crop(result.std)}

    return score


def score_volume(score: Callable[..., dict[str, Array]], params: Any, rng: Array, name: str,
                 slices: list[Batch], batch_size: int) -> Scored:
    """Reconstruct one measured volume and compare it with its target.

    Args:
        score: from `scorer`.
        params: of the method.
        rng: key; each batch gets its own.
        name: of the volume.
        slices: from `data.batches.measure_volume`.
        batch_size: slices at once.
    """
    parts, steps, times = [], np.zeros(0), np.zeros(0)
    for index, (batch, count) in enumerate(padded_batches(slices, batch_size)):
        out = jax.device_get(score(params, jax.random.fold_in(rng, index), batch))
        steps, times = out.pop("steps"), out.pop("times")
        images, ideal = out.pop("images"), out.pop("ideal")
        out |= {"straightness": metrics.straightness(images),
                "path_distance": metrics.path_distance(images, ideal)}
        for key in _BY_STATE:
            out[key] = np.moveaxis(out[key], 0, 1)
        parts.append({key: value[:count] for key, value in out.items()})
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    for key in _BY_STATE:
        arrays[key] = np.moveaxis(arrays[key], 1, 0)
    fields: dict[str, Any] = {"std": None} | arrays | {"nfe": float(np.mean(arrays["nfe"]))}
    return Scored(
        name=name, target=np.stack([one.target for one in slices]), steps=steps, times=times,
        acceleration=float(np.mean([achieved_acceleration(s.measurement.mask) for s in slices])),
        **fields)


def quality(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """PSNR (dB), SSIM and NMSE of a volume `[slices, h, w]`, by fastMRI's definitions."""
    return {name: getattr(metrics, name)(prediction=prediction, target=target) for name in QUALITY}


def full_quality(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """As `quality`, with PSNR and SSIM inside the object, see `metrics.object_mask`."""
    options: dict[str, Any] = {"prediction": prediction, "target": target,
                               "mask": metrics.object_mask(target)}
    return quality(prediction, target) | {
        "psnr_object": metrics.psnr(**options), "ssim_object": metrics.ssim(**options)}


def slice_quality(volume: Scored) -> dict[str, np.ndarray]:
    """PSNR (dB), SSIM and NMSE of each slice, `[slices]`; the peak is the whole volume's."""
    peak = {"data_range": float(volume.target.max())}
    return {name: np.array([
        getattr(metrics, name)(prediction=image[None], target=target[None], **options)
        for image, target in zip(volume.reconstruction, volume.target, strict=True)])
        for name, options in (("psnr", peak), ("ssim", peak), ("nmse", {}))}


class Measures(NamedTuple):
    """What is kept of a scored volume: numbers, where its images and states take much memory.

    Attributes:
        name: of the volume.
        method, zero_filled: quality of the volume's images, by `full_quality`.
        slices: quality of each slice, by `slice_quality`.
        steps: as in `Scored`.
        psnr_per_step: of the volume in each state, `[states]`.
        drops, drop_db: at how many states of a slice PSNR falls, and by how much, `[slices]`.
        straightness, residual: of the whole trajectory and of the result, `[slices]`.
        path_distance: `[states, slices]`.
        acceleration, nfe: as in `Scored`.
    """

    name: str
    method: dict[str, float]
    zero_filled: dict[str, float]
    slices: dict[str, np.ndarray]
    steps: np.ndarray
    psnr_per_step: np.ndarray
    drops: np.ndarray
    drop_db: np.ndarray
    straightness: np.ndarray
    residual: np.ndarray
    path_distance: np.ndarray
    acceleration: float
    nfe: float


def measures_of(volume: Scored) -> Measures:
    """The numbers of a scored volume."""
    drops = [metrics.psnr_drops(metrics.psnr_per_step(
        trajectory=volume.states[:, i:i + 1], target=volume.target[i:i + 1]))
        for i in range(len(volume.target))]
    return Measures(
        name=volume.name, method=full_quality(volume.reconstruction, volume.target),
        zero_filled=full_quality(volume.zero_filled, volume.target), slices=slice_quality(volume),
        steps=volume.steps,
        psnr_per_step=metrics.psnr_per_step(trajectory=volume.states, target=volume.target),
        drops=np.array([count for count, _, _ in drops]),
        drop_db=np.array([total for _, total, _ in drops]),
        straightness=volume.straightness[-1], residual=volume.residual,
        path_distance=volume.path_distance, acceleration=volume.acceleration, nfe=volume.nfe)


def _spread(values: Iterable[float]) -> dict[str, float]:
    values = np.asarray(list(values), np.float64)
    return {"mean": float(values.mean()), "std": float(values.std())}


def summary(volumes: list[Measures]) -> dict[str, Any]:
    """Means over volumes (quality) and over slices (stability), as `metrics.json` holds them.

    Standard deviations are over volumes. `psnr_drops` is the mean number of states per slice at
    which PSNR falls and `psnr_drop_db` the mean of their sizes' sum; states are those after
    `steps`, which leaves some out where there are more than `STATES`.
    """
    def over_volumes(images: str) -> dict[str, dict[str, float]]:
        return {name: _spread(getattr(v, images)[name] for v in volumes)
                for name in (*QUALITY, *OBJECT)}

    def over_slices(key: str) -> float:
        return float(np.mean(np.concatenate([getattr(v, key) for v in volumes])))

    return {
        "method": over_volumes("method"),
        "zero_filled": over_volumes("zero_filled"),
        "achieved_acceleration": float(np.mean([v.acceleration for v in volumes])),
        "nfe": float(np.mean([v.nfe for v in volumes])),
        "steps": volumes[0].steps.tolist(),
        "psnr_per_step": np.mean([v.psnr_per_step for v in volumes], axis=0).tolist(),
        "psnr_drops": over_slices("drops"),
        "psnr_drop_db": over_slices("drop_db"),
        "straightness": over_slices("straightness"),
        "measurement_residual": over_slices("residual"),
        "path_distance_per_step": np.concatenate(
            [v.path_distance for v in volumes], axis=1).mean(axis=1).tolist(),
        "num_volumes": len(volumes),
        "num_slices": sum(len(v.residual) for v in volumes),
    }


def cost(method: Method, params: Any, rng: Array, batch: Batch,
         repeats: int = 5) -> dict[str, float]:
    """What a reconstruction costs, its trajectory left out.

    Returns:
        `seconds_per_slice`: median wall-clock of so many repeats, fewer where they take more than
        ten seconds, compilation left out; `peak_memory_bytes`: of the compiled program for this
        batch, its arguments, intermediates and results together.
    """
    measurement = jax.device_put(batch.measurement)
    reconstruct = jax.jit(
        lambda p, key, measured: method.reconstruct(p, key, measured).image
    ).lower(params, rng, measurement).compile()
    jax.block_until_ready(reconstruct(params, rng, measurement))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(reconstruct(params, rng, measurement))
        seconds.append(time.perf_counter() - start)
        if sum(seconds) > _LONG_ENOUGH:
            break
    memory: Any = reconstruct.memory_analysis()
    return {"seconds_per_slice": float(np.median(seconds)) / batch.target.shape[0],
            "peak_memory_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes
            + memory.output_size_in_bytes}
