"""Writes the real head that comes with the package, from the volume it was taken from.

Run by hand; needs numpy and nibabel alone:

    python tests/golden/make_head.py T1.nii.gz [flatjax/data/images/cstar_t1.npz]

The volume is `stroke/T1.nii.gz` in https://github.com/neurolabusc/VolumeRenderingData (MIT
license, see flatjax/data/images/LICENSE-cstar.txt): 124 x 160 x 140 voxels of 1 mm, the brain of
a person who had a stroke in the left hemisphere.
"""

import pathlib
import sys

import nibabel
import numpy as np

SLICES = range(22, 118, 6)  # from the cerebellum to the vertex
FOLDER = pathlib.Path(__file__).parents[2] / "flatjax" / "data" / "images"


def main(source: str, destination: str) -> None:
    """Write every sixth axial slice, anterior on top and the patient's right on the left."""
    image = nibabel.as_closest_canonical(nibabel.load(source))
    volume = np.asanyarray(image.dataobj)
    if volume.shape != (124, 160, 140) or volume.dtype != np.uint8:
        sys.exit(f"{source}: {volume.shape} {volume.dtype}, expected (124, 160, 140) uint8")
    slices = volume[::-1, ::-1, SLICES].transpose(2, 1, 0)
    spacing = np.asarray(image.header.get_zooms()[:3], np.float32)[::-1]
    np.savez_compressed(destination, slices=np.ascontiguousarray(slices), spacing=spacing,
                        index=np.asarray(SLICES))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2] if len(sys.argv) == 3 else FOLDER / "cstar_t1.npz")
