"""Recurrent layers that are fitted: units that came twice are made up for, whatever the variant of the operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.model import load, to_proto
from onnxprune.recovery import RecoveryOptions, RecoveryReport, recover
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from tests.graphs.net import Net, run

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
HALF, STEPS, BATCH = 4, 6, 8
Feeds = dict[str, np.ndarray]


def doubled(kind: str, given: str, **attributes: Any) -> onnx.ModelProto:
    """A recurrent layer whose units 4..7 are those of 0..3, and read by others with weights of their own.

    `given` says what it has: B a bias, L lengths of the sequences, H initial states, Y its outputs of all steps.
    """
    net, ways, gates = Net(), 2 if attributes.get("direction") == "bidirectional" else 1, GATES[kind]
    x, rng = net.input([STEPS, BATCH, 5]), np.random.default_rng(3)

    def twice(*shape: int, copies: int = gates) -> np.ndarray:
        """Weights [ways, copies * units, ...], alike for both halves of the units."""
        value = rng.standard_normal((ways, copies, 1, HALF, *shape)) * 0.5
        both = np.broadcast_to(value, (ways, copies, 2, HALF, *shape))
        return both.reshape(ways, copies * 2 * HALF, *shape).astype(np.float32)

    entering = [x, net.const(twice(5)), net.const(twice(2 * HALF))]
    entering.append(net.const(twice(copies=2 * gates)) if "B" in given else "")
    entering.append(net.const(np.array([6, 2, 5, 1, 3, 6, 4, 6], np.int32)) if "L" in given else "")
    if "H" in given:
        state = np.broadcast_to(rng.standard_normal((ways, BATCH, 1, HALF)), (ways, BATCH, 2, HALF))
        entering.append(net.const(state.reshape(ways, BATCH, -1).astype(np.float32)))
    steps, last = net.add(kind, *entering, outputs=2, name="rnn", hidden_size=2 * HALF, **attributes)
    net.output(net.add("MatMul", steps if "Y" in given else last, net.weight(2 * HALF, 3), name="y"))
    if "Y" not in given:
        net.nodes[0].output[0] = ""
    return net.proto()


def mended(proto: onnx.ModelProto, method: str = "least-squares") -> tuple[float, RecoveryReport]:
    """Take the second half of the units out and fit; the error of the outputs on other inputs, and what was done."""
    source = load(proto)
    groups = api.trace_model(source)
    (group,) = [
        g
        for g in groups.groups
        if any(m.tensor == groups.tracing.model.proto.graph.node[0].input[2] for m in g.members)
    ]
    labels = groups.tracing.axes[proto.graph.node[0].input[2]][2]
    gone = {int(c) for c in groups.classes.of[labels.reshape(-1, 2 * HALF)[:, HALF:]].reshape(-1)}
    removal = Removal(
        groups, removed_classes(groups, {group.name: [i for i, c in enumerate(group.classes) if int(c) in gone]})
    )
    rng = np.random.default_rng(5)
    runs: list[Feeds] = [{"x": rng.standard_normal((STEPS, BATCH, 5)).astype(np.float32)} for _ in range(24)]
    model, report = recover(removal, rewrite(groups, removal.removed_classes), runs[:20], RecoveryOptions(method))
    wanted, found = (np.stack([run(m, feeds=feeds)["y"] for feeds in runs[20:]]) for m in (proto, to_proto(model)))
    return float(np.square(wanted - found).sum() / np.square(wanted - wanted.mean()).sum()), report


@pytest.mark.parametrize(
    ("kind", "given", "attributes"),
    [
        ("LSTM", "BY", {}),
        ("LSTM", "BLHY", {"direction": "bidirectional"}),
        ("LSTM", "B", {"direction": "reverse"}),
        ("GRU", "BY", {"linear_before_reset": 1}),
        ("GRU", "BLHY", {"linear_before_reset": 1, "direction": "bidirectional"}),
        ("GRU", "BLHY", {"direction": "bidirectional"}),
        ("GRU", "Y", {"direction": "reverse"}),
        ("RNN", "BLHY", {"direction": "bidirectional"}),
        ("RNN", "Y", {"activations": ["Relu"]}),
    ],
)
def test_what_came_twice_is_made_up_for(kind: str, given: str, attributes: dict[str, Any]) -> None:
    proto = doubled(kind, given, **attributes)
    cut, _ = mended(proto, "bias")
    error, report = mended(proto)
    assert error < 1e-4 < 0.01 < cut
    fitted = {fit.node: fit for fit in report.fits}
    assert len(fitted) == 2 and all(fit.kept and fit.after < 1e-4 for fit in fitted.values())


def test_weights_that_several_steps_share_stay_as_they_were_cut() -> None:
    net = Net()
    w, r, head = net.weight(1, 32, 5), net.weight(1, 32, 8), net.weight(8, 3)
    for name in ("one", "two"):
        x = net.input([STEPS, BATCH, 5])
        steps, _ = net.add("LSTM", x, w, r, outputs=2, name=name, hidden_size=8)
        net.output(net.add("MatMul", steps, head))
    source = load(net.proto())
    outcome = api.run(source, Options(ratio=0.5))
    rng = np.random.default_rng(0)
    runs = [{n: rng.standard_normal((STEPS, BATCH, 5)).astype(np.float32) for n in ("x", "x1")} for _ in range(8)]
    _, report = recover(Removal(outcome.groups, outcome.plan.removed(outcome.groups)), outcome.model, runs)
    assert [fit.node for fit in report.fits] == [source.proto.graph.node[-1].name]  # the head, which they share, too
