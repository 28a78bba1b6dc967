"""SIGTERM: the orderly end of the command line, and the end at once while native code runs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from onnxprune.errors import Terminated

TERMINATED = 143


def terminate(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM of the command line: end in the orderly way, so that no temporary file stays behind.

    Args:
        number: the signal.
        frame: where the program was.

    Raises:
        Terminated: always.
    """
    raise Terminated(TERMINATED)


@contextmanager
def killable() -> Iterator[None]:
    """Let SIGTERM end the process at once while native code runs: Python would handle it when that code returns.

    Only the handler of the command line gives way; a program that uses the library keeps its own. No output is being
    written while native code runs.
    """
    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is terminate
    if not ours:
        yield
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
