"""How results are written for people."""

from __future__ import annotations

import math

from onnxprune.proof import Verdict
from onnxprune.report import data, text


def test_table():
    lines = text.table(("name", "n"), [("a", "1"), ("bcdef", "20")], ("n",))
    assert lines == ["name    n", "a       1", "bcdef  20"]
    assert text.table(("name",), []) == ["name"]


def test_verdict_without_a_figure():
    failed = Verdict(False, math.nan, 1e-4, "the pruned model does not run", {"y": math.inf})
    assert text.proof(failed) == "failed: the pruned model does not run"
    assert data.verdict(failed)["error"] is None and data.verdict(failed)["outputs"] == {"y": None}
