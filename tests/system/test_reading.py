"""Files that may be anything: endless devices, pipes that nobody writes to, archives that unpack to terabytes."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from onnxprune import calibration
from onnxprune.allocation import named_rows
from onnxprune.calibration import stored_rows
from onnxprune.cli import paths
from onnxprune.errors import UsageError
from onnxprune.model import load, save
from onnxprune.system import memory, reading
from tests.graphs.net import Net

FEW = 48 << 20


@pytest.fixture
def model(tmp_path):
    net = Net()
    net.output(net.add("MatMul", net.input(["N", 4]), net.weight(4, 2)), ["N", 2])
    path = tmp_path / "model.onnx"
    save(net.model(), path)
    return path


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(reading, "PATIENCE", 0.05)


def as_data(model):
    return lambda path: calibration.read(str(path), load(model), samples=4)


READERS = {
    "model": lambda model: load,
    "plan": lambda model: lambda path: paths.read_text(str(path)),
    "rows": lambda model: lambda path: named_rows.read_rows(str(path)),
    "rows.json": lambda model: lambda path: named_rows.read_rows(str(path)),
    "rows.npy": lambda model: lambda path: named_rows.read_rows(str(path)),
    "data.npz": as_data,
    "data.npy": as_data,
    "data.json": as_data,
}


def peak(read, path):
    """The error of a reader, the bytes that it held at most, and the seconds that it took."""
    start = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(UsageError) as caught:
            read(path)
        return caught.value.message, tracemalloc.get_traced_memory()[1], time.monotonic() - start
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", READERS)
def test_a_device_without_an_end_is_refused(name, model, tmp_path):
    path = tmp_path / name
    path.symlink_to("/dev/zero")
    message, most, seconds = peak(READERS[name](model), path)
    assert str(path) in message and most < FEW and seconds < 20


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_that_nobody_writes_to_is_refused(name, model, tmp_path, impatient):
    path = tmp_path / name
    os.mkfifo(path)
    message, _, seconds = peak(READERS[name](model), path)
    assert str(path) in message and ("pipe" in message or "no regular file" in message) and seconds < 20


def test_a_pipe_may_wait_for_its_writer(model, tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    content = model.read_bytes()

    def write():
        time.sleep(0.2)
        path.write_bytes(content)

    writer = threading.Thread(target=write)
    writer.start()
    assert load(path).proto == load(model).proto
    writer.join()


def test_streams_are_bounded():
    assert reading.read_stream(io.BytesIO(b"x" * 3_000_000), "it") == b"x" * 3_000_000
    with pytest.raises(UsageError, match="it gives more than 1,000 bytes"):
        reading.read_stream(io.BytesIO(b"x" * 1001), "it", 1000)


# --- arrays -------------------------------------------------------------------------------------------------


def npy(shape, data=b""):
    """An array whose header says what it likes."""
    header = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode()
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def archive(content, name="x.npy"):
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr(name, content)
    return stored.getvalue()


def bomb(path, size):
    """A small archive that unpacks to `size` zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made, made.open("x.npy", "w", force_zip64=True) as member:
        member.write(npy((size // 16, 4)))
        for _ in range(size >> 22):
            member.write(bytes(1 << 22))


def test_an_archive_that_unpacks_to_more_than_the_disk_has_is_refused(model, tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    bomb(path, 1 << 28)
    assert path.stat().st_size < 1 << 20
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1 << 27))
    message, most, _ = peak(as_data(model), path)
    assert "takes 0.3 GiB when unpacked" in message and "has 0.1 GiB" in message and most < FEW


def test_of_an_archive_that_unpacks_to_more_than_memory_only_what_is_used_is_held(model, tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    bomb(path, 1 << 28)
    monkeypatch.setattr(stored_rows, "free_memory", lambda: 1 << 27)
    tracemalloc.start()
    try:
        runs = as_data(model)(path)
        assert sum(len(run["x"]) for run in runs) == 4
        assert tracemalloc.get_traced_memory()[1] < (1 << 27) + FEW  # the places to draw from: 8 bytes for a row of 16
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(1 << 40, 4), (1 << 20, 1 << 20), (100, 4)])
@pytest.mark.parametrize("kind", ["npy", "npz", "json", "packed json"])
def test_an_array_that_is_larger_than_its_file_is_refused(model, tmp_path, shape, kind):
    content = npy(shape, bytes(64))
    path = tmp_path / f"x.{kind.split()[-1]}"
    if kind == "npz":
        content = archive(content)
    if kind.endswith("json"):
        content = archive(content) if kind.startswith("packed") else content
        content = json.dumps([{"x": {"array": base64.b64encode(content).decode()}}]).encode()
    path.write_bytes(content)
    message, most, _ = peak(as_data(model), path)
    assert str(path) in message and most < FEW


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["npy", "npz", "compressed"])
def test_arrays_are_read_as_they_were_written(model, tmp_path, order, kind):
    value = np.asarray(np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32), order=order)
    path = tmp_path / ("x.npy" if kind == "npy" else "x.npz")
    {"npy": np.save, "npz": lambda p, v: np.savez(p, x=v), "compressed": lambda p, v: np.savez_compressed(p, x=v)}[
        kind
    ](path, value)
    runs = calibration.read(str(path), load(model), samples=6)
    assert np.array_equal(np.concatenate([run["x"] for run in runs]), value)


def test_a_line_without_an_end_is_no_text(tmp_path, monkeypatch):
    from onnxprune.calibration import text

    monkeypatch.setattr(text, "LONGEST_LINE", 100)
    path = tmp_path / "long.txt"
    path.write_text("short\n" + "x" * 1000)
    lines = text.lines_of(path)
    assert next(lines) == "short"
    with pytest.raises(UsageError, match="a line of more than 100 characters"):
        next(lines)


def test_free_memory_is_what_the_container_has(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemAvailable: 4096 kB\nSwapFree: 1024 kB\n")
    monkeypatch.setattr(memory, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    assert memory.free_memory() == 5 << 20
    for most, found in (("max", 5 << 20), (str(3 << 20), 2 << 20)):
        (tmp_path / "memory.max").write_text(most)
        (tmp_path / "memory.current").write_text(str(1 << 20))
        assert memory.free_memory() == found
    (tmp_path / "memory.max").write_text("max")
    monkeypatch.setattr(memory, "_MEMORY", Path("/nonexistent"))
    assert memory.free_memory() is None


# --- a limit of one's own -----------------------------------------------------------------------------------


def command(*arguments):
    program = [sys.executable, "-m", "onnxprune", *map(str, arguments)]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)


def test_a_run_that_takes_more_than_the_limit_is_an_error(tmp_path):
    net = Net()
    x = net.add("Relu", net.add("Conv", net.input([1, 3, 4096, 4096]), net.weight(8, 3, 1, 1)))
    x = net.add("Add", x, net.weight(1, 1, 4096, 1))  # it fixes the height, so that no smaller input proves it
    net.output(net.add("GlobalAveragePool", net.add("Conv", x, net.weight(4, 8, 1, 1))), [1, 4, 1, 1])
    save(net.model(), tmp_path / "wide.onnx")
    ran = command("--max-memory", "1GB", "prune", tmp_path / "wide.onnx", "-o", tmp_path / "small.onnx")
    assert ran.returncode == 1 and "a run takes" in ran.stderr and "GiB are free" in ran.stderr
    assert not (tmp_path / "small.onnx").exists()
    assert command("--max-memory", "1GB", "inspect", tmp_path / "wide.onnx").returncode == 0


@pytest.mark.parametrize("size", ["much", "-1GB", "4", "0GB", "1e400GB", "5%"])
def test_a_limit_must_be_a_size(size, model):
    ran = command("--max-memory", size, "inspect", model)
    assert ran.returncode == 2 and f"--max-memory: '{size}' is no size" in ran.stderr


def test_data_beyond_the_limit_lie_on_disk(model, tmp_path):
    bomb(tmp_path / "bomb.npz", 1 << 29)
    ran = command("--max-memory", "450MB", "prune", model, "--dry-run", "--data", tmp_path / "bomb.npz")
    assert ran.returncode == 1 and "nothing can be pruned" in ran.stderr and "memory" not in ran.stderr
