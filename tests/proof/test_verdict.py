"""What a verdict says."""

from __future__ import annotations

from onnxprune.proof import Verdict


def test_a_verdict_says_what_was_checked() -> None:
    assert Verdict(True, 0.0, 1e-4).runnable
    assert Verdict(True, 0.0, 1e-4).checks == ()
