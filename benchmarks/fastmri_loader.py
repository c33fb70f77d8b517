"""How fast fastMRI slices are read, masked and made into training batches, and in what memory.

    python benchmarks/fastmri_loader.py --coils=15

Writes files of random k-space into a temporary folder, so they are read from the page cache, and
prints JSON: slices per second read, read and masked, and as whole training batches of one slice
with coil maps; seconds to index; growth of the resident memory over all those slices. Pin it to
one core with `taskset -c 0`.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from flatjax.data import Acquisition, training_batch
from flatjax.data.io.fastmri import index_folder, read_fastmri_slices
from flatjax.data.sets import fastmri
from flatjax.mri.host.masks import make_mask
from flatjax.mri.host.simulate import acquire

HEADER = """<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{0}</x><y>{1}</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>{2}</x><y>{2}</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{3}</maximum>
<center>{4}</center></kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"""


def write_files(folder, options):
    rng = np.random.default_rng(0)
    shape = (options.coils,) * (options.coils > 1) + (options.rows, options.columns)
    side = min(options.rows, options.columns, 320)
    header = HEADER.format(*shape[-2:], side, options.columns - 1, options.columns // 2)
    name = "reconstruction_rss" if options.coils > 1 else "reconstruction_esc"
    folder.mkdir()
    for index in range(options.volumes):
        with h5py.File(folder / f"file{index}.h5", "w") as file:
            file["ismrmrd_header"] = header.encode()
            file[name] = rng.random((options.slices, side, side), np.float32)
            kspace = file.create_dataset("kspace", (options.slices, *shape), np.complex64)
            for one in range(options.slices):
                kspace[one] = rng.random((*shape, 2), np.float32).view(np.complex64)[..., 0]


def resident_mib():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def rates(count, work):
    """Slices per second of wall-clock, and of processor time, which other programs do not take."""
    clocks = {"wall": time.perf_counter, "cpu": time.process_time}
    start = {name: clock() for name, clock in clocks.items()}
    for index in range(count):
        work(index)
    return {name: count / (clock() - start[name]) for name, clock in clocks.items()}


def measure(path, challenge, combine, count):
    folder = path / f"{challenge}_val"
    start = time.perf_counter()
    records, _ = index_folder(folder)
    first = time.perf_counter() - start
    start = time.perf_counter()
    index_folder(folder)
    again = time.perf_counter() - start
    dataset = fastmri.make(path=str(path), challenge=challenge, combine=combine,
                           train=folder.name, calibration=0.08)
    reference = fastmri.CHALLENGES[challenge]
    rng = np.random.default_rng(0)

    def read(index):
        record = records[rng.integers(len(records))]
        return next(read_fastmri_slices(folder / record.name, record,
                                [int(rng.integers(record.kspace[0]))], reference))

    def read_and_mask(index):
        kspace, _ = read(index)
        return acquire(kspace, make_mask("random", kspace.shape[-2:], 4, 0.08, index))

    def batch(index):
        return training_batch(dataset, Acquisition(), 0, index, 1)

    for work in (read, read_and_mask, batch):
        work(0)
    before = resident_mib()
    out = {"read": rates(count, read), "read_and_masked": rates(count, read_and_mask),
           "training_batches": rates(count, batch)}
    return {"slices_per_second": out, "slices_read": 3 * count,
            "resident_growth_mib": resident_mib() - before,
            "index_seconds": {"first": first, "again": again}}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("coils", 15), ("rows", 640), ("columns", 368), ("slices", 8),
                          ("volumes", 4), ("count", 200)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    challenge, combine = (("multicoil", "rss") if options.coils > 1 else ("singlecoil", "sense"))
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder) / f"{challenge}_val", options)
        result = measure(Path(folder), challenge, combine, options.count)
    print(json.dumps(vars(options) | result | {
        "cores": len(os.sched_getaffinity(0)), "machine": platform.machine(),
        "h5py": h5py.__version__, "numpy": np.__version__}, indent=2))


if __name__ == "__main__":
    main()
