"""k-space simulated from a magnitude volume, for want of a scan."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from flatjax.data.io.kspace.base import Scan
from flatjax.data.io.volumes import as_magnitude, format_of, read_placed, stem
from flatjax.data.io.volumes.common import voxel_sizes
from flatjax.data.slices import IMAGE_PHASE, display_slices, make_sample
from flatjax.mri.host.simulate import birdcage_maps, image_phase

_SEED = 20  # of the image phases, one smooth random phase per slice


def open_volume(file: Path, coils: int = 1) -> Scan:
    """Axial slices of a volume, on its own grid, as fully sampled k-space of simulated coils.

    Args:
        file: in a format of `io.volumes.READERS`. It is read whole; k-space is made slice by slice.
        coils: simulated birdcage coils.

    Raises:
        InputError: as `io.volumes.read_placed` says, or if it is no magnitude.
    """
    voxels, affine = read_placed(file)
    images, _ = display_slices(as_magnitude(file, voxels), voxel_sizes(affine), "axial")
    shape = images.shape[1:]
    # columns run against x and rows against y
    turned = np.diag([-1.0, -1.0, 1.0, 1.0])
    turned[:2, 3] = voxels.shape[0] - 1, voxels.shape[1] - 1
    maps = birdcage_maps(coils, shape)

    def read(indices: Iterable[int]) -> Iterator[np.ndarray]:
        for index in indices:
            phase = image_phase(np.random.default_rng([_SEED, index]), shape, IMAGE_PHASE)
            yield make_sample(images[index], phase, maps).kspace

    return Scan(file, stem(file.name), f"volume {format_of(file.name)}",
                (len(images), coils, *shape), read, maps=lambda indices: (maps for _ in indices),
                affine=affine @ turned, spacing=voxel_sizes(affine @ turned),
                missing=("k-space",), simulated=True)
