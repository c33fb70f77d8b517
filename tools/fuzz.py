"""Broken and hostile files for every reader: each is read, or refused with an `InputError`.

    python tools/fuzz.py [READER ...] [--inputs 100000] [--minutes 30] [--first 0]

Every input is a valid file changed at random: bits, bytes, numbers that sizes are made of, pieces
that are cut out, doubled or swapped; text also by whole tokens, and compressed files below their
compression. It follows from the reader's name and its number alone, so that a failure is repeated
with `--first NUMBER --inputs 1`.

A reader fails by another exception, by a crash, by more than 10 s for one file of some kilobytes,
by using more than 1 GiB of memory, or by asking NumPy for more than 8 GiB. Readers run in processes
of their own; what they leave to a further one (`data.io.hdf5.isolated`) is limited there, to
a quarter of that.
"""

import argparse
import contextlib
import gzip
import io
import json
import logging
import mmap
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

SECONDS = 10  # for one input
USED = 2**30  # bytes, beyond what the process has before it reads
ASKED = 2**33

SIZES = (0, 1, 2, 3, 7, 15, 16, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1,
         2**31, 2**32 - 1, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-40, 1e38, 1e308, float("nan"), float("inf"), float("-inf"))
TOKENS = (b"0", b"-1", b"1e400", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"1" * 400, b"1.5",
          b"[" * 2000, b"2147483648", b"18446744073709551616", b"\\u0000", b"\xff\xfe", b"\x00",
          b"<!DOCTYPE a [<!ENTITY b 'c'>]>", b"&b;", b"../../../../tmp/escaped", b"'", b"\n")


class Reader(NamedTuple):
    """How one kind of file is read.

    Attributes:
        seeds: `folder -> files`, valid ones, each relative to the folder that is read from.
        read: reads the folder in which one file was changed.
        text: whether it is made of tokens.
        together: whether all files are needed at once, or else only the changed one is there.
    """

    seeds: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    text: bool = False
    together: bool = False


def mutate(data: bytes, rng: np.random.Generator, text: bool = False) -> bytes:
    """The bytes changed in one to some places."""
    data = bytearray(data)
    for _ in range(1 + min(int(rng.geometric(0.4)), 20)):
        at = int(rng.integers(len(data) + 1))
        length = int(min(rng.geometric(0.1), len(data) - at))
        kind = rng.integers(9 if text else 8)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[at:at + length] = rng.bytes(length)
        elif kind == 2:
            del data[at:at + length]
        elif kind == 3:
            data[at:at] = data[at:at + length] * int(rng.integers(1, 30))
        elif kind == 4:
            del data[at:]
        elif kind == 5:
            other = int(rng.integers(len(data) + 1))
            data[at:at + length] = data[other:other + length]
        elif kind == 6:
            width = int(rng.choice([1, 2, 4, 8]))
            value = SIZES[rng.integers(len(SIZES))] % 2 ** (8 * width)
            data[at:at + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))
        elif kind == 7:
            data[at:at + 8] = struct.pack(str(rng.choice(["<f", "<d", ">f"])),
                                          _single(FLOATS[rng.integers(len(FLOATS))]))
        else:
            _change_token(data, rng)
    return bytes(data)


def _single(value: float) -> float:
    return value if not 1e38 < abs(value) < 1e309 else 1e38


def _change_token(data: bytearray, rng: np.random.Generator) -> None:
    found = list(re.finditer(rb"[-+.\w]+|\"[^\"]*\"|[<>{}\[\]:,]", bytes(data)))
    if not found:
        return
    token = found[rng.integers(len(found))]
    other = found[rng.integers(len(found))].group()
    new = (TOKENS[rng.integers(len(TOKENS))] if rng.random() < 0.6 else
           other if rng.random() < 0.6 else b"")
    data[token.start():token.end()] = new


def mutated(data: bytes, name: str, rng: np.random.Generator, text: bool) -> bytes:
    """As `mutate`, most often below the compression."""
    if name.endswith(".gz") and rng.random() < 0.9:
        return gzip.compress(mutate(gzip.decompress(data), rng, text), 1)
    return mutate(data, rng, text)


# The readers, and valid files for each.

def fastmri_files(folder: Path) -> list[Path]:
    from tests.support import fastmri_fixture as fixture
    small = {"slices": 2, "shape": (12, 10), "crop": (8, 8)}
    fixture.write(folder / "a.h5", **small, mask=np.arange(10) % 2)
    fixture.write(folder / "b.h5", coils=2, **small)
    return [Path("a.h5"), Path("b.h5")]


def read_fastmri(folder: Path) -> None:
    from flatjax.data.io import fastmri as files
    for file in folder.glob("*.h5"):
        record = files.read_record(file)
        for _ in files.read_fastmri_slices(file, record, [0], "reconstruction_rss"):
            pass


def headers(folder: Path) -> list[Path]:
    from tests.support import fastmri_fixture as fixture
    (folder / "header.xml").write_bytes(fixture.header_xml((12, 10), (8, 8), (1, 9)))
    return [Path("header.xml")]


def read_header(folder: Path) -> None:
    from flatjax.data.io.header import Header
    header = Header((folder / "header.xml").read_bytes(), "header")
    header.number("encoding/encodedSpace/matrixSize/y")
    header.spacing()


def _volume(dtype=np.int16) -> np.ndarray:
    from tests.support import volume_fixture as fixture
    return (100 * fixture.head((6, 5, 9))).astype(dtype)


def niftis(folder: Path) -> list[Path]:
    import nibabel
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(_volume(), affine), folder / "a.nii")
    nibabel.save(nibabel.Nifti2Image(_volume(np.float32), affine), folder / "b.nii")
    nibabel.save(nibabel.Nifti1Image(_volume(np.uint8)[..., None], affine), folder / "c.nii.gz")
    return [Path("a.nii"), Path("b.nii"), Path("c.nii.gz")]


def nrrds(folder: Path) -> list[Path]:
    from tests.support import volume_fixture as fixture
    for name, encoding in (("a.nrrd", "raw"), ("b.nrrd", "gzip"), ("c.nrrd", "bzip2")):
        fixture.write_nrrd(folder / name, _volume(), encoding=encoding)
    return [Path("a.nrrd"), Path("b.nrrd"), Path("c.nrrd")]


def nhdrs(folder: Path) -> list[Path]:
    from tests.support import volume_fixture as fixture
    fixture.write_nrrd(folder / "a.nhdr", _volume(), encoding="raw", beside="a.bin", skip=b"12")
    return [Path("a.nhdr"), Path("a.bin")]


def mincs(folder: Path) -> list[Path]:
    from tests.support import volume_fixture as fixture
    for name, write in (("a.mnc", fixture.write_minc1), ("b.mnc", fixture.write_minc2),
                        ("c.mnc.gz", fixture.write_minc1)):
        write(folder / name, _volume(np.float32))
    return [Path("a.mnc"), Path("b.mnc"), Path("c.mnc.gz")]


def raws(folder: Path) -> list[Path]:
    content = _volume().tobytes(order="F")
    (folder / "a_6x5x9_int16.raw").write_bytes(content)
    (folder / "b_6x5x9.raws.gz").write_bytes(gzip.compress(content))
    return [Path("a_6x5x9_int16.raw"), Path("b_6x5x9.raws.gz")]


def read_volumes(folder: Path) -> None:
    from flatjax.data.io.volumes import format_of
    from flatjax.data.sets import volume
    for file in sorted(folder.iterdir()):
        if format_of(file.name):
            volume.make(path=str(file), split=False).test["all"][0].load()


def npys(folder: Path) -> list[Path]:
    from tests.support import kspace_fixture as fixture
    np.save(folder / "a.npy", fixture.kspace())
    np.save(folder / "b.npy", fixture.kspace().astype(np.complex128)[0, 0])
    return [Path("a.npy"), Path("b.npy")]


def npzs(folder: Path) -> list[Path]:
    from tests.support import kspace_fixture as fixture
    kspace = fixture.kspace()
    more = {"mask": np.arange(12) % 2, "maps": np.ones_like(kspace), "affine": np.eye(4)}
    np.savez(folder / "a.npz", kspace=kspace, **more)
    np.savez_compressed(folder / "b.npz", kspace=kspace, **more)
    return [Path("a.npz"), Path("b.npz")]


def cfls(folder: Path) -> list[Path]:
    from tests.support import kspace_fixture as fixture
    array = fixture.bart_order(fixture.kspace())
    fixture.write_cfl(folder / "a.cfl", array, array.shape)
    return [Path("a.hdr"), Path("a.cfl")]


def mats(folder: Path) -> list[Path]:
    from tests.support import kspace_fixture as fixture
    fixture.write_matlab(folder / "a.mat", kspace=fixture.kspace(), mask=np.arange(12) % 2)
    return [Path("a.mat")]


def ismrmrds(folder: Path) -> list[Path]:
    from tests.support import kspace_fixture as fixture
    fixture.write_ismrmrd(folder / "a.h5", fixture.ismrmrd_kspace(),
                          flags={4: ["ACQ_IS_PARALLEL_CALIBRATION"]})
    return [Path("a.h5")]


def read_scans(folder: Path) -> None:
    from flatjax.data.io.kspace import find_scans, open_scan, slice_with_signal
    for file in find_scans([folder]):
        scan = open_scan(file)
        slice_with_signal(scan)
        for read in (scan.read, scan.maps, scan.calibration):
            if read:
                list(read([0, scan.shape[0] - 1]))


def indices(folder: Path) -> list[Path]:
    from flatjax.data.io.fastmri import index_folder
    fastmri_files(folder / "data")
    index_folder(folder / "data")
    return [Path(".flatjax-data.json")]


def read_index(folder: Path) -> None:
    from flatjax.data.io import fastmri as files
    with contextlib.suppress(OSError):
        files._load_index(folder / ".flatjax-data.json")


def configs(folder: Path) -> list[Path]:
    from flatjax import config
    from tests.support import toy
    (folder / "config.json").write_text(config.to_json(toy.experiment(data=config.data("icbm"))))
    return [Path("config.json")]


def read_config(folder: Path) -> None:
    from flatjax import config
    from flatjax.runs.workdir import load_config
    loaded = load_config(folder)
    config.to_json(loaded)
    config.make_training(loaded, 1)
    config.make_evaluation(loaded)
    config.make_acquisition(loaded)


def metrics(folder: Path) -> list[Path]:
    from flatjax import config
    lines = [{"kind": "train", "step": step, "loss": 0.5, "slices_per_second": 3.0}
             for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = json.loads(config.to_json(config.experiment()))
    (folder / "outcome.json").write_text(json.dumps({
        "trained": plain, "evaluated": plain, "slices_per_second": 3.0,
        "sets": {"main": {"slices": {"psnr": [30.0, 31.0]}, "nfe": 2}}}))
    return [Path("metrics.jsonl"), Path("outcome.json")]


def read_metrics(folder: Path) -> None:
    from flatjax.experiments import outcomes
    from flatjax.experiments.run import training_rate
    from flatjax.files import MetricsLog
    training_rate(folder)
    MetricsLog(folder, 2).close()
    outcomes.read(folder / "outcome.json")


def checkpoints(folder: Path) -> list[Path]:
    import jax.numpy as jnp

    from flatjax.runs.checkpoint import Checkpoints
    writer = Checkpoints(folder, "psnr", create=True)
    state = {"params": {"kernel": jnp.arange(600.0).reshape(20, 30), "bias": jnp.ones(3)},
             "step": jnp.int32(4)}
    writer.save(4, state, {"psnr": 30.0})
    writer.close()
    return [path.relative_to(folder) for path in sorted((folder / "checkpoints").rglob("*"))
            if path.is_file() and not path.name.startswith("commit")]


def read_checkpoint(folder: Path) -> None:
    from flatjax.runs.checkpoint import Checkpoints
    reader = Checkpoints(folder, "psnr")
    _, state = reader.load("best")
    kernel = np.asarray(state["params"]["kernel"])
    if not np.array_equal(kernel, np.arange(600.0, dtype=np.float32).reshape(20, 30)):
        raise AssertionError("a changed checkpoint was read as if it were whole")


READERS = {
    "fastmri": Reader(fastmri_files, read_fastmri),
    "header": Reader(headers, read_header, text=True),
    "nifti": Reader(niftis, read_volumes),
    "nrrd": Reader(nrrds, read_volumes, text=True),
    "nhdr": Reader(nhdrs, read_volumes, text=True, together=True),
    "minc": Reader(mincs, read_volumes),
    "raw": Reader(raws, read_volumes),
    "npy": Reader(npys, read_scans),
    "npz": Reader(npzs, read_scans),
    "cfl": Reader(cfls, read_scans, text=True, together=True),
    "mat": Reader(mats, read_scans),
    "ismrmrd": Reader(ismrmrds, read_scans),
    "index": Reader(indices, read_index, text=True),
    "config": Reader(configs, read_config, text=True),
    "metrics": Reader(metrics, read_metrics, text=True, together=True),
    "checkpoint": Reader(checkpoints, read_checkpoint, together=True),
}


# Running them.

class Hang(BaseException):
    """One input took too long."""


def _stop(number, frame):
    raise Hang


def peak_memory(reset: bool = False) -> int:
    """The most resident memory so far, or since the last reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


class Fuzzer:
    """One reader, with a folder of files to change."""

    def __init__(self, name: str, folder: Path):
        """Make the valid files, and read them once: what that imports counts for no input."""
        self.name, self.reader, self.folder = name, READERS[name], folder / "changed"
        valid = folder / "valid"
        valid.mkdir()
        self.paths = self.reader.seeds(valid)
        self.valid = [(valid / path).read_bytes() for path in self.paths]
        self.folder.mkdir()
        for path in self.paths:
            self._put(path, self.valid[self.paths.index(path)])
        self.reader.read(self.folder)
        if not self.reader.together:
            for path in self.paths:
                (self.folder / path).unlink()

    def _put(self, path: Path, data: bytes) -> Path:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        return target

    def attempt(self, number: int) -> str | None:
        """Read input `number`; what went wrong, or None."""
        from flatjax.errors import InputError
        rng = np.random.default_rng([zlib.crc32(self.name.encode()), number])
        which = int(rng.integers(len(self.paths)))
        path, data = self.paths[which], self.valid[which]
        target = self._put(path, mutated(data, path.name, rng, self.reader.text))
        begin = peak_memory(reset=True)
        before = signal.signal(signal.SIGALRM, _stop)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            self.reader.read(self.folder)
        except InputError as error:
            cause = error
            while cause is not None:
                if isinstance(cause, MemoryError) or "Unable to allocate" in str(cause):
                    return f"asked for too much memory: {error}"
                cause = cause.__cause__
        except Hang:
            return f"more than {SECONDS} s"
        except BaseException:
            return traceback.format_exc(limit=-6)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            if self.reader.together:
                self._put(path, data)
            else:
                target.unlink()
        used = peak_memory() - begin
        return f"used {used / 2**20:.0f} MiB" if used > USED else None


def work(name: str, first: int, last: int, deadline: float, shared: str, failures) -> None:
    """Read inputs in a process of its own; the file `shared` holds the number at work."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from flatjax.data.io import hdf5
    hdf5._SECONDS = SECONDS / 4
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    with (Path(shared).open("r+b") as file, mmap.mmap(file.fileno(), 8) as progress,
          tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as at,
          contextlib.redirect_stdout(io.StringIO()) as out):
        fuzzer = Fuzzer(name, Path(at))
        size = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (size + ASKED, resource.RLIM_INFINITY))
        number = first
        while number < last and time.time() < deadline:
            progress[:8] = struct.pack("<q", number)
            if problem := fuzzer.attempt(number):
                failures.put((number, problem))
            out.seek(0), out.truncate(0)
            number += 1
        progress[:8] = struct.pack("<q", number)
    failures.put(None)


def fuzz(name: str, inputs: int, minutes: float, first: int = 0) -> tuple[int, dict[int, str]]:
    """Read so many inputs, or for so long: how many it were, and what failed by its number."""
    context = get_context("spawn")
    failed: dict[int, str] = {}
    deadline, last, begin = time.time() + 60 * minutes, first + inputs, first
    while begin < last and time.time() < deadline and len(failed) < 50:
        with tempfile.NamedTemporaryFile() as shared:
            shared.write(struct.pack("<q", begin))
            shared.flush()
            progress = mmap.mmap(shared.fileno(), 8)
            failures = context.Queue()
            worker = context.Process(target=work, args=(name, begin, last, deadline, shared.name,
                                                        failures))
            worker.start()
            finished, at, since = False, -1, time.time()
            while True:
                with contextlib.suppress(Exception):
                    while (found := failures.get(timeout=0.5)) is not None:
                        failed[found[0]] = found[1]
                    finished = True
                now = struct.unpack("<q", progress[:8])[0]
                if finished or not worker.is_alive():
                    break
                if now != at:
                    at, since = now, time.time()
                if time.time() - since > 3 * SECONDS + 90 * (now == begin):  # while it starts
                    failed[now] = "does not return"
                    worker.kill()
            worker.join()
            begin = struct.unpack("<q", progress[:8])[0]
            if not finished:
                failed.setdefault(begin, f"the process ended with {worker.exitcode}")
                begin += 1
    return begin - first, failed


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("readers", nargs="*", help=f"of {', '.join(READERS)}; all by default")
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    bad = 0
    for name in options.readers or READERS:
        start = time.time()
        count, failed = fuzz(name, options.inputs, options.minutes, options.first)
        print(f"{name}: {count} inputs in {(time.time() - start) / 60:.1f} min, "
              f"{len(failed)} failures", flush=True)
        for number, problem in failed.items():
            print(f"  --first {number} --inputs 1: {problem}", flush=True)
        bad += len(failed)
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
