"""Writes the real heads of the data set `heads`, from the files they were taken from.

Run by hand:

    python tests/golden/make_heads.py FOLDER [flatjax/data/images]

FOLDER holds `ulf_p{1..4}_3T.npz`, 3 T T1w, T2w and FLAIR of four patients with lesions, four
axial slices each (CC0, see flatjax/data/images/LICENSE-patients.txt), and
`studyforrest_T1w_defaced_1mm.nii.gz`, the defaced T1w head of a volunteer (PDDL, see
flatjax/data/images/LICENSE-studyforrest.txt), and `pulseq_invivo_brain_16ch_128x128.npy`, k-space
`[1, 16, 128, 128]` complex64 (MIT, see flatjax/data/images/LICENSE-scan.txt).

All images of a patient cover the same field of view and are brought to one grid. Values are stored
as 8-bit square roots, which spends the bits on the dark parts as noise does.
"""

import pathlib
import sys

import nibabel
import numpy as np
from scipy import ndimage

from flatjax.mri import noise_level
from flatjax.mri.host.coil_compression import apply_coils, compression_matrix

CONTRASTS = ("T1w", "T2w", "FLAIR")
SHAPE = (320, 272)  # of a patient's slices, about 0.75 mm
BOX = (slice(4, 188), slice(12, 232), slice(40, 246))  # of the volunteer: head and upper neck, mm
FADE = 16  # lowest slices, over which the neck fades as at the end of a coil
AIR = 6  # below is noise, left out where it is far from the head
COILS = 8  # virtual ones of the scan
BRIGHTEST = 110  # of 227: what is above, 2,648 voxels, is cut off
FOLDER = pathlib.Path(__file__).parents[2] / "flatjax" / "data" / "images"


def packed(images: np.ndarray) -> np.ndarray:
    """Values relative to the maximum as 8-bit square roots."""
    return np.rint(255 * np.sqrt(np.clip(images / images.max(), 0, 1))).astype(np.uint8)


def on_grid(image: np.ndarray) -> np.ndarray:
    """An image on the grid `SHAPE`, cubic, with what is finer than the grid kept out."""
    factors = np.array(SHAPE) / image.shape
    smooth = ndimage.gaussian_filter(image.astype(np.float64), 0.4 * np.sqrt(
        np.maximum(factors**-2 - 1, 0)))
    return ndimage.zoom(smooth, factors, order=3, mode="nearest", grid_mode=True)


def patient(path: pathlib.Path) -> np.ndarray:
    """`[contrast, slice, y, x]` uint8, anterior on top; each contrast has its own scale."""
    with np.load(path) as file:
        return np.stack([packed(np.stack([on_grid(one) for one in file[name]]))
                         for name in CONTRASTS])


def volunteer(path: pathlib.Path) -> np.ndarray:
    """`[x, y, z]` uint8, axes toward right (not verified), anterior and superior, 1 mm."""
    volume = np.asanyarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)
    if volume.shape != (192, 256, 256):
        sys.exit(f"{path}: {volume.shape}, expected (192, 256, 256)")
    near = ndimage.maximum_filter(ndimage.median_filter(volume, 3), 5) > AIR
    head = np.minimum(np.where(near, volume, 0), BRIGHTEST)[BOX]
    return packed(head * np.minimum((np.arange(head.shape[2]) + 0.5) / FADE, 1))


def scan(path: pathlib.Path) -> np.ndarray:
    """`[coil, ky, kx]` complex64, rounded to an eighth of the noise, so that the file is small."""
    kspace = np.load(path)
    (kspace,) = apply_coils(compression_matrix(kspace, COILS), kspace)
    noise, = np.asarray(noise_level(kspace[None], np.ones((1, 1, *kspace.shape[1:]), np.float32)))
    return np.round(8 * kspace / noise).astype(np.complex64)


def main(source: str, destination: str) -> None:
    """Write a file for each person, and the scan."""
    folder, out = pathlib.Path(source), pathlib.Path(destination)
    for index in range(1, 5):
        np.savez_compressed(out / f"patient{index}.npz",
                            images=patient(folder / f"ulf_p{index}_3T.npz"))
    np.savez_compressed(out / "volunteer.npz",
                        volume=volunteer(folder / "studyforrest_T1w_defaced_1mm.nii.gz"))
    np.savez_compressed(out / "scan.npz",
                        kspace=scan(folder / "pulseq_invivo_brain_16ch_128x128.npy"))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else str(FOLDER))
