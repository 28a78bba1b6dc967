"""How far work is: what is told, and what is shown of it."""

from __future__ import annotations

import io
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import onnxprune
from onnxprune import progress
from onnxprune.progress import ProgressBar, WorkPart, plain_line, prefixed, shown
from tests.cli.conftest import DIGITS

DATA = DIGITS.replace("digits.onnx", "digits_calibration.npz")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_part_is_a_text_that_knows_how_far_the_work_is() -> None:
    part = WorkPart.of("layer", 3, 17, ", wide")
    assert (part, part.whole, part.done, part.total) == ("layer 3 of 17, wide", "layer", 2, 17)
    assert WorkPart.of("layer", 17, 17, finished=True).done == 17
    named = prefixed("step 1, prune", part)
    assert isinstance(named, WorkPart) and named == "step 1, prune: layer 3 of 17, wide"
    assert (named.whole, named.done) == ("step 1, prune: layer", 2) and prefixed(
        "step 1", "tracing"
    ) == "step 1: tracing"


@pytest.mark.parametrize(
    ("stage", "seconds", "line"),
    [
        (WorkPart.of("layer", 3, 17), 10.0, "layer 3 of 17, 1:15 min left"),
        (WorkPart.of("layer", 1, 17), 10.0, "layer 1 of 17, for 10 s"),
        ("tracing", 90.0, "tracing, for 1:30 min"),
        (WorkPart.of("trial", 2, 8, finished=True), 3600.0, "trial 2 of 8, 3:00 h left"),
    ],
)
def test_plain_lines(stage: str, seconds: float, line: str) -> None:
    assert plain_line(stage, seconds) == line


def test_seconds_of_a_given_time_pass_by_themselves() -> None:
    """What is left of a time is no guess by how long the parts took that were counted so far."""
    part = prefixed("step 2", WorkPart.of_time(30.7, 180, ": prune"))
    assert part == "step 2: second 30 of 180: prune"
    assert plain_line(part, 3600.0, 60.0) == f"{part}, 1:30 min left"
    assert plain_line(part, 3600.0, 600.0) == f"{part}, 0 s left"
    assert plain_line(WorkPart.of("layer", 3, 17), 10.0, 60.0).endswith("1:15 min left")


def test_lines_where_nothing_can_be_overwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK", 0.01)
    monkeypatch.setattr(progress, "PLAIN", 0.05)
    stream = io.StringIO()
    bar = ProgressBar(stream)
    bar("tracing")
    time.sleep(0.2)
    bar(WorkPart.of("layer", 2, 4))
    time.sleep(0.2)
    bar.close()
    said = stream.getvalue().splitlines()
    assert "tracing, for 0 s" in said and "layer 2 of 4, 0 s left" in said and "\r" not in stream.getvalue()
    time.sleep(0.1)
    assert stream.getvalue().splitlines() == said


@pytest.mark.parametrize(("shell", "notebook"), [(SimpleNamespace(kernel=object()), True), (SimpleNamespace(), False)])
def test_a_notebook_is_the_kernel_of_one(monkeypatch: pytest.MonkeyPatch, shell: object, notebook: bool) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())  # who starts kernels imports it, too
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert ProgressBar(io.StringIO())._overwrites == notebook


def test_a_bar_on_a_terminal_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "TICK", 0.01)
    stream = Terminal()
    bar = ProgressBar(stream)
    bar(WorkPart.of("layer", 1, 4))
    time.sleep(0.1)
    bar(WorkPart.of("layer", 4, 4))
    time.sleep(0.1)
    bar.hide()
    assert stream.getvalue().endswith("\r")
    bar("writing")
    time.sleep(0.1)
    bar.close()
    text = stream.getvalue()
    assert " left: layer 4 of 4" in text and "00:00 writing" in text and text.endswith("\r")


def test_short_work_shows_nothing_and_leaves_no_thread() -> None:
    stream, before = Terminal(), {*threading.enumerate()}
    bar = ProgressBar(stream)
    bar("tracing")
    bar.close()
    assert stream.getvalue() == ""
    time.sleep(2 * progress.TICK)
    assert {*threading.enumerate()} <= before


def test_shown_gives_what_is_told() -> None:
    told: list[str] = []
    with shown(told.append) as tell:
        assert tell is not None
        tell("tracing")
    with shown(False) as nobody, shown(None) as none, shown(True) as bar:
        assert nobody is None and none is None and isinstance(bar, ProgressBar)
    assert told == ["tracing"]


def test_verbs_tell_their_progress() -> None:
    told: list[str] = []
    result = onnxprune.prune(DIGITS, 0.5, data=DATA, samples=32, progress=told.append)
    assert {"tracing", "scoring", "rewriting"} <= {*told}
    parts = [stage for stage in told if isinstance(stage, WorkPart)]
    assert [p.done for p in parts if p.whole == "repairing layer"] == list(range(len(result.report.recovery.fits)))
    told.clear()
    plan = onnxprune.make_plan(DIGITS, 0.5, data=DATA, samples=32, progress=told.append)
    assert "tracing" in told and [s.remove for s in plan.steps] == [s.remove for s in result.plan.steps]
    for call in (
        lambda: onnxprune.apply(DIGITS, plan, data=DATA, samples=32, progress=told.append),
        lambda: onnxprune.sparsify(DIGITS, 0.5, progress=told.append),
        lambda: onnxprune.shrink(DIGITS, progress=told.append),
        lambda: onnxprune.compress(DIGITS, progress=told.append),
        lambda: onnxprune.drop(DIGITS, count=1, progress=told.append),
        lambda: onnxprune.quantize(DIGITS, progress=told.append),
        lambda: onnxprune.train(DIGITS, DATA, 2, teacher=DIGITS, samples=32, rate=1e-4, progress=told.append),
        lambda: onnxprune.sensitivity(DIGITS, {"image": np.zeros((4, 1, 8, 8), "f4")}, progress=told.append),
    ):
        told.clear()
        call()
        assert told
