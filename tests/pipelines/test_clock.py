"""Stages that are told and timed."""

from __future__ import annotations

import pytest

from onnxprune.pipelines import clock
from onnxprune.pipelines.clock import Clock


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock is a second later."""
    times = iter(range(100))
    monkeypatch.setattr(clock.time, "perf_counter", lambda: float(next(times)))


@pytest.mark.usefixtures("ticks")
def test_stages_are_told_in_order_and_added_up() -> None:
    told: list[str] = []
    timed = Clock(told.append)
    for stage in ("a", "b", "a"):
        with timed(stage):
            pass
    assert told == ["a", "b", "a"] and timed.seconds == {"a": 2.0, "b": 1.0}


@pytest.mark.usefixtures("ticks")
def test_a_function_is_timed_at_every_call() -> None:
    timed = Clock(lambda stage: None)
    double = timed.around("twice", lambda n: 2 * n)
    assert [double(1), double(4)] == [2, 8] and timed.seconds == {"twice": 2.0}


def test_without_a_listener_stages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "onnxprune"), Clock()("tracing"):
        pass
    assert caplog.messages == ["tracing"]
