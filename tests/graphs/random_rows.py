"""Random graphs in which values decide how many rows go on: strategies for hypothesis."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.graphs.grower import Draw
from tests.graphs.net import FLOAT, INT64, Net

WIDTH = 8
COUNT = 9
ROWS = ("nonzero", "compress", "topk", "range", "nms", "slice", "unique")
LAYERS = ("dense", "residual", "normed", "gated", "heads", "columns")


class Rows:
    """Layers on rows, with selections of rows between them."""

    def __init__(self, draw: Draw) -> None:
        self.draw, self.net = draw, Net(17, seed=draw(st.integers(0, 99)))
        self.rows = self.net.add("MatMul", self.net.input([COUNT, 5]), self.net.weight(5, WIDTH))

    def pick(self, *values):
        return self.draw(st.sampled_from(values))

    def const(self, value) -> str:
        return self.net.const(np.array(value))

    def score(self, rows: str) -> str:
        """A number per row, by a layer of its own: a cut of the rows' channels changes no selection."""
        made = self.net.add("MatMul", rows, self.net.weight(WIDTH, 1))
        return self.net.add("Squeeze", made, self.net.ints(1))

    def mask(self, rows: str) -> str:
        """Which rows are not the smallest: never none."""
        scores = self.score(rows)
        least = self.net.add("ReduceMin", scores, keepdims=1)
        most = self.net.add("ReduceMax", scores, keepdims=1)
        middle = self.net.add("Mul", self.net.add("Add", least, most), self.const(np.float32(0.5)))
        return self.net.add("GreaterOrEqual", scores, middle)

    def count(self, rows: str) -> str:
        return self.net.add("ReduceSum", self.net.cast(self.mask(rows), INT64), self.net.ints(0), keepdims=1)

    def select(self, rows: str) -> str:
        net, way = self.net, self.pick(*ROWS)
        if way == "nonzero":
            places = net.add("NonZero", self.mask(rows))
            if self.pick(True, False):
                return net.add("GatherND", rows, net.add("Transpose", places, perm=[1, 0]))
            return net.add("Gather", rows, net.add("Squeeze", places, net.ints(0)))
        if way == "compress":
            return net.add("Compress", rows, self.mask(rows), axis=0)
        if way == "topk":
            return net.add("Gather", rows, net.add("TopK", self.score(rows), self.count(rows), outputs=2)[1])
        if way == "range":
            end = net.add("Squeeze", self.count(rows), net.ints(0))
            return net.add("Gather", rows, net.add("Range", self.const(0), end, self.const(1)))
        if way == "slice":
            return net.add("Slice", rows, net.ints(0), self.count(rows), net.ints(0))
        if way == "unique":
            whole = net.cast(net.add("Floor", self.score(rows)), INT64)
            return net.add("Gather", rows, net.add("Unique", whole, outputs=2, axis=0)[1])
        corners = net.add("Unsqueeze", net.add("MatMul", rows, net.weight(WIDTH, 4)), net.ints(0))
        scores = net.add("Unsqueeze", self.score(rows), net.ints(0, 1))
        kept = net.add("NonMaxSuppression", corners, scores, self.const(6), self.const(np.float32([0.5])))
        return net.add("Gather", rows, net.add("Gather", kept, self.const(2), axis=1))

    def layer(self, rows: str) -> str:
        net, kind = self.net, self.pick(*LAYERS)
        wide = self.pick(6, WIDTH, 18)
        if kind == "heads":
            split = [
                net.add("Reshape", net.add("MatMul", rows, net.weight(WIDTH, 8)), net.ints(-1, 2, 4)) for _ in "qkv"
            ]
            query, key, value = (net.add("Transpose", x, perm=[1, 0, 2]) for x in split)
            scores = net.add("Softmax", net.add("MatMul", query, net.add("Transpose", key, perm=[0, 2, 1])), axis=-1)
            joined = net.add("Transpose", net.add("MatMul", scores, value), perm=[1, 0, 2])
            return net.add("MatMul", net.add("Reshape", joined, net.ints(-1, 8)), net.weight(8, WIDTH))
        if kind == "columns":
            turned = net.add("Unsqueeze", net.add("Transpose", rows, perm=[1, 0]), net.ints(0))
            made = net.add("Relu", net.add("Conv", turned, net.weight(wide, WIDTH, 3), pads=[1, 1]))
            made = net.add("Conv", made, net.weight(WIDTH, wide, 1))
            return net.add("Transpose", net.add("Squeeze", made, net.ints(0)), perm=[1, 0])
        inner = net.add("MatMul", rows, net.weight(WIDTH, wide))
        if kind == "gated":
            inner = net.add("Mul", inner, net.add("Sigmoid", net.add("MatMul", rows, net.weight(WIDTH, wide))))
        made = net.add("MatMul", net.add("Relu", inner), net.weight(wide, WIDTH))
        if kind == "normed":
            made = net.add("LayerNormalization", made, net.weight(WIDTH), net.weight(WIDTH), axis=-1)
        return net.add("Add", rows, made) if kind == "residual" else made

    def finish(self) -> onnx.ModelProto:
        rows = self.rows
        for _ in range(self.pick(1, 2, 3)):
            rows = self.layer(rows)
            rows = self.select(rows)
        rows = self.layer(rows)
        self.net.output(self.net.add("MatMul", rows, self.net.weight(WIDTH, 3)), ["rows", 3], FLOAT)
        return self.net.proto()


@st.composite
def selected(draw: Draw) -> onnx.ModelProto:
    return Rows(draw).finish()
