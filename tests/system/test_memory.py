"""The memory that is free, and what is refused without enough of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onnxprune.errors import UsageError
from onnxprune.system import memory


def machine(monkeypatch: pytest.MonkeyPatch, folder: Path, available: int, swap: int = 0) -> None:
    """A machine with so many KiB, without a container."""
    (folder / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {available} kB\nSwapFree: {swap} kB\nHuge: 3\n")
    monkeypatch.setattr(memory, "_MEMORY", folder / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", folder / "no group")
    monkeypatch.setattr(memory, "_STATUS", folder / "no status")


def test_the_least_of_machine_and_container_is_free(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, 1000, 24)
    assert memory.free_memory() == 1024 << 10
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert memory.free_memory() == 1024 << 10, "a container without a limit"
    (tmp_path / "memory.max").write_text("4096\n")
    assert memory.free_memory() == 4091
    (tmp_path / "memory.current").write_text("5000\n")
    assert memory.free_memory() == 0, "never less than nothing"


def test_a_system_that_says_nothing_refuses_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, 0)
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "nothing")
    assert memory.free_memory() is None and memory.shortage(1e30) == ""
    memory.check_fits("everything", 1 << 80)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine(monkeypatch, tmp_path, 1 << 20)
    memory.check_fits("the data", 1 << 30)
    assert memory.shortage(1 << 30) == ""
    with pytest.raises(UsageError, match=r"the data takes 2.0 GiB of memory, 1.0 GiB are free"):
        memory.check_fits("the data", 2 << 30)


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on data is Linux's")
def test_a_limit_makes_allocations_fail() -> None:
    code = (
        "from onnxprune.system.memory import limit_to, free_memory\n"
        "limit_to(200 << 20); free = free_memory()\n"
        "assert free is not None and free < 200 << 20, free\n"
        "try: bytearray(400 << 20)\n"
        "except MemoryError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on data is Linux's")
def test_a_limit_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(UsageError, match="bytes are not allowed here"):
        memory.limit_to(1 << 80)
