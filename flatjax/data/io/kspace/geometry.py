"""Where the images of readouts lie, and how much of them is kept, from ISMRMRD's header and heads.

The standard tells directions, but not which sign the Fourier transform to the image has. ISMRMRD's
own programs take the inverse one, as we do. In files of Siemens scanners, directions are the
scanner's quaternion (`siemens_to_ismrmrd`, main.cpp), which supposes the forward one: there an
image runs against both of its directions. The two transforms differ by a turn of 180 degrees about
pixel n // 2, never by a mirror. Found alike by who compared images with the scanner's: MRpro
(`KData.from_file` conjugates these k-spaces), lowfield_maxgirf (USC, `siemens_cartesian_fft_recon`:
forward transform), python-ismrmrd-server (`invertcontrast.py`: both axes flipped, "to be consistent
with ICE"), RecoTwix (`_extract_transformation`: both flipped, by experiment) and SIRF
(`set_up_geom_info`: directions negated). Gadgetron's DICOM writer does not (gadgetron#1003).
"""

from collections.abc import Sequence

import numpy as np

from flatjax.data.io.header import Header

_TOLERANCE = 0.01  # mm, of positions
_TO_RAS = np.array([-1.0, -1.0, 1.0])  # from positions toward left, posterior and superior


def crop_of(header: Header, shape: Sequence[int]) -> list[int]:
    """The pixels within the recon field of view; without fields of view, the recon matrix."""
    kept, whole = (header.field_of_view(space) for space in ("reconSpace", "encodedSpace"))
    sizes = (1 if n == 1 else n * kept[axis] / whole[axis] if kept and whole
             else header.number(f"encoding/reconSpace/matrixSize/{'xyz'[axis]}")
             for axis, n in enumerate(shape))
    return [min(max(round(size), 1), n) for size, n in zip(sizes, shape, strict=True)]


def affine_of(header: Header, used: np.ndarray, slot: np.ndarray, shape: Sequence[int],
              crop: Sequence[int]
              ) -> tuple[np.ndarray | None, tuple[float, float, float] | None, str]:
    """Affine and spacing of `Scan`, the latter with the slices' distance, and why there is none.

    Args:
        header, used: of the scan, and the heads of readouts.
        slot: the number of the slice, or partition, of each.
        shape, crop: along `(ky, kx, kz)`, encoded and kept. If kz is longer than 1 the images are
            `[ky, kz, kx]`: slices along the readout.
    """
    spacing, solid = header.spacing(), shape[2] > 1
    order, names = [0, 1, 2], ("phase_dir", "read_dir", "slice_dir")
    if solid:
        order, slot = [0, 2, 1], 0 * slot
        spacing = spacing and (spacing[0], spacing[2], spacing[1])
    first = used[np.unique(slot, return_index=True)[1]]  # a readout of each slice
    axes = np.array([used[0][names[axis]] for axis in order], float)
    positions = first["position"].astype(float)
    if spacing is None or not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
        return None, spacing, "no directions or field of view"
    turned = max(np.abs(used[name] - used[0][name]).max() for name in names)
    moved = np.abs(used["position"] - positions[slot]).max()
    if not (turned <= 1e-3 and moved <= _TOLERANCE):
        return None, spacing, "slices are turned against each other, or move"
    step = axes[2] * spacing[2]
    if len(positions) > 1:
        gaps = np.diff(positions, axis=0)
        apart, step = np.linalg.norm(gaps, axis=1), gaps.mean(axis=0)
        if not (np.abs(gaps - step).max() <= 2 * _TOLERANCE < apart.min()):
            return None, spacing, f"slices lie {apart.min():.3g} to {apart.max():.3g} mm apart"
        spacing = (*spacing[:2], float(np.linalg.norm(step)))
    vendor = header.text("acquisitionSystemInformation/systemVendor")
    sign = -1.0 if "siemens" in vendor.lower() else 1.0
    if solid and sign < 0:
        return None, spacing, "the direction of Siemens scanners' partitions is not verified"
    affine = np.eye(4)
    affine[:3, :3] = _TO_RAS[:, None] * np.stack(
        [sign * axes[0] * spacing[0], sign * axes[1] * spacing[1], step], axis=1)
    # position is that of the pixel at n // 2, where the transform has its origin
    center = np.array([n // 2 - (n - kept) // 2 for n, kept in zip(shape, crop, strict=True)])
    affine[:3, 3] = _TO_RAS * positions[0] - affine[:3, :3] @ center[[1, 0, 2]][order]
    return affine, spacing, ""
