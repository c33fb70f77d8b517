"""Whether the accelerator computes what it should: relative l2 errors, by precision.

Operators against NumPy in float64 and convolutions against XLA's on the CPU in float64; CG and
whole methods against the CPU backend in float32.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_cases import build, compile_for, make_batch
from common import difference

from flatjax import mri
from flatjax.mri import sampling
from flatjax.mri.host import simulate
from flatjax.mri.linalg import conjugate_gradient
from flatjax.nets.conv import conv2d

WIDE = {np.dtype(np.float32): np.float64, np.dtype(np.complex64): np.complex128}


def widened(args):
    return jax.tree.map(lambda x: x.astype(WIDE[x.dtype]), args)


def build_precision(case, precision):
    return build(json.loads(case) | {"precision": precision})


def shifted(transform, array):
    """NumPy's transform between centered image and centered k-space."""
    axes = -2, -1
    return np.fft.fftshift(transform(np.fft.ifftshift(array, axes), norm="ortho"), axes)


def conv_gradient(convolve, x, kernel, grad):
    return jax.vjp(convolve, x, kernel)[1](grad)


def xla_conv(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME",
                                        dimension_numbers=("NHWC", "HWIO", "NHWC"))


def cg(kspace, mask, maps):
    """MoDL's system, eight iterations."""
    def normal(u):
        return u + 2 * mri.normal(u, mask, maps)

    right = mri.adjoint(kspace, mask, maps)
    return conjugate_gradient(normal, right, jnp.zeros_like(right), 8)


def operators(size, coils, channels):
    """`name -> (function, arguments, reference in float64)`."""
    batch = make_batch(2, coils, size)
    kspace, mask, maps, *_ = batch.measurement
    image = np.sum(np.conj(maps) * simulate.host_ifft2c(batch.kspace), 1)
    rng = np.random.default_rng(2)
    x, grad = (rng.standard_normal((2, size, size, channels), np.float32) for _ in range(2))
    kernel = rng.standard_normal((3, 3, channels, channels), np.float32)
    matrix = rng.standard_normal((size, size), np.float32)
    return {
        "fft2c": (mri.fft2c, (image,), lambda x: shifted(np.fft.fft2, x)),
        "ifft2c": (mri.ifft2c, (kspace,), lambda x: shifted(np.fft.ifft2, x)),
        "forward": (mri.forward, (image, mask, maps),
                    lambda x, m, s: m * shifted(np.fft.fft2, s * x[:, None])),
        "adjoint": (mri.adjoint, (kspace, mask, maps),
                    lambda k, m, s: np.sum(np.conj(s) * shifted(np.fft.ifft2, m * k), 1)),
        "normal": (mri.normal, (image, mask, maps), lambda x, m, s: np.sum(np.conj(s) * shifted(
            np.fft.ifft2, m * shifted(np.fft.fft2, s * x[:, None])), 1)),
        "matrix product": (jnp.matmul, (matrix, matrix), np.matmul),
        "convolution": (conv2d, (x, kernel), on_cpu_wide(xla_conv)),
        "convolution's gradient": (functools.partial(conv_gradient, conv2d), (x, kernel, grad),
                                   on_cpu_wide(functools.partial(conv_gradient, xla_conv))),
        "conjugate gradients": (cg, (kspace, mask, maps), on_cpu_wide(cg)),
    }


def on_cpu_wide(function):
    """The function on the CPU backend in float64, for numpy arrays."""
    def reference(*args):
        with jax.enable_x64(True):
            args = jax.device_put(args, jax.devices("cpu")[0])
            return jax.tree.map(np.asarray, jax.jit(function)(*args))
    return reference


def computed(function, args, precision, device):
    """The result as numpy arrays; the precision "float64" stands for arguments in float64."""
    if precision == "float64":
        with jax.enable_x64(True):
            args = jax.device_put(widened(args), device)
            return jax.tree.map(np.asarray, jax.jit(function)(*args))
    args = jax.device_put(args, device)
    return jax.tree.map(np.asarray, compile_for(function, args, precision).compiled(*args))


def conventions(size):
    """`name -> function`, the relative error of what has to be the same on host and device."""
    batch = make_batch(2, 3, size)
    mask = batch.measurement.mask
    image = np.sum(np.conj(batch.measurement.maps) * simulate.host_ifft2c(batch.kspace), 1)
    drawn = simulate.acquire(simulate.host_fft2c(batch.measurement.maps * image[:, None]), mask)
    # A slice of odd sides has its center at n // 2 as well.
    odd = np.pad(image, ((0, 0), (0, 1), (0, 3)))
    point = np.zeros((9, 11), np.complex64)
    point[4, 5] = 1
    return {
        "calibration box of masks": lambda: float(np.mean(
            np.asarray(jax.jit(sampling.calibration_mask)(mask))
            != sampling.calibration_mask(mask))),
        "measuring on host and device": lambda: difference(
            jax.jit(mri.forward)(image, mask, batch.measurement.maps), drawn),
        "transforms of odd sides": lambda: difference(jax.jit(mri.fft2c)(odd),
                                                      simulate.host_fft2c(odd)),
        "a point in the center": lambda: difference(jax.jit(mri.fft2c)(point),
                                                    np.full((9, 11), 99**-0.5))}


def correctness(bench, options):
    """Rows of errors; `bench` as in accelerator.py."""
    device, cpu = jax.devices()[0], jax.devices("cpu")[0]
    known = operators(options.check_size, 3, options.channels)
    tasks = []
    for name, (function, args, reference) in known.items():
        expected = bench.pool.submit(reference, *widened(args))
        physics = name in ("fft2c", "ifft2c", "forward", "adjoint", "normal")
        for precision in (("float32", "float64") if physics else ("float32", "tf32")):
            found = bench.pool.submit(computed, function, args, precision, device)
            tasks.append((name, precision, found, expected))
    for method, precisions in options.check_methods.items():
        case = {"method": method, "work": "both", "steps": options.check_steps,
                "channels": options.check_channels, "pools": options.check_pools,
                "size": options.check_size, "coils": 3, "batch": 2, "remat": False}
        built = functools.cache(build_precision)  # what is traced for one device serves the other

        def task(precision, device, case=case, built=built):
            return computed(*built(json.dumps(case), precision), precision, device)

        expected = bench.pool.submit(task, "float32", cpu)
        tasks += [(method, precision, bench.pool.submit(task, precision, device), expected)
                  for precision in precisions]
    for name, check in conventions(options.check_size).items():
        bench.add(lambda check=check: {"errors": {"result": check()}}, what=name)

    def compare(what, future, expected):
        found, wanted = bench.wait(future), bench.wait(expected)
        if what in known:
            return {"errors": {"result": difference(found, wanted)}}
        return {"errors": {name: difference(ours, theirs) for name, ours, theirs in
                           zip(("image", "loss", "gradient"), found, wanted, strict=True)}}

    bench.settle([found for _, _, found, _ in tasks])
    # those that are still being compiled come last
    for what, precision, future, expected in sorted(tasks, key=lambda task: not task[2].done()):
        bench.add(functools.partial(compare, what, future, expected), what=what,
                  precision=precision)

    def default():
        errors = {}
        for name in ("matrix product", "convolution"):
            function, args, reference = known[name]
            errors[name] = difference(jax.jit(function)(*args), reference(*widened(args)))
        return {"errors": errors, "products_in_TF32": any(e > 1e-5 for e in errors.values())}

    bench.add(default, what="default precision", precision="default")
