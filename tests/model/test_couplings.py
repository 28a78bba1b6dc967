"""What the surroundings of a model demand: it stays with the model, whatever is made of it."""

from __future__ import annotations

from dataclasses import replace

from onnxprune.model import Couplings, HeldWidths
from onnxprune.tracing import retrace, trace
from tests.graphs.net import Net


def test_a_trace_made_again_heeds_them() -> None:
    net = Net()
    hidden = net.add("MatMul", net.input((2, 3)), net.weight(3, 6, name="a"))
    net.output(net.add("MatMul", hidden, net.weight(6, 4, name="b")))
    held = HeldWidths((("channel", 6),), "it is stated")
    model = replace(net.model(), couplings=Couplings(widths=(held,)))
    assert len(trace(net.model()).groups) == 1
    again = retrace(trace(model), {})
    assert not again.groups and again.barriers[0].reason == "it is stated"
