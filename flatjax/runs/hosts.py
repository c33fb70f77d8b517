"""Several processes that train together, on one machine or many, joined by `jax.distributed`.

The first process, of index 0, alone writes; with one process everything here does nothing.
"""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from flatjax.data.io.checks import reading
from flatjax.data.splits import SPLIT
from flatjax.errors import InputError
from flatjax.files import make_folder


def join(description: str = "") -> None:
    """Join the other processes of this run, before anything else asks JAX for devices.

    The description is `HOST:PORT,PROCESSES,INDEX`: where the first process listens, how many there
    are and which this is, from 0; or empty, for JAX to ask the scheduler (SLURM, Open MPI,
    Kubernetes) or the TPU pod. An `InputError` for another one, or if they do not come together.
    """
    found = re.fullmatch(r"(.+:\d+),(\d+),(\d+)", description)
    if description and not (found and int(found[3]) < int(found[2])):
        raise InputError(f"--distributed is {description!r}, expected HOST:PORT,PROCESSES,INDEX "
                         "with INDEX from 0, or nothing under SLURM, Open MPI or on a TPU pod")
    try:
        if found:
            jax.distributed.initialize(found[1], int(found[2]), int(found[3]))
        else:
            jax.distributed.initialize()
    except (ValueError, RuntimeError) as error:
        raise InputError(f"the processes do not come together: {error}; start one on each host, "
                         "and without a scheduler say --distributed=HOST:PORT,PROCESSES,INDEX"
                         ) from error


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def broadcast_from_first(tree: Any) -> Any:
    """The first process's arrays, in every process."""
    return multihost_utils.broadcast_one_to_all(tree) if jax.process_count() > 1 else tree


def share(size: int) -> range:
    """The rows of a batch of `size` that the devices of this process compute on.

    An `InputError` if the processes have different numbers of devices.
    """
    processes = jax.process_count()
    if jax.local_device_count() * processes != jax.device_count():
        raise InputError(f"process {jax.process_index()} has {jax.local_device_count()} of "
                         f"{jax.device_count()} devices, expected the same number in each of the "
                         f"{processes} processes")
    own = size // processes
    return range(jax.process_index() * own, (jax.process_index() + 1) * own)


@contextmanager
def writable(workdir: str | Path) -> Iterator[Path]:
    """The run's folder in the first process, and in others one that is thrown away.

    The latter holds the run's split of the subjects, which all follow. An `InputError` tells what
    cannot be read or written.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_folder(workdir) if is_first() else Path(scratch)
        split = folder / SPLIT
        text = b""
        if split.is_file():
            with reading(split):
                text = split.read_bytes()
        length = int(broadcast_from_first(np.int32(len(text))))
        if length:
            text = broadcast_from_first(np.resize(np.frombuffer(text, np.uint8), length))
            if not is_first():
                split.write_bytes(np.asarray(text).tobytes())
        yield folder
