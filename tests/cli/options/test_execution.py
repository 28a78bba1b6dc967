"""Where and how models run, as it was given."""

from __future__ import annotations

import pytest

from onnxprune.cli.options.execution import MOST_THREADS, Where
from onnxprune.errors import UsageError
from tests.cli.conftest import DIGITS, Run


def test_a_place_is_checked_when_it_is_needed() -> None:
    place = Where("cpu", 2).settled({"n": 4})
    assert (place.setting.provider, place.setting.threads, dict(place.sizes)) == ("CPUExecutionProvider", 2, {"n": 4})
    with pytest.raises(UsageError, match="has no provider 'Abacus'"):
        Where("Abacus", 0).settled({})


@pytest.mark.parametrize("threads", [-1, MOST_THREADS + 1, "many"])
def test_threads_out_of_range_are_refused(run: Run, threads: object) -> None:
    done = run("bench", DIGITS, "--threads", threads)
    assert done.code == 2 and "--threads" in done.err
