"""The store of measured tables between runs: small JSON files, one per operator, machine and setting."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxprune.runtime import Setting, cache_folder, runtime_version
from onnxprune.system import cores, replacing

FORMAT, VERSION = "onnxprune-latency", 1
# More than any table has: what is larger was not written by `write`.
LARGEST_FILE = 1 << 20


def folder() -> Path:
    """Where tables lie."""
    return cache_folder() / "latency"


@functools.cache
def processor() -> str:
    """What tells processors of different speed apart."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    wanted = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags", "Features", "CPU part")
    told = [line for line in lines if line.partition("\t")[0].strip() in wanted]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()[:16] if told else platform.machine()


def key(signature: Mapping[str, Any], setting: Setting) -> str:
    """Hash of all that a table depends on."""
    about = {"signature": signature, **_about(setting)}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def _about(setting: Setting) -> dict[str, Any]:
    # "All cores" are others in another container on the same machine.
    threads = setting.threads or f"all of {cores()}"
    place = {"provider": setting.provider, "threads": threads, "processor": processor()}
    return {"version": VERSION, "runtime": runtime_version(), **place}


def read_table(name: str, lengths: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], float] | None:
    """The times at `lengths`; None if there is no table with all of them, or the file is not one.

    Args:
        name: the key of the table.
        lengths: what is needed.
    """
    path = folder() / f"{name}.json"
    try:
        if path.stat().st_size > LARGEST_FILE:
            return None
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT or raw["key"] != name:
            return None
        found = {tuple(at): seconds for at, seconds in raw["times"]}
        times = {at: found[at] for at in lengths}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    ok = all(isinstance(s, float) and math.isfinite(s) and s > 0 for s in times.values())
    return times if ok else None


def write(name: str, signature: Mapping[str, Any], setting: Setting, times: Mapping[tuple[int, ...], float]) -> None:
    """Keep a table; a folder that cannot be written to is no failure."""
    document: dict[str, Any] = {"format": FORMAT, "key": name, "about": _about(setting), "signature": dict(signature)}
    document["times"] = [[list(at), seconds] for at, seconds in times.items()]
    path = folder() / f"{name}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as files:
            files[0].write(json.dumps(document).encode())
    except OSError:
        return
