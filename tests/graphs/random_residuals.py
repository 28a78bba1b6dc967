"""Random networks of residual blocks: streams of vectors, of tokens and of pictures, with whatever stands in blocks.

What these never make: streams in bodies of loops (see `random_motifs.py`), and blocks whose skip is a concatenation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from hypothesis import strategies as st

from tests.graphs.net import Net

ACTS = ("Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu")


@dataclass
class _Stream:
    """A stream under construction.

    Attributes:
        net: the graph.
        draw: draws.
        rank: 2 for vectors, 3 for tokens, 4 for pictures.
        width: its channels.
    """

    net: Net
    draw: Any
    rank: int
    width: int

    def linear(self, x: str, inner: int, outer: int) -> str:
        """A product of every position, with or without a bias."""
        biased = self.draw(st.booleans())
        if self.rank == 4:
            kernel = self.draw(st.sampled_from((1, 3)))
            bias = [self.net.weight(outer)] if biased else []
            weight = self.net.weight(outer, inner, kernel, kernel)
            return self.net.add("Conv", x, weight, *bias, pads=[kernel // 2] * 4)
        made = self.net.add("MatMul", x, self.net.weight(inner, outer))
        return self.net.add("Add", made, self.net.weight(outer)) if biased else made

    def norm(self, x: str, width: int) -> str:
        """A norm, or none."""
        if not self.draw(st.booleans()):
            return x
        if self.rank == 4:
            lists = [self.net.weight(width) for _ in range(3)]
            return self.net.add("BatchNormalization", x, *lists, self.net.add("Abs", self.net.weight(width)))
        return self.net.add("LayerNormalization", x, self.net.weight(width), self.net.weight(width))

    def act(self, x: str) -> str:
        """An activation, or none."""
        op = self.draw(st.sampled_from(("", *ACTS)))
        return self.net.add(op, x) if op else x

    def gated(self, x: str, width: int) -> str:
        """Channels multiplied with what all positions say."""
        if self.rank != 4 or not self.draw(st.booleans()):
            return x
        mean = self.net.add("GlobalAveragePool", x)
        gate = self.net.add("Sigmoid", self.net.add("Conv", mean, self.net.weight(width, width, 1, 1)))
        return self.net.add("Mul", x, gate)

    def mixed(self, x: str) -> str:
        """Attention of tokens to each other."""
        q, k, v = (self.linear(x, self.width, self.width) for _ in range(3))
        scores = self.net.add("MatMul", q, self.net.add("Transpose", k, perm=[0, 2, 1]))
        return self.net.add("MatMul", self.net.add("Softmax", scores, axis=-1), v)

    def branch(self, x: str) -> str:
        """What a block adds."""
        if self.rank == 3 and self.draw(st.booleans()):
            return self.linear(self.mixed(self.norm(x, self.width)), self.width, self.width)
        inner = self.draw(st.sampled_from((4, self.width, 12)))
        made = self.act(self.linear(self.norm(x, self.width), self.width, inner))
        return self.norm(self.linear(self.gated(self.norm(made, inner), inner), inner, self.width), self.width)

    def block(self, x: str) -> str:
        """A block, or a run without a skip, or another width."""
        kind = self.draw(st.sampled_from(("skip", "skip", "skip", "run", "width", "two")))
        if kind == "skip":
            made = self.net.add("Add", *self.draw(st.permutations([x, self.branch(x)])))
            return self.norm(self.act(made), self.width)
        if kind == "two":
            return self.net.add("Add", self.net.add("Add", x, self.branch(x)), self.branch(x))
        old = self.width
        self.width = old if kind == "run" else self.draw(st.sampled_from((4, 6, 8)))
        return self.act(self.linear(x, old, self.width))


@st.composite
def residual_nets(draw: Any) -> onnx.ModelProto:
    """A network of blocks; some streams, and some tensors inside of blocks, are outputs as well."""
    net, rank = Net(seed=draw(st.integers(0, 1 << 16))), draw(st.sampled_from((2, 3, 4)))
    width = draw(st.sampled_from((4, 6, 8)))
    batch = draw(st.sampled_from((2, "batch")))
    shape = {2: [batch, 5], 3: [batch, 3, 5], 4: [batch, 5, 6, 6]}[rank]
    stream = _Stream(net, draw, rank, 5)
    x = net.input(shape, name="x")
    stream.width = width
    x = stream.act(stream.linear(x, 5, width))
    for _ in range(draw(st.integers(1, 5))):
        x = stream.block(x)
        if draw(st.integers(0, 7)) == 0:
            net.output(x, [batch, *[None] * (rank - 1)])
    if draw(st.integers(0, 7)) == 0:
        inside = net.add("Identity", net.nodes[draw(st.integers(1, len(net.nodes) - 1))].output[0])
        net.output(inside, [None] * net.probe(inside).ndim)
    net.output(stream.linear(x, stream.width, 3), [batch, *[None] * (rank - 1)])
    return net.proto()
