"""More of what real networks consist of: steps that the growers of `tests.graphs.random_graphs` inherit."""

from __future__ import annotations

from typing import Any

import numpy as np

# The opset that brought it.
EINSUM = 12


class ImageMotifs:
    """On [batch, channels, 4, 4]; the grower says what is live and makes convolutions."""

    net: Any
    SIDE: int
    now: Any
    pick: Any
    chance: Any
    width: Any
    push: Any
    conv: Any
    split: Any
    reshape: Any

    def step_depthwise(self) -> None:
        x, c = self.now
        out = c * self.pick(1, 1, 2)
        self.push(self.conv(x, c, out, 3, c), out)

    def step_branches(self) -> None:
        """Several kernels side by side."""
        x, c = self.now
        widths = [self.width(1, 7) for _ in range(self.pick(2, 3))]
        parts = [self.conv(x, c, w, self.pick(1, 3)) for w in widths]
        self.push(self.net.add("Concat", *parts, axis=1), sum(widths))

    def step_halves(self) -> None:
        """Half of the channels through a layer of their own, the other half as it is."""
        x, c = self.now
        if c < 2:
            return
        parts = self.split(x, [c // 2, c - c // 2], 1)
        kept = self.conv(parts[0], c // 2, c // 2, self.pick(1, 3))
        self.push(self.net.add("Concat", *self.pick([kept, parts[1]], [parts[1], kept]), axis=1), c)

    def step_einsum(self) -> None:
        x, c = self.now
        if self.net.opset < EINSUM:
            return
        out = self.width()
        form = self.pick("nchw,dc->ndhw", "nchw,cd->ndhw")
        shape = (out, c) if form.startswith("nchw,dc") else (c, out)
        self.push(self.net.add("Einsum", x, self.net.weight(*shape), equation=form), out)

    def step_channels_last(self) -> None:
        x, c = self.now
        out, net = self.width(), self.net
        rows = net.add("Transpose", x, perm=[0, 2, 3, 1])
        rows = net.add("Add", net.add("MatMul", rows, net.weight(c, out)), net.weight(out))
        self.push(net.add("Transpose", net.add("Relu", rows), perm=[0, 3, 1, 2]), out)

    def step_scaled_kernel(self) -> None:
        """A kernel that the graph computes, as weight normalisation leaves it."""
        x, c = self.now
        out, net = self.width(), self.net
        kernel = net.add("Mul", net.weight(out, c, 1, 1), net.weight(out, 1, 1, 1))
        self.push(net.add("Conv", x, kernel, net.weight(out)), out)

    def step_where(self) -> None:
        x, c = self.now
        net = self.net
        positive = net.add("Greater", x, net.const(np.float32(0)))
        self.push(net.add("Where", positive, x, net.add("Mul", x, net.weight(c, 1, 1))), c)

    def step_squeezed(self) -> None:
        """Excitation by fully connected layers."""
        x, c = self.now
        inner, net = self.width(1, 6), self.net
        flat = net.add("Flatten", net.add("GlobalAveragePool", x))
        h = net.add("Relu", net.add("Gemm", flat, net.weight(inner, c), net.weight(inner), transB=1))
        gate = net.add("Sigmoid", net.add("Gemm", h, net.weight(inner, c), net.weight(c)))
        gate = net.listed("Unsqueeze", gate, [2, 3], since=13) if self.chance() else self.reshape(gate, -1, c, 1, 1)
        self.push(net.add("Mul", gate, x), c)

    def step_rows(self) -> None:
        """A reshape that folds positions and leaves channels alone, and back."""
        x, c = self.now
        flat = self.net.add("Relu", self.reshape(x, 0, c, self.SIDE * self.SIDE))
        self.push(self.reshape(flat, 0, c, self.SIDE, self.SIDE), c)


class SequenceMotifs:
    """On [batch, 4, width]."""

    net: Any
    LENGTH: int
    dim: int
    x: str
    pick: Any
    chance: Any
    width: Any
    norm: Any
    linear: Any
    residual: Any
    split: Any
    heads_of: Any
    reshape: Any
    scalar: Any

    def step_one_key_head(self) -> None:
        """Multi-query attention: one key and value for all heads."""
        net, heads, size = self.net, self.pick(2, 3), self.pick(2, 4)
        x = self.norm(self.x)
        q = self.heads_of(self.linear(x, self.dim, heads * size), heads, size)
        k, v = (self.heads_of(self.linear(x, self.dim, size), 1, size) for _ in "kv")
        scores = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 1, 3, 2]))
        mixed = net.add("MatMul", net.add("Softmax", scores, axis=3), v)
        back = self.reshape(net.add("Transpose", mixed, perm=[0, 2, 1, 3]), 0, self.LENGTH, heads * size)
        self.residual(self.linear(back, heads * size, self.dim))

    def step_einsum_attention(self) -> None:
        """Attention in letters, its weights of three axes."""
        net, heads, size = self.net, self.pick(1, 2, 3), self.pick(2, 4)
        if net.opset < EINSUM:
            return
        x = self.norm(self.x)
        q, k, v = (net.add("Einsum", x, net.weight(self.dim, heads, size), equation="bld,dhk->blhk") for _ in range(3))
        scores = net.add("Softmax", net.add("Einsum", q, k, equation="blhk,bmhk->bhlm"), axis=3)
        mixed = net.add("Einsum", scores, v, equation="bhlm,bmhk->blhk")
        self.residual(net.add("Einsum", mixed, net.weight(heads, size, self.dim), equation="blhk,hkd->bld"))

    def step_experts(self) -> None:
        """A soft mixture of two layers."""
        net, x = self.net, self.norm(self.x)
        inner = self.width(2, 6)
        gates = self.split(net.add("Softmax", self.linear(x, self.dim, 2), axis=2), [1, 1], 2)
        parts = []
        for gate in gates:
            h = net.add("Relu", self.linear(x, self.dim, inner))
            parts.append(net.add("Mul", gate, self.linear(h, inner, self.dim)))
        self.residual(net.add("Sum", *parts))

    def step_conv_module(self) -> None:
        """Pointwise, gated, depthwise, pointwise: along the sequence."""
        net, inner = self.net, self.width(2, 6)
        turned = net.add("Transpose", self.norm(self.x), perm=[0, 2, 1])
        wide = net.add("Conv", turned, net.weight(2 * inner, self.dim, 1), net.weight(2 * inner))
        parts = self.split(wide, [inner, inner], 1)
        h = net.add("Mul", parts[0], net.add("Sigmoid", parts[1]))
        h = net.add("Conv", h, net.weight(inner, 1, 3), group=inner, pads=[1, 1])
        self.residual(net.add("Transpose", net.add("Conv", h, net.weight(self.dim, inner, 1)), perm=[0, 2, 1]))

    def step_recurrent(self) -> None:
        net, hidden = self.net, self.width(2, 5)
        op, gates = self.pick(("GRU", 3), ("LSTM", 4), ("RNN", 1))
        steps = net.add("Transpose", self.x, perm=[1, 0, 2])
        given = [net.weight(1, gates * hidden, self.dim), net.weight(1, gates * hidden, hidden)]
        if self.chance():
            given.append(net.weight(1, 2 * gates * hidden))
        made = net.listed("Squeeze", net.add(op, steps, *given, hidden_size=hidden), [1], since=13)
        self.residual(self.linear(net.add("Transpose", made, perm=[1, 0, 2]), hidden, self.dim))

    def step_tied(self) -> None:
        """A layer and its transpose with one weight."""
        net, inner = self.net, self.width(2, 7)
        weight = net.weight(self.dim, inner)
        h = net.add("Tanh", net.add("MatMul", self.norm(self.x), weight))
        self.residual(net.add("MatMul", h, net.add("Transpose", weight, perm=[1, 0])))

    def step_padded(self) -> None:
        """One feature more and one less, at odd widths."""
        net, inner = self.net, self.width(3, 9)
        h = self.linear(self.x, self.dim, inner)
        h = net.add("Pad", h, net.ints(0, 0, 0, 0, 0, 1))
        ends = net.ints(1), net.ints(inner + 1), net.ints(2)
        self.residual(self.linear(net.add("Slice", h, *ends), inner, self.dim))
