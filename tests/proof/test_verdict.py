"""What a verdict says."""

from __future__ import annotations

import math

from onnxprune.proof import Verdict
from onnxprune.proof.verdict import of_errors


def test_a_verdict_says_what_was_checked() -> None:
    assert Verdict(True, 0.0, 1e-4).runnable
    assert Verdict(True, 0.0, 1e-4).checks == ()


def test_a_verdict_on_errors_names_the_worst_output() -> None:
    held = of_errors({"a": 1e-7, "b": 1e-6}, 1e-5, ["run"], "the reference")
    assert (held.ok, held.error, held.checks) == (True, 1e-6, ["run", "equal to the reference"])
    broken = of_errors({"a": 1e-4, "b": math.inf}, 1e-5, ["run"], "the reference")
    assert not broken.ok and broken.error == math.inf and broken.checks == ["run"]
    assert broken.problem == "output 'b' differs from the reference by inf (relative)"
