"""Damaged files through the command line, many to a process whose memory is limited; what came of each."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import random
import resource
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.graphs import mutations, random_graphs

ROOT = Path(__file__).parents[2]
# CPU seconds of a file (those of the clock depend on what else runs) and of every megabyte in it (25,000 small nodes),
# seconds of the clock in which nothing happens, bytes.
SECONDS, SECONDS_PER_MB, IDLE, MEMORY = 10, 20, 240, 4 << 30
# What may not happen, whatever the file.
FAILURES = ("died", "hung", "traceback", "out of memory", "no hint", "invalid output")
# What is not in our hands: ONNX Runtime's load and onnx's shape inference cannot be interrupted.
NATIVE = "slow in native code"
# Exit codes of the command line.
OUTCOMES = {0: "pruned", 1: "nothing pruned", 2: "refused", 3: "refused", 4: "does not run"}


@dataclass
class Tally:
    """What came of the files of one mutation."""

    counts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    peak: int = 0
    offences: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        return sum(self.counts.values())

    def add(self, name: str, ran: dict[str, Any]) -> None:
        self.counts[ran["outcome"]] += 1
        self.seconds = max(self.seconds, ran.get("seconds", 0.0))
        self.peak = max(self.peak, ran.get("peak", 0))
        if ran["outcome"] in (*FAILURES, NATIVE):
            self.offences.append(f"{name}: {ran['outcome']}: {ran['said'][:300]}")


# --- the files --------------------------------------------------------------------------------------------


def drawn(strategy: st.SearchStrategy[Any], count: int, number: int = 0) -> list[Any]:
    """Examples of a strategy, the same ones every time; others for another number."""
    found: list[Any] = []
    checks = list(HealthCheck)

    @seed(number)
    @settings(max_examples=count, database=None, deadline=None, suppress_health_check=checks)
    @given(strategy)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found[:count]


def sources() -> list[bytes]:
    """Small models of all kinds: what the example models have, and random graphs."""
    files = sorted((ROOT / "models").glob("*.onnx"))
    found = [f.read_bytes() for f in files if f.stat().st_size < 100_000 and f.name != "external.onnx"]
    strategies = (random_graphs.images(), random_graphs.sequences(), random_graphs.mixed())
    return found + [proto.SerializeToString() for kind in strategies for proto in drawn(kind, 15)]


def damaged(numbers: Iterable[int]) -> Iterator[tuple[str, int, bytes]]:
    """Mutation, number and content; a number alone says what the file is."""
    models, names = sources(), mutations.names()
    for number in numbers:
        rng = random.Random(number)
        name = names[number % len(names)]
        yield name, number, mutations.mutated(name, rng, rng.choice(models), rng.choice(models))


# --- the worker -------------------------------------------------------------------------------------------


class Worker:
    """A process that prunes files until it dies or hangs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "worker.log"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.measure.fuzz"]
        with self.log.open("w") as log:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
            )

    def ask(self, path: Path) -> dict[str, Any]:
        if self.process is None:
            self.process = self.start()
        assert self.process.stdin and self.process.stdout
        with contextlib.suppress(BrokenPipeError):  # it died; that shows below
            print(path, file=self.process.stdin, flush=True)
        hung = not self._is_answered(self.process, SECONDS + SECONDS_PER_MB * path.stat().st_size / 1e6)
        if hung:
            self.process.send_signal(signal.SIGABRT)  # faulthandler says where
        answer = self.process.stdout.readline()
        if answer and not hung:
            return dict(json.loads(answer))
        code = self.process.wait()
        self.process = None
        places = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if "File " in line]
        native = bool(places) and ("/onnxruntime/capi/" in places[0] or "/onnx/shape_inference" in places[0])
        outcome = NATIVE if hung and native else "hung" if hung else "died"
        return {"outcome": outcome, "said": f"exit code {code}: {' < '.join(places[:3])}"}

    def _is_answered(self, process: subprocess.Popen[str], limit: float) -> bool:
        """Wait for the answer, or until the process took more than `limit` CPU seconds."""
        used, start = _cpu_seconds(process.pid), time.monotonic()
        while not select.select([process.stdout], [], [], 0.5)[0]:
            if _cpu_seconds(process.pid) - used > limit or time.monotonic() - start > IDLE:
                return False
        return True

    def close(self) -> None:
        if self.process is not None:
            assert self.process.stdin
            self.process.stdin.close()
            self.process.wait()


def _cpu_seconds(pid: int) -> float:
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def fuzz(numbers: Iterable[int], folder: Path) -> dict[str, Tally]:
    """Every file through the worker; the files that broke something stay in `folder`."""
    tallies = {name: Tally() for name in mutations.names()}
    worker = Worker(folder)
    try:
        for name, number, content in damaged(numbers):
            path = folder / "fuzz.onnx"
            path.write_bytes(content)
            tallies[name].add(str(number), ran := worker.ask(path))
            if ran["outcome"] in FAILURES:
                path.replace(folder / f"{number}.onnx")
    finally:
        worker.close()
    return tallies


def prune(path: Path, out: Path) -> dict[str, Any]:
    """The command on one file, and what of it a user would complain about."""
    from onnxprune.cli import main

    out.unlink(missing_ok=True)
    said, start = io.StringIO(), time.process_time()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main(["prune", str(path), "-o", str(out)])
    seconds, lines = time.process_time() - start, said.getvalue().splitlines()
    outcome = OUTCOMES.get(code, "traceback")
    errors = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    if code == 0:
        outcome = "invalid output" if _refused(out) and not _refused(path) else outcome
    elif outcome != "traceback":
        if "out of memory" in said.getvalue():
            outcome = "out of memory"
        elif out.exists() or len(errors) != 1 or errors[0] != len(lines) - 2:
            outcome = "no hint"
    return {"outcome": outcome, "said": " | ".join(lines[errors[0] if errors else 0 :]), "seconds": seconds}


def _refused(path: Path) -> bool:
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError):
        return True
    return False


def serve() -> None:
    """Answer on standard output for every path on standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    faulthandler.enable()
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        ran = prune(path, path.with_name("out.onnx"))
        ran["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps(ran), flush=True)


def summary(tallies: dict[str, Tally]) -> Sequence[str]:
    return [offence for tally in tallies.values() for offence in tally.offences]


if __name__ == "__main__":
    serve()
