"""Training samples from magnitude images, as if each came from another scanner.

A slice is rotated, mirrored and scaled, changed in contrast, and given a phase and an array of
coils, all at random. Pure functions of a generator, in NumPy on the host, one slice at a time.

After Jaubert et al., Scientific Reports 2024: networks trained on natural or magnitude images with
simulated phase and coils work on real scans if the simulation is varied enough.
"""

from numbers import Real
from typing import NamedTuple

import numpy as np
import scipy.fft
from numpy.random import Generator
from scipy import ndimage

from flatjax.data.base import Sample
from flatjax.data.slices import make_sample
from flatjax.errors import InputError
from flatjax.mri.host.simulate import smooth_field

FINE = 256  # least pixels of the grid that is drawn on before k-space is cut to the matrix
PHASE_SCALES = (0.6, 0.3, 0.12)  # of the field of view
AIR = 0.04  # of the maximum: below lies no tissue

Range = tuple[float, float]


class Augmentation(NamedTuple):
    """What may be drawn: ranges `(low, high)` are uniform, single numbers are probabilities.

    Attributes:
        coils: least and largest number of coils. Samples have as many as the largest; coils that
            were not drawn are 0.
        fov: side of the square field of view in mm.
        gamma: exponent of the intensities, its logarithm uniform.
        curve: standard deviation of random shifts of the intensities at 1/4, 1/2, 3/4 and 1.
        inverted: how often bright and dark are exchanged inside the head.
        bias: standard deviation of the logarithm of a smooth receive field.
        phase: rms of the smooth phase in rad; one of 0 to 2 pi, the same everywhere, is added.
        cropped: how often the maps end outside the head, as those of ESPIRiT do. The target ends
            with them.
    """

    coils: tuple[int, int] = (1, 12)
    fov: Range = (180.0, 300.0)
    gamma: Range = (0.6, 1.6)
    curve: Range = (0.0, 0.15)
    inverted: float = 0.15
    bias: Range = (0.0, 0.4)
    phase: Range = (0.0, 2.0)
    cropped: float = 0.5


LIMITS = {"coils": (1, 128), "fov": (50, 1000), "gamma": (0.1, 10), "curve": (0, 1), "bias": (0, 3),
          "phase": (0, 20), "inverted": (0, 1), "cropped": (0, 1)}


def check_augmentation(options: Augmentation) -> None:
    """Refuse what cannot be drawn.

    Raises:
        InputError: a range that is empty, out of order or too wide, a probability outside [0, 1].
    """
    for name, value in options._asdict().items():
        low, high = LIMITS[name]
        if isinstance(Augmentation._field_defaults[name], tuple):
            numbers = int if name == "coils" else Real
            valid = (isinstance(value, tuple) and len(value) == 2
                     and all(isinstance(end, numbers) for end in value)
                     and low <= value[0] <= value[1] <= high)
            expected = f"(low, high) with {low} <= low <= high <= {high}"
        else:
            valid, expected = low <= value <= high, f"a probability from {low} to {high}"
        if not valid:
            raise InputError(f"{name} is {value!r}, expected {expected}")


def augmented_sample(image: np.ndarray, pixel: float, matrix: int, options: Augmentation,
                     rng: Generator) -> Sample:
    """A training sample of an image.

    Args:
        image: magnitude `[y, x]`, not negative, any scale.
        pixel: side of its pixels in mm.
        matrix: pixels of the sample along each side.
        options: what may be drawn.
        rng: numpy generator.

    Returns:
        a sample of `options.coils[1]` coils, with maximum 1 before maps are cropped. The target is
        what `combine` makes of its k-space and maps.
    """
    plane = draw_plane(rng, image, pixel, rng.uniform(*options.fov), matrix)
    head = support(plane, 0.03)
    plane = change_contrast(rng, plane, head, options)
    shape = plane.shape
    phase = draw_phase(rng, shape, rng.uniform(*options.phase))
    maps = draw_maps(rng, shape, int(rng.integers(options.coils[0], options.coils[1] + 1)))
    sample = in_slots(make_sample(plane, phase, maps), options.coils[1])
    if rng.random() >= options.cropped:
        return sample
    inside = support(plane, rng.uniform(0.02, 0.12))
    return sample._replace(maps=sample.maps * inside, target=sample.target * inside)


def draw_plane(rng: Generator, image: np.ndarray, pixel: float, fov: float,
               matrix: int) -> np.ndarray:
    """An image turned, mirrored, stretched and shifted at random, `[matrix, matrix]` float32.

    It is drawn on a fine grid, of which the matrix keeps the center of k-space, as a scan does.

    Args:
        rng: numpy generator.
        image: `[y, x]` magnitude.
        pixel: side of its pixels in mm.
        fov: side of the field of view in mm.
        matrix: pixels along each side.

    Returns:
        with maximum 1, or 0 if nothing is there.
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
    """The image of the center of k-space, `[matrix, matrix]` float32.

    Args:
        image: `[n, n]` float32, `n >= matrix`.
        matrix: pixels along each side.
    """
    size = len(image)
    if size == matrix:
        return image
    half = matrix // 2
    rows = np.r_[0:matrix - half, size - half:size]
    kspace = scipy.fft.rfft2(image)[rows, :half + 1]
    return scipy.fft.irfft2(kspace, (matrix, matrix)) * np.float32((matrix / size) ** 2)


def support(image: np.ndarray, margin: float) -> np.ndarray:
    """A smooth indicator of the head and what lies near it, `[y, x]` float32 from 0 to 1.

    Args:
        image: magnitude `[y, x]` float32 with maximum 1.
        margin: how far it reaches beyond tissue, as a fraction of the field of view.
    """
    width = 2 * max(1, round(margin * len(image))) + 1
    tissue = ndimage.uniform_filter((image > AIR).astype(np.float32), width, mode="constant")
    near = np.minimum(tissue * np.float32(8), 1)
    return ndimage.uniform_filter(near, width, mode="nearest")


def change_contrast(rng: Generator, image: np.ndarray, head: np.ndarray,
                    options: Augmentation) -> np.ndarray:
    """An image of the same anatomy in another contrast, `[y, x]` float32 with maximum 1.

    Args:
        rng: numpy generator.
        image: magnitude `[y, x]` float32 with maximum 1.
        head: `[y, x]` float32, 1 inside the head and 0 outside.
        options: `gamma`, `curve`, `inverted` and `bias`.
    """
    levels = np.linspace(0, 1, 5)
    values = levels + rng.uniform(*options.curve) * rng.standard_normal(5) * (levels > 0)
    gamma = np.exp(rng.uniform(*np.log(options.gamma)))
    table = np.linspace(0, 1, 65)
    curve = np.abs(np.interp(table, levels, values)) ** gamma
    if rng.random() < options.inverted:
        image = head * (1 - image)
    image = np.interp(image, table, curve).astype(np.float32)
    bias = rng.uniform(*options.bias)
    image *= np.exp(np.float32(bias) * smooth_field(rng, image.shape, rng.uniform(0.3, 0.8)))
    return image / max(image.max(), 1e-6)


def draw_phase(rng: Generator, shape: tuple[int, int], amplitude: float) -> np.ndarray:
    """Unit phasors of a random phase: one for all, and one smooth on several scales.

    Args:
        rng: numpy generator.
        shape: `(y, x)`.
        amplitude: rms of the smooth phase in rad.

    Returns:
        `[y, x]` complex64.
    """
    weights = np.array(PHASE_SCALES) * rng.uniform(0, 1, len(PHASE_SCALES))
    field = np.zeros(shape, np.float32)
    for weight, scale in zip(weights, PHASE_SCALES, strict=True):
        field += np.float32(weight) * smooth_field(rng, shape, scale)
    field *= np.float32(amplitude / max(field.std(), 1e-6))
    field += np.float32(rng.uniform(0, 2 * np.pi))
    return phasors(field)


def phasors(angle: np.ndarray) -> np.ndarray:
    """`exp(i angle)`, complex64."""
    out = np.empty(angle.shape, np.complex64)
    out.real, out.imag = np.cos(angle), np.sin(angle)
    return out


def draw_maps(rng: Generator, shape: tuple[int, int], coils: int) -> np.ndarray:
    """Sensitivities of a random array: a perturbed birdcage, or patches anywhere.

    Args:
        rng: numpy generator.
        shape: `(y, x)`.
        coils: number of coils, at least 1; one alone is ideal.

    Returns:
        `[coil, y, x]` complex64 with `sum_c |S_c|^2 == 1` at every pixel.
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
    """A birdcage of long wires on an ellipse, each displaced at random; not normalized.

    As `simulate.birdcage_maps`, with wires of some thickness, so that they may come close.
    """
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
    """The sample padded with coils of zero sensitivity, so that all samples have one shape.

    Args:
        sample: `[coil, y, x]`.
        slots: number of coils then, at least as many as it has.
    """
    def padded(array: np.ndarray) -> np.ndarray:
        out = np.zeros((slots, *array.shape[1:]), array.dtype)
        out[:len(array)] = array
        return out

    return sample._replace(kspace=padded(sample.kspace), maps=padded(sample.maps))
