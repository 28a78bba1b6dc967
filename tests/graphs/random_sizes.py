"""Random graphs that compute indices, sizes and conditions from a dynamic size: strategies for hypothesis."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper

from tests.graphs.grower import Draw
from tests.graphs.net import BOOL, FLOAT, INT64, Net

WIDTH = 12
TESTS = ("Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual")
# Thresholds lie here; sizes are tried around them.
THRESHOLDS = (1, 4, 20, 50)
SIZES = (1, 2, 3, 5, 16, 19, 21, 37, 51, 53)
USES = ("slice", "gather", "pad", "reshape", "topk", "if", "loop", "window", "split", "swap", "expand")
USES += ("broadcast", "cover")
# Operators that broadcast.
JOINS = ("Add", "Mul", "Max", "Sub", "PRelu", "Where")


class Sizes:
    """Two layers, and between them something that a number computed from the batch decides."""

    def __init__(self, draw: Draw) -> None:
        self.draw, self.net = draw, Net(17, seed=draw(st.integers(0, 99)))
        x = self.net.input(["batch", 6])
        self.size = self.net.add("Gather", self.net.add("Shape", x), self.const(0))
        first = self.net.add("Relu", self.net.add("MatMul", x, self.net.weight(6, 8)))
        self.hidden = self.net.add("MatMul", first, self.net.weight(8, WIDTH))

    def pick(self, *values):
        return self.draw(st.sampled_from(values))

    def const(self, value: int) -> str:
        return self.net.const(np.array(value, np.int64))

    def whole(self, depth: int) -> str:
        """A whole number, computed from the batch or not."""
        net = self.net
        if depth == 0:
            return self.pick(self.size, self.size, self.const(self.pick(*THRESHOLDS)))
        op = self.pick("Add", "Sub", "Mul", "Div", "Mod", "Max", "Min", "Clip", "Where", "Cast", "Floor")
        a = self.whole(depth - 1)
        if op in ("Div", "Mod"):
            return net.add(op, a, self.const(self.pick(2, 3, 7)))
        if op == "Clip":
            return net.add("Clip", a, self.const(self.pick(0, 2)), self.const(self.pick(3, 40)))
        if op == "Floor":
            part = net.add("Mul", net.cast(a, FLOAT), net.const(np.float32(self.pick(0.5, 1.5, 0.1))))
            return net.cast(net.add("Floor", part), INT64)
        if op == "Cast":
            return net.cast(self.test(depth - 1), INT64)
        b = self.whole(self.pick(0, depth - 1))
        return net.add("Where", self.test(depth - 1), a, b) if op == "Where" else net.add(op, a, b)

    def test(self, depth: int) -> str:
        made = self.net.add(self.pick(*TESTS), self.whole(depth), self.const(self.pick(*THRESHOLDS)))
        return self.net.add("Not", made) if self.pick(True, False) else made

    def below(self, limit: int) -> str:
        """A number from 0 to `limit` - 1."""
        made = self.whole(self.pick(1, 2, 3))
        if self.pick(True, False):
            return self.net.add("Max", self.net.add("Min", made, self.const(limit - 1)), self.const(0))
        return self.net.add("Mod", made, self.const(limit))

    def listed(self, x: str) -> str:
        return self.net.add("Unsqueeze", x, self.net.ints(0))

    def part(self, use: str) -> tuple[str, int]:
        """(tensor [batch, width], width)."""
        net, y = self.net, self.hidden
        if use == "slice":
            start = self.below(WIDTH - 3)
            end = net.add("Add", start, self.const(4))
            return net.add("Slice", y, self.listed(start), self.listed(end), net.ints(1)), 4
        if use == "gather":
            return net.add("Gather", y, net.add("Add", self.listed(self.below(8)), net.ints(0, 1, 2, 3)), axis=1), 4
        if use == "pad":
            pads = net.add("Concat", net.ints(0), self.listed(self.below(5)), net.ints(0, 0), axis=0)
            return net.add("Slice", net.add("Pad", y, pads), net.ints(0), net.ints(6), net.ints(1)), 6
        if use == "reshape":
            rows = net.add("Where", self.test(1), self.const(3), self.const(2))
            target = net.add("Concat", net.ints(0), self.listed(rows), net.ints(-1), axis=0)
            return net.add(
                "Slice",
                net.add("ReduceMax", net.add("Reshape", y, target), axes=[1], keepdims=0),
                net.ints(0),
                net.ints(4),
                net.ints(1),
            ), 4
        if use == "topk":
            count = net.add("Add", self.below(5), self.const(4))
            kept = net.add("TopK", y, self.listed(count), outputs=2)[0]
            return net.add("Slice", kept, net.ints(0), net.ints(4), net.ints(1)), 4
        if use == "if":
            return self.branches(y), WIDTH
        if use == "loop":
            return self.loop(y), WIDTH
        if use in ("split", "swap"):
            first = net.add("Add", self.below(5), self.const(4))
            sizes = net.add("Concat", self.listed(first), self.listed(net.add("Sub", self.const(WIDTH), first)), axis=0)
            one, other = net.add("Split", y, sizes, axis=1, outputs=2)
            if use == "swap":
                return net.add("Concat", other, one, axis=1), WIDTH
            return net.add("Slice", one, net.ints(0), net.ints(4), net.ints(1)), 4
        if use == "expand":
            times = net.add("Add", self.below(4), self.const(1))
            target = net.add("Concat", net.ints(1), self.listed(times), net.ints(1), axis=0)
            wide = net.add("Expand", net.add("Unsqueeze", y, net.ints(1)), target)
            return net.add("ReduceSum", wide, net.ints(1), keepdims=0), WIDTH
        if use in ("broadcast", "cover"):
            return self.joined(self.pick(*JOINS), self.one_or_all(use, self.test(self.pick(0, 1)))), WIDTH
        ends = self.listed(net.add("Sub", self.const(0), net.add("Min", self.size, self.const(9))))
        return net.add("Slice", y, ends, net.add("Add", ends, net.ints(1)), net.ints(1)), 1

    def one_or_all(self, use: str, test: str) -> str:
        """As many columns as the layer has, or one, as a test says."""
        net, y = self.net, self.hidden
        columns = self.listed(net.add("Where", test, self.const(WIDTH), self.const(1)))
        if use == "cover":
            return net.add("Slice", y, net.ints(0), columns, net.ints(1))
        whole = net.add("ReduceSum", y, net.ints(1), keepdims=1)
        return net.add("Expand", whole, net.add("Concat", net.ints(1), columns, axis=0))

    def joined(self, op: str, part: str) -> str:
        """The layer, broadcast against a part of it."""
        net, y = self.net, self.hidden
        if op == "Where":
            return net.add("Where", net.add("Greater", part, net.const(np.float32(0))), y, net.const(np.float32(0)))
        return net.add(op, y, part)

    def branches(self, y: str) -> str:
        net = self.net
        turned = net.const(self.net.rng.permutation(WIDTH).astype(np.int64))
        bodies = {
            name: helper.make_graph(
                [helper.make_node("Gather", [y, turned], [f"{name}_out"], axis=1)]
                if name == "then_branch"
                else [helper.make_node("Neg", [y], [f"{name}_out"])],
                name,
                [],
                [helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, ["batch", WIDTH])],
            )
            for name in ("then_branch", "else_branch")
        }
        return str(net.add("If", self.test(self.pick(0, 1, 2)), **bodies))

    def loop(self, y: str) -> str:
        """As many rolls of the columns as a number says."""
        net = self.net
        turned = net.ints(*np.roll(np.arange(WIDTH), 1))
        info = helper.make_tensor_value_info
        body = helper.make_graph(
            [
                helper.make_node("Gather", ["state", turned], ["rolled"], axis=1),
                helper.make_node("Identity", ["going"], ["goes"]),
            ],
            "body",
            [info("step", INT64, []), info("going", BOOL, []), info("state", FLOAT, ["batch", WIDTH])],
            [info("goes", BOOL, []), info("rolled", FLOAT, ["batch", WIDTH])],
        )
        return str(net.add("Loop", self.below(4), "", y, body=body))

    def finish(self) -> onnx.ModelProto:
        part, width = self.part(self.pick(*USES))
        made = self.net.add("Tanh", self.net.add("MatMul", part, self.net.weight(width, 7)))
        made = self.net.add("MatMul", made, self.net.weight(7, 3))
        self.net.output(made, ["batch", 3], FLOAT)
        return self.net.proto()


@st.composite
def computed(draw: Draw) -> onnx.ModelProto:
    return Sizes(draw).finish()
