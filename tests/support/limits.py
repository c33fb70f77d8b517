"""Limits of the system, as a test needs them."""

import resource
from contextlib import contextmanager


@contextmanager
def files_of_at_most(size):
    """What a full disk does, without one: writes beyond `size` bytes of a file fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
