"""FLAT: an unrolled network trained as the Euler discretisation of a conditional flow.

Qi et al., "Unrolled Networks are Conditional Probability Flows in MRI Reconstruction"
(arXiv 2512.03020). One cascade is one step of

    dx/dt = A^H (A x - y) / sigma^2 + v(x, t)

from t = 1 (measured, zero-filled) to t = 0 (fully sampled). The paper's state is k-space, with the
mask for A, and its steps are explicit. With several coils the state is better an image, and the
data term is better taken implicitly: `space="image", solver="imex"`, our extension. The same code
is the vanilla unrolled network when its step sizes are learned freely and its path is not aligned.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from flatjax import losses
from flatjax.errors import InputError
from flatjax.flow import path
from flatjax.flow.scan import Record, identity
from flatjax.flow.schedule import check_stable, time_grid
from flatjax.flow.solvers import SOLVERS, SplitField
from flatjax.flow.space import StateSpace, image_space, kspace_space
from flatjax.methods.base import Method, Params
from flatjax.methods.common import (
    ADAPTIVE,
    DTYPES,
    WEIGHTS,
    Rolled,
    apply_network,
    check_at_least,
    check_choice,
    end_terms,
    init_network,
    integrator,
    normalise,
    project,
    reconstructor,
    with_sensitivities,
)
from flatjax.mri import COMBINES, Batch, Measurement, noise_level
from flatjax.nets.norm_unet import NormUNet
from flatjax.nets.unet import check_time_channels

PARAMETERISATIONS = ("velocity", "endpoint")
TIMESTEPS = ("schedule", "learned")
STEP_SIZES = ("derived", "free")
DOMAINS = ("image", "kspace")
SPACES = ("kspace", "image")
SIGMAS = ("fixed", "learned", "noise")
IMEX = "imex"
_IMEX_SIGMA = 0.1
_REFERENCE_NOISE = 0.01  # at which the sigma of kind "noise" is the one that the config gives
_NOISE_RANGE = (1e-4, 0.3)


def make(*, steps: int = 12, alpha: float = 0.0, times: tuple[float, ...] = (),
         space: str = "kspace", cg_iterations: int = 6, sigma: float | None = None,
         sigma_kind: str = "fixed", noise_jitter: float = 2.0, noise_factor: float = 1.0,
         solver: str = "euler", tolerance: float = 1e-3,
         parameterisation: str = "velocity", weights: str = "per_cascade",
         timesteps: str = "schedule", step_sizes: str = "derived", projection: bool = False,
         combine: str = "sense", sensitivities: str = "given", sens_channels: int = 8,
         sens_pools: int = 4, channels: int = 18, pools: int = 4, time_channels: int = 32,
         zero_init: bool = True, dtype: str = "float32", remat: bool = False, w_ssim: float = 1.0,
         w_l1: float = 1.0, w_kspace: float = 1.0, w_velocity: float = 0.1,
         alignment_domain: str = "image", alignment_average: str = "mean") -> Method:
    """FLAT as a `Method`.

    Args:
        steps: K, number of cascades.
        alpha: of the schedule `t_j = (1 - j/K)^(1 + alpha)`; 0 is uniform.
        times: `t_0, ..., t_K` themselves, in place of the schedule's; empty for those.
        space: the state, multi-coil "kspace", or one "image" for any number of coils.
        cg_iterations: conjugate-gradient steps of each implicit data term in image space.
        sigma: measurement-noise scale of the likelihood, on the scale of an image with maximum 1;
            by default `K^-0.5`, at which the mean data-consistency step eta is 1, and 0.1 with the
            solver "imex".
        sigma_kind: "fixed"; "learned" for each step, from `sigma`; or learned as a power of the
            measurement's own "noise", `sigma_j (noise / 0.01)^p_j` from p = 1/2, where the network
            is told the noise, too. A noise that is not known is `mri.noise_level`. The last two
            belong to the solver "imex".
        noise_jitter: in training the noise told is wrong by a random factor up to this.
        noise_factor: multiplies the noise told: above 1 the data are trusted less, below more.
        solver: name in `flow.SOLVERS`, of which "imex" takes the data term implicitly and is
            stable for any sigma; or "adaptive", for reconstruction alone and with shared
            weights on a schedule, which takes as many steps as the tolerance asks for and
            interpolates its trajectory at the times.
        tolerance: of adaptive steps, relative and absolute, on the scale of an image with
            maximum 1.
        parameterisation: what the network predicts: the "velocity" `v = E net`, or the
            "endpoint" `E (E^H k + net)` of the path, with `v = (k - endpoint) / t`.
        weights: "per_cascade" networks, or one "shared" by all and told the time.
        timesteps: delta_j from the "schedule", or "learned" without constraint; they are the
            refinement's step sizes, `lambda_j = -delta_j`.
        step_sizes: eta_j of data consistency "derived" from them, `-delta_j / sigma^2`, or "free":
            learned. Both learned are the vanilla unrolled network.
        projection: put the measured samples back into the result.
        combine: how coils are combined for the image, "sense" or "rss".
        sensitivities: the coil maps "given" with the measurement, or "learned" by a network of
            their own from the centre of k-space, as in E2E-VarNet.
        sens_channels, sens_pools: of that network.
        channels, pools, time_channels: of the U-Net.
        zero_init: start with networks that give zero, or with random last layers.
        dtype: of the network's computation, "float32" or "bfloat16"; the physics is complex64.
        remat: recompute each cascade in the backward pass: memory hardly grows with K.
        w_ssim, w_l1, w_kspace, w_velocity: weights of `1 - SSIM` and L1 on the final magnitude
            image, L1 on the final k-space, and the velocity alignment; 0 leaves a term out.
        alignment_domain: align in "image" or in "kspace".
        alignment_average: "mean" over the steps or time "integral"; see `losses.alignment`.

    Raises:
        InputError: for a value out of range, or timesteps beyond Euler's stability.
    """
    check_choice("parameterisation", parameterisation, PARAMETERISATIONS)
    check_choice("space", space, SPACES)
    check_choice("sigma_kind", sigma_kind, SIGMAS)
    check_choice("weights", weights, WEIGHTS)
    check_choice("timesteps", timesteps, TIMESTEPS)
    check_choice("step_sizes", step_sizes, STEP_SIZES)
    check_choice("alignment_domain", alignment_domain, DOMAINS)
    check_choice("alignment_average", alignment_average, losses.ALIGNMENT_MEANS)
    check_choice("combine", combine, COMBINES)
    check_choice("dtype", dtype, DTYPES)
    check_at_least(1, channels=channels, noise_jitter=noise_jitter)
    check_at_least(0, pools=pools, w_ssim=w_ssim, w_l1=w_l1, w_kspace=w_kspace,
                   w_velocity=w_velocity)
    check_time_channels(time_channels)
    if weights == "shared" and not time_channels:
        raise InputError("time_channels is 0, expected above 0 with shared weights: only the "
                         "time tells one step from another")
    if step_sizes == "free" and solver != "euler":
        raise InputError(f"solver is {solver!r}, expected euler with free step sizes: they belong "
                         "to a first-order update")
    if sigma_kind != "fixed" and solver != IMEX:
        raise InputError(f"sigma_kind is {sigma_kind!r} with the solver {solver!r}, expected the "
                         "solver 'imex': explicit steps are unstable where sigma becomes small")
    if sigma_kind == "noise" and not time_channels:
        raise InputError("time_channels is 0, expected above 0 with sigma_kind 'noise': the "
                         "network is told the noise by the same embedding")
    if not noise_factor > 0:
        raise InputError(f"noise_factor is {noise_factor}, expected above 0")
    if space == "image" and alignment_domain == "kspace":
        raise InputError("alignment_domain is 'kspace', expected 'image' where the state is one")
    adaptive = solver == ADAPTIVE
    if adaptive and (weights, timesteps, step_sizes) != ("shared", "schedule", "derived"):
        raise InputError("solver is 'adaptive', expected a fixed one unless weights are shared, "
                         "timesteps a schedule and step sizes derived: it takes steps of its own, "
                         "and what was learned one per step does not belong to them")
    integrate = integrator(solver, tolerance=tolerance, remat=remat)
    grid = time_grid(steps, alpha if timesteps == "schedule" else 0.0, times).astype(np.float32)
    delta = np.diff(grid)
    scale: float = (_IMEX_SIGMA if solver == IMEX else steps**-0.5) if sigma is None else sigma
    check_stable(delta, scale, np.inf if adaptive else SOLVERS[solver].stability)
    if parameterisation == "endpoint" and (adaptive or SOLVERS[solver].nodes[-1] == 1):
        raise InputError(f"solver {solver!r} evaluates the velocity at t = 0, where the endpoint "
                         "parameterisation divides by t; use euler, midpoint, ralston, ab2, bs3, "
                         "imex or the velocity form")
    net = NormUNet(channels=channels, pools=pools, time_channels=time_channels,
                   zero_init=zero_init, dtype=DTYPES[dtype])
    loss_weights = {"ssim": w_ssim, "l1": w_l1, "kspace": w_kspace, "velocity": w_velocity}
    losses.check_weights(loss_weights)
    states_of: StateSpace = image_space(cg_iterations) if space == "image" else kspace_space()
    told = sigma_kind == "noise"

    def init(rng: Array, batch: Batch) -> Params:
        params = {"net": init_network(net, rng, batch, None if weights == "shared" else steps,
                                      **({"noise": jnp.ones(1)} if told else {}))}
        if step_sizes == "free":  # started as E2E-VarNet starts its own
            params |= {"eta": jnp.ones(steps)}
        if timesteps == "learned":
            params |= ({"lam": jnp.ones(steps)} if step_sizes == "free" else
                       {"delta": jnp.asarray(delta)})
        if sigma_kind != "fixed":
            params |= {"log_sigma": jnp.full(steps, np.log(scale), jnp.float32)}
        if told:
            params |= {"noise_power": jnp.full(steps, 0.5)}
        return params

    def coefficients(params: Params, noise: Array | None) -> tuple[ArrayLike, ArrayLike]:
        """Factors of the data term and the velocity in the field, `[steps]` or for all time.

        That of the data term is `[steps, batch]` where it follows the noise.
        """
        if adaptive:
            return 1 / scale**2, 1.0
        lam = -params["delta"] if "delta" in params else params.get("lam", -delta)
        if sigma_kind == "fixed":
            eta = params.get("eta", lam / scale**2)
            return eta / -delta, lam / -delta
        log_sigma = params["log_sigma"]
        if noise is not None:
            decades = jnp.log(noise / _REFERENCE_NOISE)
            log_sigma = log_sigma[:, None] + params["noise_power"][:, None] * decades
        return jnp.exp(-2 * log_sigma), lam / -delta

    def velocity(weights_: Params, state: Array, t: Array, measured: Measurement,
                 noise: Array | None) -> Array:
        image = states_of.image(state, measured.maps)
        predicted = apply_network(net, weights_, image, t=jnp.broadcast_to(t, state.shape[:1]),
                                  **({} if noise is None else {"noise": noise}))
        if parameterisation == "velocity":
            return states_of.lift(predicted, measured.maps)
        return (state - states_of.lift(image + predicted, measured.maps)) / t

    def told_noise(measured: Measurement) -> Array | None:
        if not told:
            return None
        known = measured.noise
        if known is None:
            known = noise_level(measured.kspace, measured.mask)
        return jnp.clip(noise_factor * known, *_NOISE_RANGE)

    def integrated(params: Params, measured: Measurement, trajectory: bool | int,
                   record: Record = identity) -> tuple[Array, Any, int | Array]:
        noise = told_noise(measured)
        data = states_of.data_consistency(measured)

        def smooth(state: Array, t: Array, step_args: tuple[Array, Array, Params]) -> Array:
            _, velocity_factor, own = step_args
            net_params = params["net"] if weights == "shared" else own
            return velocity_factor * velocity(net_params, state, t, measured, noise)

        def stiff(state: Array, step_args: tuple[Array, Array, Params]) -> Array:
            return step_args[0] * data.gradient(state)

        def resolvent(state: Array, delta: Array, step_args: tuple[Array, Array, Params]) -> Array:
            return data.proximal(state, -delta * step_args[0])

        own = None if weights == "shared" else params["net"]
        return integrate(SplitField(smooth, stiff, resolvent), states_of.start(measured), grid,
                         (*coefficients(params, noise), own), trajectory=trajectory, record=record)

    def rollout(params: Params, measured: Measurement, trajectory: bool | int) -> Rolled:
        to_kspace = partial(states_of.kspace, maps=measured.maps)
        final, states, nfe = integrated(params, measured, trajectory, to_kspace)
        final = to_kspace(final) if states is None else states[-1]
        if projection:
            final = project(final, measured)
            states = states if states is None else states.at[-1].set(final)
        return final, states, nfe

    def aligned(states: Array, batch: Batch) -> Array:
        maps = batch.measurement.maps
        ends = states_of.start(batch.measurement), states_of.end(batch.kspace, maps)
        ideal = path.interpolate(*ends, grid[1:].reshape(-1, *[1] * ends[0].ndim))
        if alignment_domain == "image":
            states, ideal = states_of.image(states, maps), states_of.image(ideal, maps)
        return losses.alignment(states, ideal, delta, average=alignment_average)

    def loss(params: Params, rng: Array, batch: Batch) -> tuple[Array, dict[str, Array]]:
        if adaptive:
            raise InputError("solver is 'adaptive', expected a fixed one for training: a loop of "
                             "unknown length has no gradient in reverse mode")
        batch = normalise(batch)
        measured = batch.measurement
        noise = told_noise(measured)
        if noise is not None:
            wrong = jax.random.uniform(rng, noise.shape, minval=-1.0)
            measured = measured._replace(noise=noise * noise_jitter**wrong)
        final, kept, _ = integrated(params, measured, w_velocity > 0)
        states: Any = kept  # not None where its term is computed
        final = states_of.kspace(final, measured.maps)
        if projection:
            final = project(final, measured)
        terms = end_terms(final, batch, combine) | {
            "velocity": lambda: aligned(states[1:], batch)}
        return losses.total_loss(loss_weights, terms)

    method = Method(init, loss, reconstructor(rollout, combine=combine, steps=steps,
                                              times=jnp.asarray(grid)))
    return with_sensitivities(method, sensitivities, sens_channels, sens_pools)
