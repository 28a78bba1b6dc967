"""A folder as Linux shows the counters of energy, with numbers of one's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def zone(folder: Path, place: str, name: str, microjoules: int, overflow: int = 1 << 38) -> Path:
    """Make one counter; its file."""
    (folder / place).mkdir(parents=True)
    for file, content in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", overflow)):
        (folder / place / file).write_text(f"{content}\n", encoding="ascii")
    return folder / place / "energy_uj"


def advance(counter: Path, microjoules: int, overflow: int = 1 << 38) -> None:
    """Count further, as the processor does: whoever reads sees a whole number."""
    now = (int(counter.read_text(encoding="ascii")) + microjoules) % overflow
    (new := counter.with_suffix(".new")).write_text(f"{now}\n", encoding="ascii")
    new.replace(counter)


@contextmanager
def burning(counter: Path, watts: float) -> Iterator[None]:
    """Let a counter run with the clock."""
    ended, begun, first = threading.Event(), time.perf_counter(), int(counter.read_text(encoding="ascii"))

    def burn() -> None:
        while not ended.wait(0.002):
            spent = int(watts * 1e6 * (time.perf_counter() - begun))
            advance(counter, first + spent - int(counter.read_text(encoding="ascii")))

    thread = threading.Thread(target=burn)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
