"""Image quality by fastMRI's definitions, and how a method's states move. On the host, in NumPy.

Quality is scored per volume, never per slice: one NMSE, PSNR and SSIM for magnitudes
`[slices, height, width]`, as fastMRI's `evaluate.py` computes them once `mri.center_crop` has cut
both volumes to the target's (width, width). PSNR and SSIM may be restricted to the object, see
`object_mask`: most of some images is empty background.

All sums run in float64. Where a definition has no finite value its limit is returned, so that zero
targets and perfect predictions give neither NaN nor a warning; NaN comes out only if it went in.
"""

import math

import numpy as np
from scipy.ndimage import binary_fill_holes, uniform_filter

from flatjax.errors import InputError

SSIM_WINDOW = 7
SSIM_K1, SSIM_K2 = 0.01, 0.03
OBJECT_SHARE = 0.05  # of the 99th percentile of a target, above which its local mean is object


def nmse(*, prediction: np.ndarray, target: np.ndarray) -> float:
    """Normalized mean squared error, ||prediction - target||^2 / ||target||^2 over the volume.

    For an all-zero target it is 0 if the prediction is zero too, else inf.

    Args:
        prediction, target: `[slices, height, width]` real magnitudes of one unit.

    Raises:
        InputError: shapes differ, are not three-dimensional, or an input is complex.
    """
    prediction, target = _volumes(prediction, target)
    with np.errstate(all="ignore"):
        return float(_ratio(np.sum((target - prediction) ** 2), np.sum(target**2), empty=0.0))


def psnr(*, prediction: np.ndarray, target: np.ndarray, data_range: float | None = None,
         mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, with the mean squared error taken over the volume.

    It is inf for a perfect prediction, even of zeros, else -inf where the peak is 0.

    Args:
        prediction, target: `[slices, height, width]` real magnitudes of one unit.
        data_range: the peak, >= 0; None means target.max(), as in fastMRI.
        mask: bool of the same shape, of the pixels to take the mean over; None for all.

    Raises:
        InputError: as `nmse`, or a data_range that is negative or not finite.
    """
    prediction, target = _volumes(prediction, target)
    peak = _peak(target, data_range)
    if mask is not None:
        prediction, target = prediction[mask], target[mask]
    if np.array_equal(target, prediction):
        return math.inf
    if peak == 0:
        return -math.inf
    with np.errstate(all="ignore"):
        return float(-10 * np.log10(np.mean(((target - prediction) / peak) ** 2)))


def ssim(*, prediction: np.ndarray, target: np.ndarray, data_range: float | None = None,
         mask: np.ndarray | None = None) -> float:
    """Structural similarity, the mean over slices, with one data range for the volume.

    Wang et al. (2004) with scikit-image's defaults: 7 x 7 uniform window, k1 = .01, k2 = .03,
    sample covariance, windows that lie wholly inside the slice.

    Args:
        prediction, target: as for `psnr`, height and width >= 7.
        data_range: as for `psnr`. If it is 0, a slice counts 1 where it is equal in both volumes,
            else 0.
        mask: bool of the same shape, of the centers of the windows to take the mean over; None,
            and a mask that holds none, for all.

    Raises:
        InputError: as `psnr`, or slices smaller than the window.
    """
    prediction, target = _volumes(prediction, target)
    if min(target.shape[1:]) < SSIM_WINDOW:
        raise InputError(f"ssim got volumes of shape {target.shape}, expected slices of at least "
                         f"{SSIM_WINDOW} x {SSIM_WINDOW}; the axes are [slices, height, width]")
    peak = _peak(target, data_range)
    with np.errstate(all="ignore"):
        maps = np.stack([_ssim_map(x, y, peak) for x, y in zip(prediction, target, strict=True)])
    edge = SSIM_WINDOW // 2
    chosen = None if mask is None else mask[:, edge:-edge, edge:-edge]
    return float(np.mean(maps if chosen is None or not chosen.any() else maps[chosen]))


def object_mask(target: np.ndarray) -> np.ndarray:
    """Where the object is: the target's local mean is above 5 % of its 99th percentile.

    The mean is over SSIM's 7 x 7 window, so that the object's edge, where ringing shows, belongs to
    it and noise makes no specks: its mean in a magnitude image is 1.25 standard deviations
    (Gudbjartsson and Patz, MRM 34(6), 1995), below the level where bright tissue has an SNR over
    25. Holes within a slice, as airways and dark fluid, are filled.

    Args:
        target: `[slices, height, width]` real magnitudes.

    Returns:
        bool of the same shape; all true where no pixel is above, as of an empty target.
    """
    target = np.asarray(target, np.float64)
    level = OBJECT_SHARE * np.percentile(target, 99)
    mask = np.stack([binary_fill_holes(uniform_filter(one, SSIM_WINDOW) > level)
                     for one in target])
    return mask if mask.any() else np.ones_like(mask)


def psnr_per_step(*, trajectory: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`psnr` of every state `[states, slices, height, width]` of a volume, `[states]` float64."""
    return np.array([psnr(prediction=state, target=target) for state in trajectory])


def psnr_drops(curve: np.ndarray) -> tuple[int, float]:
    """How often a curve `[states]` in dB fell, however little, and by how many dB in all.

    NaN, the mark of a state that diverged, counts as -inf: falling to it is an infinite drop.
    """
    curve = np.where(np.isnan(curve), -np.inf, curve)
    falls = curve[1:] < curve[:-1]
    return int(falls.sum()), float((curve[:-1][falls] - curve[1:][falls]).sum())


def straightness(states: np.ndarray) -> np.ndarray:
    """||x_j - x_0|| / sum_{i<j} ||x_{i+1} - x_i||, in [0, 1], up to every state.

    Args:
        states: `[states, batch, ...]` complex or real, the start first.

    Returns:
        `[states, batch]` float64; 1 is a straight line without return, or no movement at all.
    """
    moves = [_distances(a, b) for a, b in zip(states[1:], states, strict=False)]
    length = np.cumsum([np.zeros(states.shape[1]), *moves], axis=0)
    chord = np.stack([_distances(state, states[0]) for state in states])
    return np.minimum(_ratio(chord, length, empty=1.0), 1.0)


def path_distance(states: np.ndarray, ideal: np.ndarray) -> np.ndarray:
    """||x_j - x*_j|| / ||x*_j|| of every state: how far off the ideal path it is.

    Args:
        states, ideal: `[states, batch, ...]` complex or real, of one unit, at the same times.

    Returns:
        `[states, batch]` float64; where x*_j is zero, 0 if x_j is zero too, else inf.

    Raises:
        InputError: if the shapes differ.
    """
    if states.shape != ideal.shape:
        raise InputError(f"states have shape {states.shape} and the ideal path {ideal.shape}, "
                         "expected two equal shapes [states, batch, ...]")
    return np.stack([_ratio(_distances(x, best), _distances(best, 0), empty=0.0)
                     for x, best in zip(states, ideal, strict=True)])


def _ssim_map(x: np.ndarray, y: np.ndarray, peak: float) -> np.ndarray:
    """SSIM of each window wholly inside a slice, `[height - 6, width - 6]`; it is symmetric."""
    edge = SSIM_WINDOW // 2
    if peak == 0:
        return np.full([n - 2 * edge for n in x.shape], float(np.array_equal(x, y)))
    # SSIM does not depend on the unit; at a peak of 1 its constants cannot underflow.
    x, y = x / peak, y / peak
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = (
        uniform_filter(values, SSIM_WINDOW) for values in (x, y, x * x, y * y, x * y))
    points = SSIM_WINDOW**2
    unbiased = points / (points - 1)
    covariance = unbiased * (mean_xy - mean_x * mean_y)
    variances = unbiased * (mean_xx - mean_x**2 + mean_yy - mean_y**2)
    c1, c2 = SSIM_K1**2, SSIM_K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure)[edge:-edge, edge:-edge]


def _volumes(prediction: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    prediction, target = np.asarray(prediction), np.asarray(target)
    if target.shape != prediction.shape or target.ndim != 3 or target.size == 0:
        raise InputError(f"prediction has shape {prediction.shape} and target {target.shape}, "
                         "expected two equal shapes [slices, height, width] without a zero; crop "
                         "both with center_crop, give a single slice as x[None]")
    if np.iscomplexobj(target) or np.iscomplexobj(prediction):
        raise InputError(f"prediction is {prediction.dtype} and target {target.dtype}, expected "
                         "real magnitudes; take the absolute value first")
    return prediction.astype(np.float64), target.astype(np.float64)


def _peak(target: np.ndarray, data_range: float | None) -> float:
    peak = float(target.max() if data_range is None else data_range)
    if not 0 <= peak < math.inf:
        raise InputError(f"the data range is {peak}, expected a finite number >= 0; pass "
                         "data_range, or a target of finite magnitudes")
    return peak


def _distances(a: np.ndarray, b: np.ndarray | float) -> np.ndarray:
    """||a - b|| per image, `[batch]` float64."""
    with np.errstate(all="ignore"):
        difference = (np.asarray(a, np.complex128) - b).reshape(len(a), -1)
        return np.sqrt(np.sum(difference.real**2 + difference.imag**2, axis=1))


def _ratio(part: np.ndarray, whole: np.ndarray, empty: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.where(whole == 0, np.where(part == 0, empty, np.inf), part / whole)
