"""What `drop` is asked for is checked before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import DIGITS, Run


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--count", "1"), "-o FILE is missing"),
        (("-o", "{}/small.onnx"), "nothing says what to drop"),
        (("-o", "{}/small.onnx", "--count", "1", "--plan-out", "{}/small.onnx"), "small.onnx"),
    ],
)
def test_requests_that_are_refused(run: Run, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    ran = run("drop", DIGITS, *(text.format(tmp_path) for text in more))
    assert ran.code == 2 and said in ran.err and not list(tmp_path.iterdir())
