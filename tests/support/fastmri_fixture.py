"""Writes small files like fastMRI's, their references made of the k-space by plain numpy."""

from pathlib import Path

import h5py
import numpy as np

from tests.support.arrays import smooth_image

SCALE = 1e-4  # fastMRI's images are about this bright
NAMES = {"singlecoil": "reconstruction_esc", "multicoil": "reconstruction_rss"}

_HEADER = """<?xml version="1.0" encoding="utf-8"?>{prologue}
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"
    xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
    xsi:schemaLocation="http://www.ismrm.org/ISMRMRD ismrmrd.xsd">
  <experimentalConditions><H1resonanceFrequency_Hz>63642459</H1resonanceFrequency_Hz>
  </experimentalConditions>
  <encoding>
    <encodedSpace>
      <matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>280</x><y>162.4</y><z>4.5</z></fieldOfView_mm>
    </encodedSpace>
    <reconSpace>
      <matrixSize><x>{recon[0]}</x><y>{recon[1]}</y><z>1</z></matrixSize>
      <fieldOfView_mm><x>140</x><y>140</y><z>4.5</z></fieldOfView_mm>
    </reconSpace>
    <trajectory>cartesian</trajectory>
    <encodingLimits>
      <kspace_encoding_step_0><minimum>0</minimum><maximum>7</maximum><center>3</center>
      </kspace_encoding_step_0>
      <kspace_encoding_step_1>
        <minimum>0</minimum><maximum>{maximum}</maximum><center>{center}</center>
      </kspace_encoding_step_1>
      <kspace_encoding_step_2><minimum>0</minimum><maximum>0</maximum><center>0</center>
      </kspace_encoding_step_2>
    </encodingLimits>
  </encoding>
  <encoding>
    <encodedSpace><matrixSize><x>1</x><y>1</y><z>1</z></matrixSize></encodedSpace>
  </encoding>
</ismrmrdHeader>
"""


def header_xml(shape, recon, padding, prologue=""):
    """The header of k-space `shape` whose columns `padding[0] <= kx < padding[1]` were measured."""
    return _HEADER.format(
        rows=shape[0], columns=shape[1], recon=recon, center=shape[1] // 2 - padding[0],
        maximum=padding[1] - padding[0] - 1, prologue=prologue).encode()


def fft2c(image):
    shifted = np.fft.ifftshift(image, axes=(-2, -1))
    return np.fft.fftshift(np.fft.fft2(shifted, norm="ortho"), axes=(-2, -1))


def ifft2c(kspace):
    shifted = np.fft.ifftshift(kspace, axes=(-2, -1))
    return np.fft.fftshift(np.fft.ifft2(shifted, norm="ortho"), axes=(-2, -1))


def reference(kspace, crop):
    """The cropped magnitude of `[slice, (coil,) ky, kx]`, over coils by root sum of squares."""
    magnitude = np.abs(ifft2c(kspace.astype(np.complex128)))
    if kspace.ndim == 4:
        magnitude = np.sqrt((magnitude**2).sum(axis=1))
    top, left = ((n - m) // 2 for n, m in zip(magnitude.shape[1:], crop, strict=True))
    return magnitude[:, top:top + crop[0], left:left + crop[1]].astype(np.float32)


def make_kspace(seed, slices, coils, shape, padding):
    """`[slice, (coil,) ky, kx]` complex64 of lop-sided blobs; no coil axis for `coils == 0`."""
    rng = np.random.default_rng(seed)
    y, x = np.linspace(-1, 1, shape[0])[:, None], np.linspace(-1, 1, shape[1])
    inside = (y - 0.1) ** 2 + (x + 0.1) ** 2 < 0.6
    images = np.stack([inside * (0.3 + smooth_image(rng, shape)) for _ in range(slices)])
    if coils:
        at = 1.4 * np.exp(2j * np.pi * np.arange(coils) / coils)[:, None, None]
        coil = np.exp(1j * np.angle(at)) / (0.3 + np.abs(x + 1j * y - at) ** 2)
        images = images[:, None] * coil
    kspace = SCALE * fft2c(images)
    kspace[..., :padding[0]] = 0
    kspace[..., padding[1]:] = 0
    return kspace.astype(np.complex64)


def write(file, *, seed=0, slices=3, coils=0, shape=(40, 36), crop=(24, 24), padding=None,
          recon=None, mask=None, apply_mask=True, with_reference=True, acquisition="CORPD_FBK",
          attributes=True, **datasets):
    """Write one file.

    Args:
        file: its path.
        seed, slices, coils, shape: of the k-space, `coils == 0` for a single-coil file.
        crop: of the reference; it may be larger than the image, as in fastMRI's narrow scans.
        padding: the acquired columns, all by default.
        recon: the header's recon matrix size, `crop` by default.
        mask: `[kx]`, the file's own.
        apply_mask: whether it is applied to the k-space.
        with_reference, attributes: whether there are any.
        acquisition: an attribute.
        **datasets: arrays instead of those described, or None for none.
    """
    padding = padding or (0, shape[1])
    kspace = make_kspace(seed, slices, coils, shape, padding)
    inner = tuple(min(n, m) for n, m in zip(crop, shape, strict=True))
    outside = [(0, 0)] + [((m - n) // 2, m - n - (m - n) // 2)
                          for n, m in zip(inner, crop, strict=True)]
    image = np.pad(reference(kspace, inner), outside)
    content = {"kspace": kspace, "ismrmrd_header": header_xml(shape, recon or crop, padding)}
    if with_reference:
        content["reconstruction_rss" if coils else "reconstruction_esc"] = image
        if not coils:  # fastMRI's single-coil files show all coils as well
            content["reconstruction_rss"] = 1.5 * image
    if mask is not None:
        content["mask"] = np.asarray(mask, np.float32)
        content["kspace"] = kspace * content["mask"] if apply_mask else kspace
    content |= datasets
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(file, "w") as opened:
        for name, value in content.items():
            if value is not None:
                opened.create_dataset(name, data=value)
        if attributes:
            opened.attrs.update({"acquisition": acquisition, "max": float(image.max()),
                                 "norm": float(np.linalg.norm(image)), "patient_id": f"p{seed}"})
            if mask is not None:
                opened.attrs.update({"acceleration": 4, "num_low_frequency": 6})


def write_folder(path, challenge="singlecoil", coils=4):
    """A folder like fastMRI's: three training files of two widths, two to validate on."""
    coils = coils if challenge == "multicoil" else 0
    for part, name, options in (
            ("train", "file1000001.h5", {"slices": 2, "padding": (3, 34)}),
            ("train", "file1000002.h5", {"slices": 4, "shape": (40, 33),
                                         "acquisition": "CORPDFS_FBK"}),
            ("train", "file1000003.h5", {"slices": 6, "attributes": False}),
            ("val", "file1000011.h5", {"slices": 3, "padding": (2, 36)}),
            ("val", "file1000012.h5", {"slices": 2, "crop": (32, 20)})):
        write(Path(path) / f"{challenge}_{part}" / name, seed=int(name[4:-3]), coils=coils,
              **options)
    return str(path)
