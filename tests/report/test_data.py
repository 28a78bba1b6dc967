"""Results as plain data."""

from __future__ import annotations

from onnxprune.cost import Cost, counts
from onnxprune.model import load
from onnxprune.report import data
from tests.report.runs import DIGITS, plain


def test_layers_of_a_cost_have_their_widths():
    shown = plain(data.cost(counts.of(load(DIGITS)), layers=True))
    assert [(x["op"], x["width"]) for x in shown["layers"]] == [
        *(("Conv", n) for n in (32, 64, 64, 64)), *(("Gemm", n) for n in (96, 10))
    ]  # fmt: skip
    assert data.cost(Cost(1, 2, 3, ())) == {"params": 1, "macs": 2, "bytes": 3}
