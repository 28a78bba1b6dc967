"""Paired timing of several candidates: in turn, round after round, in fresh sessions."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import numpy as np

from onnxprune.typing import Array

# A session keeps where its buffers happened to lie, which is worth some percent: only several tell what is noise.
SESSIONS = 6
# Student's t, two-sided 95 %, by the number of sessions: of one degree of freedom less.
QUANTILES = (math.inf, math.inf, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
# Seconds of a turn of the first candidate, and fewest and most runs in a turn: what others do to the machine should
# meet every candidate alike.
TURN, FEWEST, MOST = 0.02, 2, 20
# Most rounds in a session.
LONGEST = 1000

Candidate = Callable[[], AbstractContextManager[Callable[[], object]]]


@dataclass(frozen=True)
class TimeRatio:
    """How the time of one thing compares to that of another.

    Attributes:
        value: time over that of the reference.
        low: lower end of the 95 % confidence interval.
        high: its upper end.
    """

    value: float
    low: float
    high: float

    @property
    def is_noise(self) -> bool:
        """Whether no difference was measured."""
        return self.low <= 1 <= self.high

    @property
    def is_faster(self) -> bool:
        """Whether it was measured to take less time than the reference."""
        return self.high < 1


@dataclass(frozen=True, eq=False)
class PairedTimings:
    """What was measured.

    Attributes:
        rounds: float64[sessions, rounds, candidates], seconds: the fastest run of a turn, of as many runs for all.
            What is interrupted takes longer, but nothing takes less than it must.
        runs: all runs of every candidate, in seconds.
    """

    rounds: Array
    runs: tuple[Array, ...]

    def median(self, candidate: int) -> float:
        """Seconds of a run."""
        return float(np.median(self.runs[candidate]))

    def typical(self, candidate: int) -> float:
        """Seconds of a run that nobody interrupts."""
        return float(np.median(self.rounds[:, :, candidate]))

    def percentile(self, candidate: int, percent: float) -> float:
        """Seconds that `percent` of the runs stay below."""
        return float(np.percentile(self.runs[candidate], percent))

    def ratio(self, candidate: int, reference: int = 0) -> TimeRatio:
        """The time of one candidate over that of another, paired by round; spread is what sessions differ by."""
        logs = np.median(np.log(self.rounds[:, :, candidate] / self.rounds[:, :, reference]), axis=1)
        middle = float(logs.mean())
        if len(logs) < 2:
            return TimeRatio(math.exp(middle), 0.0, math.inf)
        spread = QUANTILES[min(len(logs), len(QUANTILES) - 1)] * float(logs.std(ddof=1)) / math.sqrt(len(logs))
        return TimeRatio(math.exp(middle), math.exp(middle - spread), math.exp(min(middle + spread, 700)))


def compare_timings(
    candidates: Sequence[Candidate], *, seconds: float = 2.0, least: int = 2, sessions: int = SESSIONS, seed: int = 0
) -> PairedTimings:
    """Time candidates against each other.

    Args:
        candidates: each opens what it runs in, and gives what is to be timed.
        seconds: of timed runs, for every candidate.
        least: rounds in a session, however long they take.
        sessions: how often everything is opened again.
        seed: for the order within a round.
    """
    rng = np.random.default_rng(seed)
    runs: list[list[float]] = [[] for _ in candidates]
    rounds: list[list[list[float]]] = []
    for _ in range(sessions):
        with ExitStack() as stack:
            opened = [stack.enter_context(candidate()) for candidate in candidates]
            single = [_warmed(run) for run in opened]
            count = max(FEWEST, min(MOST, round(TURN / max(single[0], 1e-7))))
            each = min(LONGEST, max(least, math.ceil(seconds / sessions / (count * max(*single, 1e-7)))))
            rounds.append([])
            for _ in range(each):
                row = [0.0] * len(opened)
                for index in rng.permutation(len(opened)):
                    taken = _turn(opened[index], count)
                    runs[index] += taken
                    row[index] = min(taken)
                rounds[-1].append(row)
    fewest = min(map(len, rounds))
    return PairedTimings(np.array([r[:fewest] for r in rounds]), tuple(map(np.array, runs)))


def _warmed(run: Callable[[], object]) -> float:
    """Warm up; seconds of a run."""
    run()
    return min(_timed(run) for _ in range(2))


def _turn(run: Callable[[], object], count: int) -> list[float]:
    run()  # caches hold what the one before left
    return [_timed(run) for _ in range(count)]


def _timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
