"""Times that are measured in turn, and what may be said about their ratio."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest

from onnxprune.report import text
from onnxprune.runtime import paired_timing
from onnxprune.runtime.paired_timing import SESSIONS, PairedTimings, TimeRatio, compare_timings
from tests.cli.conftest import run  # noqa: F401 - a fixture


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when a simulated model runs."""
    now = [0.0]
    monkeypatch.setattr(paired_timing.time, "perf_counter", lambda: now[0])
    return now


def simulated(clock, seconds, *, of_session=0.0, of_run=0.0, rng=None):
    """A model that takes `seconds`, off by a factor per session and one per run."""
    rng = rng or np.random.default_rng(1)

    @contextmanager
    def opened():
        here = seconds * np.exp(of_session * rng.standard_normal())

        def step():
            clock[0] += here * np.exp(of_run * rng.standard_normal())

        yield step

    return opened


def test_equal_things_show_no_difference_in_nineteen_of_twenty_races(clock):
    """Sessions differ by 3 %: what is constant within a session must not count as known."""
    rng = np.random.default_rng(0)
    one = simulated(clock, 0.004, of_session=0.03, of_run=0.05, rng=rng)
    called = sum(not compare_timings([one, one], seconds=0.3).ratio(1).is_noise for _ in range(100))
    assert 1 <= called <= 11


def test_a_real_difference_is_called_and_measured(clock):
    rng = np.random.default_rng(1)
    given = [simulated(clock, s, of_session=0.02, of_run=0.1, rng=rng) for s in (0.004, 0.003)]
    found = compare_timings(given, seconds=1.0)
    ratio = found.ratio(1)
    assert not ratio.is_noise and ratio.low < 0.75 < ratio.high and ratio.high - ratio.low < 0.15
    assert found.median(0) == pytest.approx(0.004, rel=0.03)
    assert found.percentile(0, 95) > 1.1 * found.median(0)


def test_what_slows_the_machine_for_a_while_meets_all(clock):
    """A load that triples all times in the second half leaves the ratio as it is."""
    began = [0]

    def candidate(seconds):
        @contextmanager
        def opened():
            began[0] += 1
            slow = 3 if began[0] > SESSIONS else 1
            yield lambda: clock.__setitem__(0, clock[0] + slow * seconds)

        return opened

    ratio = compare_timings([candidate(0.01), candidate(0.008)], seconds=0.3).ratio(1)
    assert ratio.value == pytest.approx(0.8) and not ratio.is_noise


def test_what_is_interrupted_now_and_then_counts_with_its_other_runs(clock):
    """A third of all runs takes ten times as long: the ratio is that of the others."""
    rng = np.random.default_rng(0)

    def candidate(seconds):
        @contextmanager
        def opened():
            yield lambda: clock.__setitem__(0, clock[0] + seconds * (10 if rng.random() < 1 / 3 else 1))

        return opened

    found = compare_timings([candidate(0.004), candidate(0.003)], seconds=1.0)
    assert found.ratio(1).value == pytest.approx(0.75) and found.typical(0) == pytest.approx(0.004)


def test_shortest_races_still_have_all_sessions_and_rounds(clock):
    found = compare_timings([simulated(clock, 5.0)], seconds=0.0, least=2)
    assert found.rounds.shape == (SESSIONS, 2, 1) and len(found.runs[0]) == 2 * SESSIONS * paired_timing.FEWEST


def test_one_session_says_nothing_about_noise():
    assert PairedTimings(np.full((1, 3, 2), 0.5), ()).ratio(1).is_noise


def test_noise_is_not_given_as_a_number():
    assert text.ratio(TimeRatio(0.99, 0.97, 1.01)) == "no difference measured (within 3.0 %)"
    assert text.ratio(TimeRatio(0.9, 0.88, 0.92)) == "0.900 (0.880 to 0.920)"
