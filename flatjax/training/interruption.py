"""Signals that ask a program to stop: it finishes what it is at, saves, and leaves."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Terminated(KeyboardInterrupt):
    """The process was asked to stop by SIGTERM, as schedulers do before they kill it."""


@contextmanager
def on_sigterm() -> Iterator[Callable[[], None]]:
    """Within it SIGTERM stops nothing by itself, but makes the function that it gives raise.

    Signals belong to the main thread: in another one the function never raises.

    Returns:
        `check()`, which raises `Terminated` once SIGTERM has come.
    """
    asked = threading.Event()

    def check() -> None:
        if asked.is_set():
            raise Terminated("asked to stop by SIGTERM")

    def ask(number: int, frame: FrameType | None) -> None:
        asked.set()

    if threading.current_thread() is not threading.main_thread():
        yield check
        return
    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield check
    finally:
        signal.signal(signal.SIGTERM, before)
