"""Writes the golden arrays that the tests compare against, from other people's packages.

Run by hand, in an environment that has what the chosen file needs; the tests only read the
results, so that neither torch nor fastmri nor sigpy is a test dependency:

    pip install torch h5py runstats scikit-image pyyaml && pip install --no-deps fastmri==0.3.0
    pip install sigpy==0.1.27 PyWavelets                 # for sigpy_wavelet, sigpy_espirit
    python tests/golden/make_golden.py [name ...]        # no name: every file

One function per file, listed in FILES. The inputs are made by functions of this module that need
numpy alone, so the tests call them for the same numbers.
"""

import importlib
import pathlib
import sys
import types

import numpy as np

FOLDER = pathlib.Path(__file__).parent

MASK_CLASSES = {
    "random": "RandomMaskFunc",
    "equispaced": "EquiSpacedMaskFunc",
    "equispaced_fraction": "EquispacedMaskFractionFunc",
    "magic": "MagicMaskFunc",
}
MASK_WIDTHS = (33, 128, 185, 320, 368, 372, 401)
MASK_SETTINGS = ((4, 0.08), (8, 0.04), (12, 0.03))  # (acceleration, center_fraction)
MASK_SEEDS = (0, 1, 7, 2026, (3, 0, 5), tuple(map(ord, "file1000000.h5")))

# name: (slices, height, width), the width to which both volumes are cropped
VOLUMES = {
    "even": ((4, 40, 40), 40),
    "tall": ((3, 57, 32), 32),
    "odd": ((2, 45, 31), 31),
    "one_slice": ((1, 24, 24), 24),
}


def volumes(name):
    """A blob on a rough background and a noisy copy, two `VOLUMES[name]` float64 arrays >= 0."""
    shape, _ = VOLUMES[name]
    rng = np.random.RandomState(sorted(VOLUMES).index(name))
    z, y, x = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in shape)
    blob = 1 / (1 + 4 * (z[:, None, None] ** 2 + y[:, None] ** 2 + x**2))
    target = 350 * (blob + 0.2 * rng.random_sample(shape))
    pred = np.abs(1.05 * target + 60 * (rng.random_sample(shape) - 0.5))
    return target, pred


def load(name):
    """Imports a module of fastmri without the package's data readers.

    fastmri.data's __init__ pulls in pandas, and others torchvision, for readers not used here.
    """
    import fastmri

    if "fastmri.data" not in sys.modules:
        package = types.ModuleType("fastmri.data")
        package.__path__ = [str(pathlib.Path(fastmri.__file__).parent / "data")]
        sys.modules["fastmri.data"] = package
    return importlib.import_module(name)


def fastmri_mask(kind, width, acceleration, center_fraction, seed):
    """The mask of fastmri's own class for a kind, `[width]` uint8."""
    draw = getattr(load("fastmri.data.subsample"), MASK_CLASSES[kind])
    mask, _ = draw([center_fraction], [acceleration])((1, width, 2), seed=seed)
    return mask.numpy().reshape(width).astype(np.uint8)


def fastmri_scores(name, peak=None):
    """nmse, psnr and ssim by fastmri's evaluate.py after its crop, `[3]` float64."""
    scores = load("fastmri.evaluate")
    crop = load("fastmri.data.transforms").center_crop
    _, width = VOLUMES[name]
    target, pred = (crop(volume, (width, width)) for volume in volumes(name))
    return np.array(
        [
            float(scores.nmse(target, pred)),
            float(scores.psnr(target, pred, peak)),
            float(np.squeeze(scores.ssim(target, pred, peak))),
        ]
    )


def fastmri_masks():
    """`kind_width` -> `[settings, seeds, width]` uint8, over MASK_SETTINGS and MASK_SEEDS."""
    return {
        f"{kind}_{width}": np.array(
            [
                [fastmri_mask(kind, width, *setting, seed) for seed in MASK_SEEDS]
                for setting in MASK_SETTINGS
            ]
        )
        for kind in MASK_CLASSES
        for width in MASK_WIDTHS
    }


def fastmri_metrics():
    """`name` and `name_peak` (data range 500) -> [nmse, psnr, ssim]; `name_sum`: of the inputs."""
    arrays = {}
    for name in VOLUMES:
        arrays[name] = fastmri_scores(name)
        arrays[f"{name}_peak"] = fastmri_scores(name, 500.0)
        arrays[f"{name}_sum"] = np.array([volume.sum() for volume in volumes(name)])
    return arrays


def complex_image(shape):
    """A random complex image of a size that no power of two divides, `shape` complex64."""
    rng = np.random.RandomState(3)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(np.complex64)


def fastmri_norm_unet():
    """A small NormUnet: its weights by name, and its output for `complex_image((2, 37, 50))`."""
    import torch

    torch.manual_seed(0)
    net = load("fastmri.models.varnet").NormUnet(chans=3, num_pools=2).eval()
    image = complex_image((2, 37, 50))
    channels = torch.view_as_real(torch.from_numpy(image))[:, None]
    with torch.no_grad():
        output = torch.view_as_complex(net(channels)[:, 0].contiguous()).numpy()
    return {name: tensor.numpy() for name, tensor in net.state_dict().items()} | {"output": output}


VARNET_COILS = {"single": 1, "multi": 3}


def varnet_problem(name):
    """k-space, mask and sensitivities for `VARNET_COILS[name]` coils, in a scanner's tiny unit.

    `[2, coil, 17, 18]` complex64, `[2, 1, 1, 18]` bool and `[2, coil, 17, 18]` complex64; the
    k-space is zero where the mask is.
    """
    shape = (2, VARNET_COILS[name], 17, 18)
    rng = np.random.RandomState(4)
    kspace, maps = (
        rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for _ in range(2)
    )
    if name == "single":
        maps = np.ones(shape)
    maps = maps / np.sqrt((np.abs(maps) ** 2).sum(axis=1, keepdims=True))
    mask = rng.random_sample((2, 1, 1, 18)) < 0.5
    return (1e-5 * mask * kspace).astype(np.complex64), mask, maps.astype(np.complex64)


def fastmri_varnet():
    """A small VarNet's cascades: weights by name, and `VARNET_COILS` -> k-space after each.

    The states are `[3, 2, coil, 17, 18]` complex64. The network for the sensitivities is left
    out, since they are given.
    """
    import torch

    def real(array):
        return torch.view_as_real(torch.from_numpy(array))

    torch.manual_seed(0)
    net = load("fastmri.models.varnet").VarNet(num_cascades=3, chans=2, pools=2).eval()
    arrays = {}
    with torch.no_grad():
        for cascade, weight in zip(net.cascades, (0.9, 0.4, 1.3), strict=True):
            cascade.dc_weight.fill_(weight)
        for name in VARNET_COILS:
            kspace, mask, maps = varnet_problem(name)
            measured = state = real(kspace)
            states = []
            for cascade in net.cascades:
                state = cascade(state, measured, torch.from_numpy(mask)[..., None], real(maps))
                states.append(torch.view_as_complex(state.contiguous()).numpy())
            arrays[name] = np.stack(states)
    weights = net.cascades.state_dict(prefix="cascades.")
    return {name: tensor.numpy() for name, tensor in weights.items()} | arrays


WAVELET_SHAPES = ((32, 48), (16, 40))
SPARSE_COILS = {"single": 1, "multi": 3}
SPARSE_LAM = 0.01


def sparse_problem(name):
    """An image, k-space and mask of it, and sensitivities for `SPARSE_COILS[name]` coils.

    `[32, 48]` complex64 with maximum magnitude near 1, `[coil, 32, 48]` complex64, `[1, 48]`
    float32 and `[coil, 32, 48]` complex64; the k-space is zero where the mask is.
    """
    coils, shape = SPARSE_COILS[name], (32, 48)
    rng = np.random.RandomState(5)
    y, x = (np.linspace(-1, 1, n) for n in shape)
    image = sum(a * ((y[:, None] - b) ** 2 + (x - c) ** 2 < d) * np.exp(1j * c)
                for a, b, c, d in ((0.5, 0, 0, 0.7), (0.3, -0.2, 0.3, 0.1), (0.2, 0.3, -0.2, 0.05)))
    mask = ((rng.random_sample((1, 48)) < 0.4) | (np.abs(x) < 0.15)).astype(np.float32)
    angles = 2 * np.pi * np.arange(coils) / coils
    maps = np.stack([np.exp(-(y[:, None] - np.cos(a)) ** 2 - (x - np.sin(a)) ** 2 + 1j * a * x)
                     for a in angles])
    maps = np.ones((1, *shape)) if coils == 1 else maps / np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    axes = (-2, -1)
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(maps * image, axes), norm="ortho"), axes)
    return (image.astype(np.complex64), (mask * kspace).astype(np.complex64), mask,
            maps.astype(np.complex64))


def sigpy_wavelet():
    """l1-wavelet reconstructions by sigpy, and coefficients by PyWavelets (0.1.27 and 1.9.0).

    `SPARSE_COILS` -> image `[32, 48]` after 40 iterations of sigpy's FISTA with the wrapped-around
    wavelets of PyWavelets; `name_app` -> that of its L1WaveletRecon, whose wavelets are padded.
    `coefficients_y_x` -> of `complex_image((y, x))` in three levels.
    """
    import pywt
    import sigpy
    import sigpy.mri

    def analysis(image):
        return pywt.coeffs_to_array(pywt.wavedec2(image, "db4", "periodization", 3))

    class Wavelet(sigpy.linop.Linop):
        def __init__(self, shape):
            super().__init__(shape, shape)

        def _apply(self, image):
            return analysis(image)[0]

        def _adjoint_linop(self):
            return Inverse(self.ishape)

    class Inverse(Wavelet):
        def _apply(self, coefficients):
            places = analysis(np.zeros(self.ishape))[1]
            parts = pywt.array_to_coeffs(coefficients, places, "wavedec2")
            return pywt.waverec2(parts, "db4", "periodization")

        def _adjoint_linop(self):
            return Wavelet(self.ishape)

    arrays = {f"coefficients_{y}_{x}": analysis(complex_image((y, x)))[0]
              for y, x in WAVELET_SHAPES}
    for name in SPARSE_COILS:
        image, kspace, mask, maps = sparse_problem(name)
        weights = np.broadcast_to(mask, kspace.shape)
        sense = sigpy.mri.linop.Sense(maps, weights=weights)
        wavelet = Wavelet(image.shape)
        sparser = sigpy.prox.UnitaryTransform(sigpy.prox.L1Reg(image.shape, SPARSE_LAM), wavelet)
        arrays[name] = sigpy.app.LinearLeastSquares(
            sense, kspace, x=sense.H(kspace), proxg=sparser, alpha=1, max_iter=40,
            show_pbar=False).run()
        arrays[f"{name}_app"] = sigpy.mri.app.L1WaveletRecon(
            kspace, maps, SPARSE_LAM, weights=weights, max_iter=40, show_pbar=False).run()
    return {key: array.astype(np.complex64) for key, array in arrays.items()}


ESPIRIT = {"calib_width": 16, "kernel_width": 5, "thresh": 0.03}


def coils_problem():
    """Noisy k-space of an elliptic object with a phase in five coils, `[5, 40, 44]` complex64."""
    rng = np.random.RandomState(5)
    y, x = np.linspace(-1, 1, 40)[:, None], np.linspace(-1, 1, 44)
    image = 1 / (1 + np.exp(40 * ((y / 0.7) ** 2 + (x / 0.6) ** 2 - 1)))
    image = image * (1 + 0.4 * np.cos(9 * y) * np.sin(7 * x)) * np.exp(1j * (y - x**2))
    angle = 2 * np.pi * np.arange(5)[:, None, None] / 5
    away = np.hypot(y - 1.3 * np.sin(angle), x - 1.3 * np.cos(angle))
    coils = np.exp(2j * (y * np.cos(angle) + x * np.sin(angle))) / away**2
    axes = (-2, -1)
    shifted = np.fft.ifftshift(coils * image, axes=axes)
    kspace = np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=axes)
    noise = rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)
    return (kspace + 0.002 * noise).astype(np.complex64)


def sigpy_espirit():
    """`maps` `[5, 40, 44]` and `eigenvalue` `[40, 44]` by sigpy for `coils_problem`, uncropped."""
    from sigpy.mri import app

    calibrate = app.EspiritCalib(coils_problem(), crop=0, output_eigenvalue=True,
                                 show_pbar=False, **ESPIRIT)
    maps, eigenvalue = calibrate.run()
    return {"maps": maps, "eigenvalue": np.abs(eigenvalue).reshape(maps.shape[1:])}


def sensitivity_problem():
    """k-space and a mask whose columns 6 to 11 are the sampled center, in a scanner's tiny unit.

    `[2, 3, 17, 18]` complex64 and `[2, 1, 1, 18]` bool; the k-space is zero where the mask is.
    """
    kspace, mask, _ = varnet_problem("multi")
    rng = np.random.RandomState(6)
    kspace = rng.standard_normal(kspace.shape) + 1j * rng.standard_normal(kspace.shape)
    mask[...] = rng.random_sample(mask.shape) < 0.5
    mask[..., 5:13] = [False] + 6 * [True] + [False]
    return (1e-5 * mask * kspace).astype(np.complex64), mask


def fastmri_sensitivities():
    """A small whole VarNet: weights by name, its maps and image for `sensitivity_problem`.

    `maps` `[2, 3, 17, 18]` complex64, `image` `[2, 17, 18]` float32.
    """
    import torch

    torch.manual_seed(1)
    net = load("fastmri.models.varnet").VarNet(num_cascades=2, sens_chans=2, sens_pools=2, chans=2,
                                               pools=2).eval()
    kspace, mask = sensitivity_problem()
    masked, mask = torch.view_as_real(torch.from_numpy(kspace)), torch.from_numpy(mask)[..., None]
    with torch.no_grad():
        maps = torch.view_as_complex(net.sens_net(masked, mask).contiguous()).numpy()
        image = net(masked, mask).numpy()
    weights = net.state_dict()
    return {name: tensor.numpy() for name, tensor in weights.items()} | {
        "maps": maps, "image": image}


FILES = {
    "fastmri_masks": fastmri_masks,
    "fastmri_metrics": fastmri_metrics,
    "fastmri_norm_unet": fastmri_norm_unet,
    "fastmri_sensitivities": fastmri_sensitivities,
    "fastmri_varnet": fastmri_varnet,
    "sigpy_wavelet": sigpy_wavelet,
    "sigpy_espirit": sigpy_espirit,
}


def main(names):
    unknown = sorted(set(names) - set(FILES))
    if unknown:
        sys.exit(f"unknown golden file {', '.join(unknown)}; choose from {', '.join(FILES)}")
    for name in names or FILES:
        path = FOLDER / f"{name}.npz"
        np.savez_compressed(path, **FILES[name]())
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
