"""Reconstruct volumes and score them: quality, stability and cost."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from flatjax.data.batches import padded_batches
from flatjax.evaluation import metrics
from flatjax.flow import interpolate
from flatjax.methods import Method
from flatjax.mri import Batch, center_crop, combine, reduce
from flatjax.mri.sampling import achieved_acceleration

QUALITY = ("psnr", "ssim", "nmse")  # over the whole image, as fastMRI does
OBJECT = ("psnr_object", "ssim_object")  # inside the object
STABILITY = ("straightness", "psnr_drops", "psnr_drop_db", "measurement_residual")  # by slice
ALONG = ("psnr", "ssim", "path_distance", "straightness", "residual")  # by state and slice
STATES = 51  # at most so many of a method's states are scored: more would not fit in memory
_BY_SLICE = ("target", "zero_filled", "reconstruction", "std", "residual")
_BY_STATE = ("states", "straightness", "path_distance", "residuals")
_TIMED = 5  # reconstructions that are timed, at most
_LONG_ENOUGH = 10.0  # seconds to time them for


class Scored(NamedTuple):
    """One reconstructed volume. Images are magnitudes `[slices, h, w]` float32."""

    name: str
    target: np.ndarray
    zero_filled: np.ndarray
    reconstruction: np.ndarray
    std: np.ndarray | None  # standard deviation over posterior samples, an image
    steps: np.ndarray  # after which the states are, `[states]`, from 0 to the last
    states: np.ndarray  # the image then, `[states, slices, h, w]`
    times: np.ndarray  # of the flow, `[states]`; uniform from 1 to 0 for a method without
    straightness: np.ndarray  # of the trajectory up to each state, `[states, slices]`
    path_distance: np.ndarray  # from the ideal path at these times, `[states, slices]`
    residuals: np.ndarray  # `||M k - y|| / ||y||` of each state, `[states, slices]`
    residual: np.ndarray  # of the result, `[slices]`
    acceleration: float  # achieved by the mask
    nfe: float  # network evaluations per image, their mean where the data decide them

    @property
    def stem(self) -> str:
        """The name without the `.h5` of fastMRI's, for files made of it."""
        return self.name.removesuffix(".h5")

    def at(self, index: int) -> "Scored":
        """A slice alone, copied, so that the others can be let go; its name says which it is."""
        arrays = {key: np.take(getattr(self, key), [index], axis=int(key in _BY_STATE))
                  for key in (*_BY_SLICE, *_BY_STATE) if getattr(self, key) is not None}
        return self._replace(
            name=f"{self.name}, slice {index + 1} of {len(self.target)}", **arrays)


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
            "ideal": interpolate(  # the path is straight, and E^H linear
                reduce(measurement.kspace, own), reduce(batch.kspace, own),
                jnp.asarray(times)[:, None, None, None]),
        }
        return out if result.std is None else out | {"std": crop(result.std)}

    return score


def score_volume(score: Callable[..., dict[str, Array]], params: Any, rng: Array, name: str,
                 slices: list[Batch], batch_size: int) -> Scored:
    """Reconstruct a volume, measured by `measure_volume`, and compare it with its target.

    `score` is from `scorer`; it gets `batch_size` slices at once, and a key of its own for each.
    """
    parts, arrays = [], dict[str, Any](std=None)
    for index, (batch, count) in enumerate(padded_batches(slices, batch_size)):
        out = jax.device_get(score(params, jax.random.fold_in(rng, index), batch))
        arrays |= {key: out.pop(key) for key in ("steps", "times")}  # the same for all slices
        images, ideal = out.pop("images"), out.pop("ideal")
        out |= {"straightness": metrics.straightness(images),
                "path_distance": metrics.path_distance(images, ideal)}
        parts.append({key: value[:, :count] if key in _BY_STATE else value[:count]
                      for key, value in out.items()})
    for key in parts[0]:
        arrays[key] = np.concatenate([part[key] for part in parts], axis=int(key in _BY_STATE))
    arrays["nfe"] = float(np.mean(arrays["nfe"]))
    return Scored(
        name=name, target=np.stack([one.target for one in slices]),
        acceleration=float(np.mean([achieved_acceleration(s.measurement.mask) for s in slices])),
        **arrays)


def quality(*, prediction: np.ndarray, target: np.ndarray,
            data_range: float | None = None) -> dict[str, float]:
    """PSNR (dB), SSIM and NMSE of a volume `[slices, h, w]`, by fastMRI's definitions."""
    pair = {"prediction": prediction, "target": target}
    return {"psnr": metrics.psnr(**pair, data_range=data_range),
            "ssim": metrics.ssim(**pair, data_range=data_range), "nmse": metrics.nmse(**pair)}


def full_quality(*, prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """As `quality`, with PSNR and SSIM inside the object, see `metrics.object_mask`."""
    pair: dict[str, Any] = {"prediction": prediction, "target": target}
    mask = metrics.object_mask(target)
    return quality(**pair) | {"psnr_object": metrics.psnr(**pair, mask=mask),
                              "ssim_object": metrics.ssim(**pair, mask=mask)}


class Measures(NamedTuple):
    """What is kept of a scored volume: numbers, where its images and states take much memory."""

    name: str
    stem: str
    method: dict[str, float]  # quality of the volume, by `full_quality`
    zero_filled: dict[str, float]
    slices: dict[str, np.ndarray]  # `QUALITY`, with the volume's peak, and `STABILITY`, `[slices]`
    states: dict[str, np.ndarray]  # of `ALONG`, `[states, slices]`; quality if it was asked for
    steps: np.ndarray
    times: np.ndarray
    psnr_per_step: np.ndarray  # of the volume in each state, `[states]`
    acceleration: float
    nfe: float


def measures_of(volume: Scored, *, along: bool = False) -> Measures:
    """The numbers of a scored volume, with the quality `along` its states if that is asked for."""
    peak = float(volume.target.max())
    slices = []
    for index, (image, target) in enumerate(zip(volume.reconstruction, volume.target, strict=True)):
        drops, drop_db = metrics.psnr_drops(metrics.psnr_per_step(
            trajectory=volume.states[:, index:index + 1], target=target[None]))
        slices.append(quality(prediction=image[None], target=target[None], data_range=peak) | {
            "psnr_drops": drops, "psnr_drop_db": drop_db,
            "straightness": volume.straightness[-1, index],
            "measurement_residual": volume.residual[index]})
    states = {"path_distance": volume.path_distance, "straightness": volume.straightness,
              "residual": volume.residuals}
    for key, metric in (("psnr", metrics.psnr), ("ssim", metrics.ssim)) if along else ():
        states[key] = np.array([
            [metric(prediction=image[None], target=target[None], data_range=peak)
             for image, target in zip(state, volume.target, strict=True)]
            for state in volume.states])
    return Measures(
        name=volume.name, stem=volume.stem,
        method=full_quality(prediction=volume.reconstruction, target=volume.target),
        zero_filled=full_quality(prediction=volume.zero_filled, target=volume.target),
        slices={key: np.array([one[key] for one in slices]) for key in slices[0]},
        states=states, steps=volume.steps, times=volume.times,
        psnr_per_step=metrics.psnr_per_step(trajectory=volume.states, target=volume.target),
        acceleration=volume.acceleration, nfe=volume.nfe)


def summary(volumes: list[Measures], method: str, acceleration: float) -> dict[str, Any]:
    """Means over volumes (quality) and over slices (stability), as `metrics.json` holds them.

    Standard deviations are over volumes. `psnr_drops` is the mean number of states per slice at
    which PSNR falls and `psnr_drop_db` the mean of their sizes' sum; states are those after
    `steps`, which leaves some out where there are more than `STATES`. The name of the method and
    the nominal acceleration are handed through.
    """
    def over_volumes(images: str) -> dict[str, dict[str, float]]:
        scores = {key: np.array([getattr(v, images)[key] for v in volumes])
                  for key in (*QUALITY, *OBJECT)}
        return {key: {"mean": float(values.mean()), "std": float(values.std())}
                for key, values in scores.items()}

    return {
        "method": {"name": method} | over_volumes("method"),
        "zero_filled": over_volumes("zero_filled"),
        "acceleration": {"nominal": acceleration,
                         "achieved": float(np.mean([v.acceleration for v in volumes]))},
        "nfe": float(np.mean([v.nfe for v in volumes])),
        "steps": volumes[0].steps.tolist(),
        "psnr_per_step": np.mean([v.psnr_per_step for v in volumes], axis=0).tolist(),
        **{key: float(np.mean(np.concatenate([v.slices[key] for v in volumes])))
           for key in STABILITY},
        "path_distance_per_step": np.concatenate(
            [v.states["path_distance"] for v in volumes], axis=1).mean(axis=1).tolist(),
        "num_volumes": len(volumes),
        "num_slices": sum(len(v.slices["psnr"]) for v in volumes),
    }


def cost(method: Method, params: Any, rng: Array, batch: Batch) -> dict[str, float]:
    """What a reconstruction without its trajectory costs.

    `seconds_per_slice` is the median wall-clock of five, fewer if they take over ten seconds,
    without compilation; `peak_memory_bytes` counts arguments, intermediates and results of the
    program that is compiled for this batch.
    """
    measurement = jax.device_put(batch.measurement)
    reconstruct = jax.jit(
        lambda p, key, measured: method.reconstruct(p, key, measured).image
    ).lower(params, rng, measurement).compile()
    jax.block_until_ready(reconstruct(params, rng, measurement))
    seconds = []
    while len(seconds) < _TIMED and sum(seconds) <= _LONG_ENOUGH:
        start = time.perf_counter()
        jax.block_until_ready(reconstruct(params, rng, measurement))
        seconds.append(time.perf_counter() - start)
    memory: Any = reconstruct.memory_analysis()
    return {"seconds_per_slice": float(np.median(seconds)) / len(batch.target),
            "peak_memory_bytes": memory.argument_size_in_bytes + memory.temp_size_in_bytes
            + memory.output_size_in_bytes}
