"""Recurrent layers in every combination of optional inputs and readers, in both layouts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.proof import valid
from onnxprune.proof.compare_outputs import difference
from onnxprune.proof.masked import masked
from onnxprune.tracing.rules.recurrent import GATES, PEEPHOLES
from tests.graphs.net import FLOAT, Net, prune, run
from tests.random.test_graphs import quick
from tests.tracing.rules.test_recurrent import BATCH, SEQUENCE, joined, layer, random


@dataclass
class Recurrences:
    """Random layers on top of each other, with random optional inputs and readers."""

    draw: Callable[[st.SearchStrategy[Any]], Any]

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def net(self, batch_first: bool) -> Net:
        net = Net(
            self.pick(14, 17, 22) if batch_first else self.pick(7, 11, 14, 17, 22), seed=self.draw(st.integers(0, 99))
        )
        width = self.draw(st.integers(2, 7))
        shape = (BATCH, SEQUENCE, width) if batch_first else (SEQUENCE, BATCH, width)
        x = net.make(shape, 2)
        for index in range(self.pick(1, 1, 2)):
            x, width = self.layer(net, x, width, index, batch_first)
        self.read(net, x, (*shape[:2], width), f"out{len(net.outputs)}")
        return net

    def layer(self, net: Net, x: str, width: int, index: int, batch_first: bool) -> tuple[str, int]:
        op, direction = self.pick(*GATES), self.pick("forward", "reverse", "bidirectional")
        hidden, gates, d = self.draw(st.integers(1, 6)), GATES[op], 1 + (direction == "bidirectional")
        state_shape = (BATCH, d, hidden) if batch_first else (d, BATCH, hidden)
        given = [random(net, d, 2 * gates * hidden) if self.pick(True, False) else ""]
        given.append(net.const(np.array([SEQUENCE, 3], np.int32)) if self.pick(True, False) else "")
        given += [self.state(net, state_shape) for _ in range(1 + (op == "LSTM"))]
        if op == "LSTM":
            given.append(random(net, d, PEEPHOLES * hidden) if self.pick(True, False) else "")
        attrs = {"layout": 1} if batch_first else {}
        if op == "GRU":
            attrs["linear_before_reset"] = self.pick(0, 1)
        if self.pick(True, False, False):
            attrs["clip"] = 0.7
        outputs = layer(
            net,
            op,
            x,
            hidden=hidden,
            width=width,
            direction=direction,
            inputs=lambda _: tuple(given),
            prefix=f"l{index}_",
            outputs=3 if op == "LSTM" else 2,
            **attrs,
        )
        for state in outputs[1:]:
            weight = f"out{len(net.outputs)}"
            if self.pick(True, False):
                self.read(net, state, state_shape, weight)
            elif self.pick(True, False):
                turned = (0, 1, 2) if batch_first else (1, 0, 2)
                self.read(net, joined(net, state, turned), (BATCH, d * hidden), weight)
        return joined(net, outputs[0], (0, 1, 2, 3) if batch_first else (0, 2, 1, 3)), d * hidden

    def state(self, net: Net, shape: tuple[int, ...]) -> str:
        kind = self.pick("none", "zeros", "filled", "stored", "input", "made")
        if kind == "filled" and net.opset >= 9:
            value = helper.make_tensor("", FLOAT, [1], [self.pick(0.0, 0.5)])
            return net.add("ConstantOfShape", net.ints(*shape), value=value)
        if kind == "zeros":
            return net.const(np.zeros(shape, np.float32))
        if kind == "stored":
            return random(net, *shape)
        if kind == "input":
            return net.input(shape)
        return net.make(shape, 2, weight=net.fresh("w_state")) if kind == "made" else ""

    def read(self, net: Net, x: str, shape: tuple[int, ...], weight: str) -> None:
        made = net.add("MatMul", x, net.weight(shape[-1], 4, name=weight))
        net.output(made, (*shape[:-1], 4))


@st.composite
def recurrences(draw: Any, batch_first: bool) -> onnx.ModelProto:
    return Recurrences(draw).net(batch_first).proto()


@quick(90)
@given(recurrences(batch_first=False))
def test_random_recurrences(proto: onnx.ModelProto) -> None:
    outcome = prune(proto)
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
    assert "w_in" in {m.tensor for g in outcome.groups.groups for m in g.members}


def time_first(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without `layout`, which the runtime does not know."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.node[:]
    for node in proto.graph.node:
        new = onnx.NodeProto()
        new.CopyFrom(node)
        if node.op_type not in GATES:
            copy.graph.node.append(new)
            continue
        kept = [a for a in node.attribute if a.name != "layout"]
        del new.attribute[:]
        new.attribute.extend(kept)
        for slot in (0, 5, 6):
            if slot < len(node.input) and node.input[slot]:
                new.input[slot] = f"{node.output[0]}_in{slot}"
                copy.graph.node.append(
                    helper.make_node("Transpose", [node.input[slot]], [new.input[slot]], perm=[1, 0, 2])
                )
        new.output[:] = [f"{name}_turned" for name in node.output]
        copy.graph.node.append(new)
        for slot, (turned, name) in enumerate(zip(new.output, node.output, strict=True)):
            perm = [1, 0, 2] if slot else [2, 0, 1, 3]
            copy.graph.node.append(helper.make_node("Transpose", [turned], [name], perm=perm))
    return copy


@quick(60)
@given(recurrences(batch_first=True))
def test_random_recurrences_of_the_other_layout(proto: onnx.ModelProto) -> None:
    outcome = api.run(load(proto), Options(ratio=0.5), verify=False)
    removed = outcome.plan.removed(outcome.groups)
    assert removed.any()
    assert valid(outcome.groups.model, outcome.model) == ""
    wanted = run(time_first(masked(outcome.groups, removed).proto))
    found = run(time_first(outcome.model.proto))
    for name, value in wanted.items():
        assert difference(value, found[name]) <= 1e-5
