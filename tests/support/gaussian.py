"""A Gaussian prior on tiny k-space, for which everything that a network learns is known.

A law is CN(mean, covariance) of k-space flattened to `[n]`; `E |k|^2` of an entry is its variance.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flatjax.mri import Batch, Measurement, fft2c, ifft2c, intensity_scale

SHAPE = (4, 4)
SIZE = 16
SAMPLED = np.tile([True, False, True, False], 4)
MASK = SAMPLED.reshape(1, 1, *SHAPE).astype(np.float32)


def draw(rng, shape):
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / np.sqrt(2)


class Law(NamedTuple):
    mean: np.ndarray
    covariance: np.ndarray

    def scaled(self, factor):
        return Law(factor * self.mean, factor**2 * self.covariance)

    def samples(self, rng, count):
        root = np.linalg.cholesky(self.covariance + 1e-12 * np.eye(SIZE))
        kspace = self.mean + draw(rng, (count, SIZE)) @ root.T
        return kspace.reshape(count, 1, *SHAPE).astype(np.complex64)

    def unsampled(self):
        """Of the unsampled entries alone, the others being 0."""
        keep = ~SAMPLED
        return Law(keep * self.mean, keep[:, None] * self.covariance * keep)


def prior(seed=0, independent=False):
    rng = np.random.default_rng(seed)
    if independent:
        return Law(draw(rng, SIZE), np.diag(rng.uniform(0.3, 1.5, SIZE)).astype(complex))
    root = draw(rng, (SIZE, SIZE)) / np.sqrt(SIZE)
    return Law(draw(rng, SIZE), root @ root.conj().T + 0.05 * np.eye(SIZE))


def measure(law, seed=1):
    """Noise-free samples of one draw, `[1, 1, 4, 4]`, and the law of the rest given them."""
    y = np.where(SAMPLED, law.samples(np.random.default_rng(seed), 1).ravel(), 0)
    u, s = np.flatnonzero(~SAMPLED), np.flatnonzero(SAMPLED)
    gain = law.covariance[np.ix_(u, s)] @ np.linalg.inv(law.covariance[np.ix_(s, s)])
    mean, covariance = np.zeros(SIZE, complex), np.zeros((SIZE, SIZE), complex)
    mean[u] = law.mean[u] + gain @ (y[s] - law.mean[s])
    covariance[np.ix_(u, u)] = law.covariance[np.ix_(u, u)] - gain @ law.covariance[np.ix_(s, u)]
    return y.reshape(1, 1, *SHAPE).astype(np.complex64), Law(mean, covariance)


def measurement(y, count=1):
    return Measurement(jnp.asarray(np.repeat(y, count, 0)), jnp.asarray(np.repeat(MASK, count, 0)),
                       jnp.ones((count, 1, *SHAPE), jnp.complex64))


def scale(y):
    """By which methods divide these slices before all else."""
    return float(intensity_scale(measurement(y)).squeeze())


def batch(kspace, y):
    """Slices that share one measurement, and so one intensity scale."""
    return Batch(measurement(y, len(kspace)), jnp.asarray(kspace),
                 jnp.zeros((len(kspace), *SHAPE)))


def estimates(law, state, signal, spread):
    """E[k | state] and E[n | state] for `state = signal k + spread n`, k from the law."""
    values, vectors = np.linalg.eigh(law.covariance)
    values = jnp.asarray(np.maximum(values, 0), jnp.float32)
    vectors, mean = jnp.asarray(vectors, jnp.complex64), jnp.asarray(law.mean, jnp.complex64)
    signal, spread = (jnp.reshape(x, (-1, 1)) for x in (signal, spread))
    inside = (state.reshape(-1, SIZE) - signal * mean) @ vectors.conj()
    inside = inside / jnp.maximum(signal**2 * values + spread**2, 1e-12)
    end = mean + (signal * values * inside) @ vectors.T
    return end.reshape(state.shape), ((spread * inside) @ vectors.T).reshape(state.shape)


def exact(law, kind, state, alpha_bar):
    """The exact prediction of a variance-preserving `state` of k-space."""
    signal, spread = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
    end, noise = estimates(law, state, signal, spread)
    if kind == "noise":
        return noise
    signal, spread = (jnp.reshape(x, (-1,) + (1,) * (state.ndim - 1)) for x in (signal, spread))
    return signal * noise - spread * end


def remaining_error(law, kind, alpha_bar):
    """Mean squared error, per entry, of the exact prediction, over noise levels `[levels]`."""
    values = np.maximum(np.linalg.eigvalsh(law.covariance), 0)
    signal, spread = alpha_bar[:, None], 1 - alpha_bar[:, None]
    error = values / (signal * values + spread)
    return float(np.mean(error if kind == "velocity" else signal * error))


class Exact:
    """In place of a network: a closed form times a learnable gain. Counts its images."""

    def __init__(self, function):
        self.function, self.images = function, 0

    def init(self, rng, *images, t):
        return {"params": {"gain": jnp.ones(())}}

    def apply(self, variables, *images, t):
        jax.debug.callback(self._count, t)
        return variables["params"]["gain"] * self.function(*images, t)

    def _count(self, t):
        self.images += len(t)


def best_gain(method, batch_):
    """Where the loss is lowest as a function of the gain, and the loss at 1."""
    loss = jax.jit(lambda gain: method.loss({"net": {"gain": gain}}, jax.random.key(3), batch_)[0])
    low, middle, high = (float(loss(jnp.float32(gain))) for gain in (0.8, 1.0, 1.2))
    return 1 + 0.1 * (low - high) / (low - 2 * middle + high), middle


def assert_law(kspace, law, errors=5.0, where=None):
    """Samples `[count, ...]` of k-space have the law's mean, covariance and circularity.

    Within so many standard errors of each entry, and a little for float32.
    """
    flat = np.asarray(kspace).reshape(-1, SIZE).astype(complex)
    keep = np.ones(SIZE, bool) if where is None else where
    flat, mean = flat[:, keep], law.mean[keep]
    covariance = law.covariance[np.ix_(keep, keep)]
    deviation = np.sqrt(np.maximum(np.diag(covariance).real, 0))
    slack = errors / np.sqrt(len(flat))
    off = np.abs(flat.mean(0) - mean)
    assert (off <= slack * deviation + 1e-4).all(), off
    centered = flat - flat.mean(0)
    found = centered.T @ centered.conj() / len(flat)
    allowed = slack * np.outer(deviation, deviation) + 1e-4
    assert (np.abs(found - covariance) <= allowed).all(), (np.diag(found).real, deviation**2)
    assert (np.abs(centered.T @ centered / len(flat)) <= 1.5 * allowed).all()


def to_image(function):
    """A prediction on k-space `[batch, 1, 4, 4]` as one on images `[batch, 4, 4]`."""
    return lambda image, *rest: ifft2c(function(fft2c(image)[:, None], *rest))[:, 0]


def affine_law(steps, spread):
    """The law that maps `(matrix, offset, variance added)` give white noise of scale `spread`."""
    mean, covariance = np.zeros(SIZE, complex), spread**2 * np.eye(SIZE, dtype=complex)
    for matrix, offset, added in steps:
        mean = matrix @ mean + offset
        covariance = matrix @ covariance @ matrix.conj().T + added
    return Law(mean, covariance)


def exact_velocity(law, tau):
    """`E[k_1 - k_0 | k_t]` of the unsampled k-space, the law being that of k_0 there."""
    def velocity(rest, t):
        end, noise = estimates(law, rest, 1 - t, tau * t)
        return tau * noise - end
    return velocity


def in_place_of_the_network(law, scale, tau):
    velocity = exact_velocity(law.scaled(1 / scale), tau)
    return Exact(lambda image, zero_filled, t: to_image(velocity)(image - zero_filled, t[:, None]))
