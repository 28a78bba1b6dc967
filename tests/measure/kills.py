"""SIGKILL while an output is written: the output is absent or complete, the input and other files as before."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onnxprune.model import Model, load, save

MODELS = Path(__file__).parents[2] / "models"
# Audit events of what changes a folder.
EVENTS = {"open", "os.rename", "os.remove", "os.link", "os.truncate"}


@dataclass(frozen=True)
class Kind:
    """What is written, and over what.

    Attributes:
        external: the weights go to a data file of their own.
        over: an older output is there, of other weights, and is overwritten.
    """

    external: bool
    over: bool

    def __str__(self) -> str:
        return ("model and data file" if self.external else "one file") + (", over an older output" * self.over)


KINDS = tuple(Kind(external, over) for external in (False, True) for over in (False, True))


@contextmanager
def workplace() -> Iterator[tuple[Model, Path]]:
    """A model with its input file, and where it is to be written."""
    name = "digits.onnx"
    with tempfile.TemporaryDirectory(prefix="onnxprune-kills-") as folder:
        shutil.copy(MODELS / name, folder)
        place = Path(folder) / "out"
        place.mkdir()
        yield load(Path(folder) / name), place / "small.onnx"


def prepare(target: Path, kind: Kind) -> str:
    """Put the older output there, or none: its digest. What killed writers left stays."""
    for path in target.parent.glob("small.onnx*"):
        path.unlink()
    if not kind.over:
        return ""
    older = load(MODELS / "gpt2.onnx")
    save(older, target, external=kind.external)
    return older.digest


def write(model: Model, target: Path, kind: Kind, before: Callable[[], object] = lambda: None) -> int:
    """Save in a process of its own: its id."""
    child = os.fork()
    if child:
        return child
    try:
        before()
        save(model, target, external=kind.external, force=True)
    finally:
        os._exit(0)


def killed(child: int) -> bool:
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def state(model: Model, target: Path, older: str) -> str:
    """What is there: "absent", "older" or "complete"; anything else is an offence."""
    assert (target.parent.parent / "digits.onnx").read_bytes() == (MODELS / "digits.onnx").read_bytes()
    others = {p.name for p in target.parent.iterdir()} - {"small.onnx", "small.onnx.data"}
    assert all(n.startswith(".small.onnx") and n.endswith(".tmp") for n in others), others
    if not target.exists():
        return "absent"
    digest = load(target).digest
    assert digest in (model.digest, older), "the output is neither complete nor what was there"
    return "complete" if digest == model.digest else "older"


def at_random_moments(kind: Kind, count: int, seed: int = 0) -> Counter[str]:
    """Kill `count` writers; how often the output was absent, still the older one, or complete.

    Some are done before they are killed, and only count as runs.
    """
    rng, found = random.Random(seed), Counter[str]()
    with workplace() as (model, target):
        start = time.perf_counter()
        for _ in range(5):
            assert not killed(write(model, target, kind))
        usual = (time.perf_counter() - start) / 5
        while found["killed"] < count:
            older = prepare(target, kind)
            child = write(model, target, kind)
            time.sleep(rng.uniform(0, usual))
            os.kill(child, signal.SIGKILL)
            found["killed"] += killed(child)
            found[state(model, target, older)] += 1
    return found


def at_every_step(kind: Kind) -> list[str]:
    """Kill a writer before its first change of the folder, before the second, and so on until it gets through."""
    found = []
    for step in range(1000):
        with workplace() as (model, target):
            older = prepare(target, kind)
            child = write(model, target, kind, before=lambda step=step: _kill_at(step, target.parent))
            done = not killed(child)
            found.append(state(model, target, older))
            if done:
                return found
    raise AssertionError("the writer never ends")


def _kill_at(step: int, folder: Path) -> None:
    left = [step]

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in EVENTS and any(str(folder) in str(a) for a in arguments):
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)
