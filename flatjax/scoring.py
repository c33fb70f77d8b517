"""Reconstruct volumes and score them: quality, stability and cost."""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from flatjax import metrics
from flatjax.data.base import Volume
from flatjax.data.batches import Acquisition, measure_volume, padded_batches
from flatjax.flow import path
from flatjax.methods import Method, zero_filled
from flatjax.mri import Batch, center_crop, combine, reduce
from flatjax.mri.masks import achieved_acceleration

QUALITY: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "psnr": metrics.psnr, "ssim": metrics.ssim, "nmse": metrics.nmse}


class Scored(NamedTuple):
    """One reconstructed volume. Images are magnitudes `[slices, h, w]` float32.

    Attributes:
        name: of the volume.
        target, zero_filled, reconstruction: images.
        states: the image after every step, `[steps + 1, slices, h, w]`.
        straightness: `[slices]`, see `metrics.straightness`.
        path_distance: `[steps + 1, slices]` from the ideal path, or None for a method that has
            no flow time.
        residual: `||M k - y|| / ||y||` of the result, `[slices]`.
        acceleration: achieved by the mask.
        nfe: network evaluations per image.
    """

    name: str
    target: np.ndarray
    zero_filled: np.ndarray
    reconstruction: np.ndarray
    states: np.ndarray
    straightness: np.ndarray
    path_distance: np.ndarray | None
    residual: np.ndarray
    acceleration: float
    nfe: int

    @property
    def stem(self) -> str:
        """The name without the `.h5` of fastMRI's, for files made of it."""
        return self.name.removesuffix(".h5")


def scorer(method: Method, combine_kind: str) -> Callable[..., dict[str, Array]]:
    """A jitted `(params, rng, batch) -> arrays` with all that scoring needs of a batch."""
    reference = zero_filled.make(combine=combine_kind)

    @jax.jit
    def score(params: Any, rng: Array, batch: Batch) -> dict[str, Array]:
        measurement, shape = batch.measurement, batch.target.shape[-2:]
        result = method.reconstruct(params, rng, measurement, trajectory=True)
        by_step = jax.vmap(partial(reduce, maps=measurement.maps))
        magnitudes = jax.vmap(partial(combine, maps=measurement.maps, kind=combine_kind))
        axes = (1, 2, 3)
        norm = jnp.linalg.norm(measurement.kspace.reshape(measurement.kspace.shape[0], -1), axis=1)
        residual = measurement.mask * result.kspace - measurement.kspace
        out = {
            "reconstruction": center_crop(result.image, shape),
            "zero_filled": center_crop(reference.reconstruct({}, rng, measurement).image, shape),
            "states": center_crop(magnitudes(result.trajectory), shape),
            "images": by_step(result.trajectory),
            "residual": jnp.sqrt(jnp.sum(jnp.abs(residual) ** 2, axis=axes))
            / jnp.where(norm > 0, norm, 1.0),
            "nfe": jnp.asarray(result.nfe),
        }
        if result.times is not None:
            t = result.times[:, None, None, None, None]
            out["ideal"] = by_step(path.interpolate(measurement.kspace, batch.kspace, t))
        return out

    return score


def score_volume(score: Callable[..., dict[str, Array]], params: Any, rng: Array, volume: Volume,
                 acquisition: Acquisition, batch_size: int) -> Scored:
    """Measure, reconstruct and compare one volume.

    Args:
        score: from `scorer`.
        params: of the method.
        rng: key; each batch gets its own.
        volume: to be reconstructed.
        acquisition: how it is measured.
        batch_size: slices at once.
    """
    slices = measure_volume(volume, acquisition)
    parts, straight, distance = [], [], []
    for index, (batch, count) in enumerate(padded_batches(slices, batch_size)):
        out = jax.device_get(score(params, jax.random.fold_in(rng, index), batch))
        nfe = int(out.pop("nfe"))
        images, ideal = out.pop("images")[:, :count], out.pop("ideal", None)
        straight.append(metrics.straightness(images))
        if ideal is not None:
            distance.append(metrics.path_distance(images, ideal[:, :count]))
        out["states"] = np.moveaxis(out["states"], 0, 1)
        parts.append({key: value[:count] for key, value in out.items()})
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return Scored(
        name=volume.name,
        target=np.stack([one.target for one in slices]),
        zero_filled=arrays["zero_filled"],
        reconstruction=arrays["reconstruction"],
        states=np.moveaxis(arrays["states"], 1, 0),
        straightness=np.concatenate(straight),
        path_distance=np.concatenate(distance, axis=1) if distance else None,
        residual=arrays["residual"],
        acceleration=float(np.mean([achieved_acceleration(s.measurement.mask) for s in slices])),
        nfe=nfe)


def quality(target: np.ndarray, images: np.ndarray) -> dict[str, float]:
    """PSNR (dB), SSIM and NMSE of a volume, by fastMRI's definitions."""
    return {name: metric(target, images) for name, metric in QUALITY.items()}


def _spread(values: Iterable[float]) -> dict[str, float]:
    values = np.asarray(list(values), np.float64)
    return {"mean": float(values.mean()), "std": float(values.std())}


def summary(volumes: list[Scored]) -> dict[str, Any]:
    """Means over volumes (quality) and over slices (stability), as `metrics.json` holds them.

    Standard deviations are over volumes. `psnr_drops` is the mean number of cascades per slice
    at which PSNR falls and `psnr_drop_db` the mean of their sizes' sum.
    """
    def over_volumes(images: str) -> dict[str, dict[str, float]]:
        scores = [quality(v.target, getattr(v, images)) for v in volumes]
        return {name: _spread(score[name] for score in scores) for name in QUALITY}

    drops = [metrics.psnr_drops(metrics.psnr_per_step(v.target[i:i + 1], v.states[:, i:i + 1]))
             for v in volumes for i in range(len(v.target))]
    out = {
        "method": over_volumes("reconstruction"),
        "zero_filled": over_volumes("zero_filled"),
        "achieved_acceleration": float(np.mean([v.acceleration for v in volumes])),
        "nfe": volumes[0].nfe,
        "psnr_per_step": np.mean([metrics.psnr_per_step(v.target, v.states) for v in volumes],
                                 axis=0).tolist(),
        "psnr_drops": float(np.mean([count for count, _, _ in drops])),
        "psnr_drop_db": float(np.mean([total for _, total, _ in drops])),
        "straightness": float(np.mean(np.concatenate([v.straightness for v in volumes]))),
        "measurement_residual": float(np.mean(np.concatenate([v.residual for v in volumes]))),
        "num_volumes": len(volumes),
        "num_slices": sum(len(v.target) for v in volumes),
    }
    if volumes[0].path_distance is not None:
        out["path_distance_per_step"] = np.concatenate(
            [v.path_distance for v in volumes], axis=1).mean(axis=1).tolist()
    return out


def seconds_per_slice(method: Method, params: Any, rng: Array, batch: Batch,
                      repeats: int = 5) -> float:
    """Median wall-clock of a reconstruction per slice, compilation and trajectory left out."""
    reconstruct = jax.jit(lambda p, key, measurement: method.reconstruct(p, key, measurement).image)
    measurement = jax.device_put(batch.measurement)
    jax.block_until_ready(reconstruct(params, rng, measurement))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(reconstruct(params, rng, measurement))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds)) / batch.target.shape[0]
