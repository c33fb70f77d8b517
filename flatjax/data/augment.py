"""Training samples from magnitude images, as if each came from another scanner.

Pure functions of a generator, on the host, one slice at a time. After Jaubert et al., Scientific
Reports 2024: networks trained on natural or magnitude images with simulated phase and coils work on
real scans if the simulation is varied enough.
"""

from numbers import Real
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.random import Generator
from scipy import ndimage

from flatjax.data.base import Sample
from flatjax.data.slices import check_grid, make_sample
from flatjax.errors import InputError, check_choice
from flatjax.mri.host.simulate import smooth_field

FINE = 256  # least pixels of the grid that is drawn on before k-space is cut to the matrix
PHASE_SCALES = (0.6, 0.3, 0.12)  # of the field of view
AIR = 0.04  # of the maximum: below lies no tissue

Range = tuple[float, float]


class Augmentation(NamedTuple):
    """What may be drawn: ranges `(low, high)` are uniform, single numbers are probabilities.

    Attributes:
        matrix: pixels along each side; samples are `[coils, matrix, matrix]`.
        coils: most coils that a slice has; of those it does not have, k-space and maps are 0.
        fewest_coils: least coils that a training slice has.
        fov: side of the square field of view in mm.
        mixed: how often a slice is a random mixture of its contrasts.
        gamma: exponent of the intensities, its logarithm uniform.
        curve: standard deviation of random shifts of the intensities at 1/4, 1/2, 3/4 and 1.
        inverted: how often bright and dark are exchanged inside the head.
        bias: standard deviation of the logarithm of a smooth receive field.
        phase: rms of the smooth phase in rad; one of 0 to 2 pi, the same everywhere, is added.
        cropped: how often the maps end outside the head, as those of ESPIRiT do. The target ends
            with them.
    """

    matrix: int = 128
    coils: int = 12
    fewest_coils: int = 1
    fov: Range = (180.0, 300.0)
    mixed: float = 0.5
    gamma: Range = (0.6, 1.6)
    curve: Range = (0.0, 0.15)
    inverted: float = 0.15
    bias: Range = (0.0, 0.4)
    phase: Range = (0.0, 2.0)
    cropped: float = 0.5


LIMITS = {"fov": (50, 1000), "gamma": (0.1, 10), "curve": (0, 1), "bias": (0, 3), "phase": (0, 20)}


def check_augmentation(options: Augmentation) -> None:
    """InputError for a range that is empty, out of order or too wide, or a number out of range."""
    check_grid(options.matrix, options.coils)
    check_choice("fewest_coils", options.fewest_coils, range(1, options.coils + 1))
    for name, (low, high) in LIMITS.items():
        value = getattr(options, name)
        if not (len(value) == 2 and all(isinstance(end, Real) for end in value)
                and low <= value[0] <= value[1] <= high):
            raise InputError(f"{name} is {value!r}, expected (low, high) with {low} <= low <= "
                             f"high <= {high}")
    for name in ("mixed", "inverted", "cropped"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise InputError(f"{name} is {value!r}, expected a probability from 0 to 1")


def augmented_sample(image: np.ndarray, pixel: float, options: Augmentation,
                     rng: Generator) -> Sample:
    """A training sample of a magnitude image `[y, x]` of any scale, its pixels `pixel` mm wide.

    The target is what `combine` makes of k-space and maps; its maximum is 1 before these are
    cropped.
    """
    plane = draw_plane(rng, image, pixel, rng.uniform(*options.fov), options.matrix)
    plane = change_contrast(rng, plane, support(plane, 0.03), options)
    phase = draw_phase(rng, plane.shape, rng.uniform(*options.phase))
    coils = int(rng.integers(options.fewest_coils, options.coils, endpoint=True))
    sample = in_slots(make_sample(plane, phase, draw_maps(rng, plane.shape, coils)), options.coils)
    if rng.random() >= options.cropped:
        return sample
    inside = support(plane, rng.uniform(0.02, 0.12))
    return sample._replace(maps=sample.maps * inside, target=sample.target * inside)


def draw_plane(rng: Generator, image: np.ndarray, pixel: float, fov: float,
               matrix: int) -> np.ndarray:
    """Turn, mirror, stretch and shift an image `[y, x]` at random: `[matrix, matrix]` float32.

    It is drawn on a fine grid, of which the matrix keeps the center of k-space, as a scan does.
    `pixel` is the side of the image's pixels and `fov` that of the field of view, both in mm. The
    maximum is 1, or 0 if nothing is there.
    """
    size = max(matrix, FINE)
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    stretch = np.exp(0.04 * rng.standard_normal(2)) * rng.choice([-1, 1], 2)
    turn = np.array([[cos, sin], [-sin, cos]]) * stretch * (fov / size / pixel)
    middle = (np.array(image.shape) - 1) / 2 + rng.uniform(-0.06, 0.06, 2) * fov / pixel
    fine = ndimage.affine_transform(image, turn, middle - turn @ np.full(2, (size - 1) / 2),
                                    (size, size), np.float32, order=1)
    plane = np.maximum(low_resolution(fine, matrix), 0)
    return plane / max(plane.max(), 1e-6)


def low_resolution(image: np.ndarray, matrix: int) -> np.ndarray:
    """Cut k-space of an image `[n, n]` float32 to its center: `[matrix, matrix]`, `n >= matrix`."""
    size = len(image)
    if size == matrix:
        return image
    half = matrix // 2
    rows = np.r_[0:matrix - half, size - half:size]
    kspace = scipy.fft.rfft2(image)[rows, :half + 1]
    return scipy.fft.irfft2(kspace, (matrix, matrix)) * np.float32((matrix / size) ** 2)


def support(image: np.ndarray, margin: float) -> np.ndarray:
    """A smooth indicator of the head in an image of maximum 1, `[y, x]` float32 from 0 to 1.

    It reaches beyond tissue by about `margin`, a fraction of the field of view.
    """
    width = 2 * max(1, round(margin * len(image))) + 1
    tissue = ndimage.uniform_filter((image > AIR).astype(np.float32), width, mode="constant")
    near = np.minimum(tissue * np.float32(8), 1)
    return ndimage.uniform_filter(near, width, mode="nearest")


def change_contrast(rng: Generator, image: np.ndarray, head: np.ndarray,
                    options: Augmentation) -> np.ndarray:
    """An image of the same anatomy in another contrast, `[y, x]` float32 with maximum 1.

    `image` is a magnitude of maximum 1, `head` 1 inside the head and 0 outside.
    """
    levels, table = np.linspace(0, 1, 5), np.linspace(0, 1, 65)
    values = levels + rng.uniform(*options.curve) * rng.standard_normal(5) * (levels > 0)
    gamma = np.exp(rng.uniform(*np.log(options.gamma)))
    curve = np.abs(np.interp(table, levels, values)) ** gamma
    if rng.random() < options.inverted:
        image = head * (1 - image)
    image = np.interp(image, table, curve).astype(np.float32)
    bias = rng.uniform(*options.bias)
    image *= np.exp(np.float32(bias) * smooth_field(rng, image.shape, rng.uniform(0.3, 0.8)))
    return image / max(image.max(), 1e-6)


def draw_phase(rng: Generator, shape: tuple[int, int], amplitude: float) -> np.ndarray:
    """Unit phasors `[y, x]` complex64: one phase everywhere, and a smooth one of some scales.

    The smooth one has an rms of `amplitude` rad.
    """
    weights = np.array(PHASE_SCALES) * rng.uniform(0, 1, len(PHASE_SCALES))
    field = np.zeros(shape, np.float32)
    for weight, scale in zip(weights, PHASE_SCALES, strict=True):
        field += np.float32(weight) * smooth_field(rng, shape, scale)
    field *= np.float32(amplitude / max(field.std(), 1e-6))
    field += np.float32(rng.uniform(0, 2 * np.pi))
    phasors = np.empty(shape, np.complex64)  # faster than exp(1j field)
    phasors.real, phasors.imag = np.cos(field), np.sin(field)
    return phasors


def draw_maps(rng: Generator, shape: tuple[int, int], coils: int) -> np.ndarray:
    """Sensitivities of a random array, a perturbed birdcage or patches anywhere.

    `[coil, y, x]` complex64 with `sum_c |S_c|^2 == 1` at every pixel; one coil alone is ideal.
    """
    if coils == 1:
        return np.ones((1, *shape), np.complex64)
    draw = perturbed_birdcage if rng.random() < 0.6 else patches
    gain = np.exp(0.3 * rng.standard_normal(coils) + 2j * np.pi * rng.random(coils))
    maps = draw(rng, shape, coils)
    maps *= gain.astype(np.complex64)[:, None, None]
    real, imag = np.real(maps), np.imag(maps)
    power = np.einsum("cyx,cyx->yx", real, real) + np.einsum("cyx,cyx->yx", imag, imag)
    maps *= 1 / np.sqrt(power)
    return maps


def perturbed_birdcage(rng: Generator, shape: tuple[int, int], coils: int) -> np.ndarray:
    """`birdcage_maps` with thick wires on an ellipse, each displaced at random; not normalized."""
    y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in shape)
    angle = 2 * np.pi * (rng.random() + (np.arange(coils) + 0.15 * rng.standard_normal(coils))
                         / coils)
    radius = rng.uniform(1.2, 2.0) * np.exp(0.08 * rng.standard_normal(coils))
    axes = np.exp(0.08 * rng.standard_normal(2))
    offset = rng.uniform(-0.1, 0.1, 2)
    at_y = offset[0] + axes[0] * radius * np.sin(angle)
    at_x = offset[1] + axes[1] * radius * np.cos(angle)
    dy = (y - at_y[:, None]).astype(np.float32)[:, :, None]
    dx = (x - at_x[:, None]).astype(np.float32)[:, None, :]
    falloff = 1 / (dy**2 + dx**2 + np.float32(rng.uniform(0.15, 0.4) ** 2))
    maps = np.empty((coils, *shape), np.complex64)
    np.multiply(-dy, falloff, out=maps.real)
    np.multiply(dx, falloff, out=maps.imag)
    return maps


def patches(rng: Generator, shape: tuple[int, int], coils: int) -> np.ndarray:
    """Gaussian sensitivities of random place, width and phase ramp, not normalized."""
    place = rng.uniform(-1.1, 1.1, (2, coils, 1))
    width = rng.uniform(0.45, 1.2, (2, coils, 1))
    slope = rng.normal(0, 1.0, (2, coils, 1))
    along_y, along_x = (
        np.exp(-((u - at) / wide) ** 2 / 2 + 1j * ramp * u).astype(np.complex64)
        for u, at, wide, ramp in zip((np.linspace(-1, 1, n) for n in shape), place, width, slope,
                                     strict=True))
    return along_y[:, :, None] * along_x[:, None, :] + np.complex64(0.01)


def in_slots(sample: Sample, slots: int) -> Sample:
    """The sample with coils of zero sensitivity up to `slots`, so that all have one shape."""
    more = ((0, slots - len(sample.maps)), (0, 0), (0, 0))
    return sample._replace(kspace=np.pad(sample.kspace, more), maps=np.pad(sample.maps, more))
