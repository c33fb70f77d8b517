"""k-space, and files of it as other programs write them."""

import h5py
import numpy as np
import pytest

from flatjax.mri.host.simulate import birdcage_maps, host_fft2c
from tests.support.arrays import complex_normal, smooth_image

SHAPE = (3, 2, 10, 12)  # slice, coil, ky, kx
ENCODED, RECON, LINES = (20, 12), (10, 10), 9  # readout is oversampled; the last lines are missing


def kspace(seed=0, shape=SHAPE):
    """Noise with its peak at the center, so that it passes for k-space."""
    values = complex_normal(np.random.default_rng(seed), shape)
    values[..., shape[-2] // 2, shape[-1] // 2] *= 50
    return values


def write_cfl(path, array, dims):
    """As BART: `array` with its first axis fastest."""
    path.with_suffix(".hdr").write_text("# Dimensions\n" + " ".join(map(str, dims)) + " \n")
    array.astype("<c8").ravel(order="F").tofile(path)
    return path


def bart_order(values):
    """`[slice, coil, read, phs1]` to BART's sixteen axes."""
    return values.transpose(2, 3, 1, 0).reshape(
        *values.shape[2:], 1, values.shape[1], *[1] * 9, values.shape[0], 1, 1)


def write_matlab(path, **arrays):
    """As MATLAB's `save(path, '-v7.3')`: axes from the last, complex numbers as real and imag."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            stored = np.asarray(array).T
            if np.iscomplexobj(stored):
                pairs = np.empty(stored.shape, [("real", stored.real.dtype),
                                                ("imag", stored.real.dtype)])
                pairs["real"], pairs["imag"], stored = stored.real, stored.imag, pairs
            file.create_dataset(name, data=stored, compression="gzip", chunks=True)
    with path.open("r+b") as stream:
        stream.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")
    return path


def write_ismrmrd(path, values, *, trajectory="cartesian", change=None, flags=None, shift=2,
                  directions=True, lines=range(LINES), slices=None, recon=RECON, late=4, edit=None,
                  group="dataset", noise=None, depth=1):
    """A file by the ISMRMRD library of `[slice, coil, ky, kx]`, its line 0 at column `shift`.

    Its echo begins `late`. `edit` changes the header, `change` each acquisition. With a `depth`,
    the slices are partitions of a 3-D scan. `noise` is a readout `[coil, sample]`.
    """
    ismrmrd = pytest.importorskip("ismrmrd")
    xsd, encoded = ismrmrd.xsd, values.shape[2:]
    space = [xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=x, y=y, z=depth),
        fieldOfView_mm=xsd.fieldOfViewMm(x=2.0 * x, y=3.0 * y, z=5))
        for x, y in (encoded, recon)]
    limits = xsd.encodingLimitsType(kspace_encoding_step_1=xsd.limitType(
        minimum=0, maximum=max(lines), center=encoded[1] // 2 - shift))
    encoding = xsd.encodingType(encodedSpace=space[0], reconSpace=space[1], encodingLimits=limits,
                                trajectory=xsd.trajectoryType(trajectory))
    header = xsd.ismrmrdHeader(
        encoding=[encoding], experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=63_000_000),
        measurementInformation=xsd.measurementInformationType(
            protocolName="T2 & more", patientPosition=xsd.patientPositionType("HFS")))
    if edit:
        edit(xsd, header)
    path.unlink(missing_ok=True)
    with ismrmrd.Dataset(str(path), group) as out:
        out.write_xml_header(xsd.ToXML(header))
        if noise is None:  # of no use
            noise = np.ones((values.shape[1], 7))
        one = ismrmrd.Acquisition.from_array(noise.astype(np.complex64))
        one.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
        one.sample_time_us = 8.0
        out.append_acquisition(one)
        for s in range(values.shape[0]) if slices is None else slices:
            for line in lines:
                one = ismrmrd.Acquisition.from_array(
                    np.ascontiguousarray(values[s, :, late:, line + shift]))
                one.center_sample = encoded[0] // 2 - late  # a partial echo
                one.idx.slice, one.idx.kspace_encode_step_1 = s * (depth == 1), line
                one.idx.kspace_encode_step_2 = s * (depth > 1)
                if directions:
                    one.read_dir[:], one.phase_dir[:], one.slice_dir[:] = (0, 1, 0), (1, 0, 0), (
                        0, 0, -1)
                    one.position[:] = 5, -7, 11 - 6.0 * s * (depth == 1)
                for flag in (flags or {}).get(line, ()):
                    one.set_flag(getattr(ismrmrd, flag))
                if change:
                    change(one)
                out.append_acquisition(one)
    return path


def calibrated(mode):
    """What makes a header tell its calibrationMode."""
    def edit(xsd, header):
        header.encoding[0].parallelImaging = xsd.parallelImagingType(
            accelerationFactor=xsd.accelerationFactorType(
                kspace_encoding_step_1=2, kspace_encoding_step_2=1),
            calibrationMode=xsd.calibrationModeType(mode))
    return edit


def ismrmrd_kspace():
    values = kspace(2, (3, 2, *ENCODED))
    values[:, :, :4] = 0
    values[..., :2] = values[..., 2 + LINES:] = 0
    return values


SIZE = (24, 20)


def scan_of(seed=0, slices=3, coils=4, shape=SIZE):
    """`(kspace, images)`: `[slice, coil, ky, kx]` complex64, fully sampled, and their magnitude."""
    rng = np.random.default_rng(seed)
    images = np.stack([smooth_image(rng, shape) for _ in range(slices)])
    return host_fft2c(birdcage_maps(coils, shape) * images[:, None]), np.abs(images)
