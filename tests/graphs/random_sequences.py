"""Random transformers, recurrences and what goes with them."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.graphs.grower import COMPUTED, EPSILON, Grower
from tests.graphs.net import FLOAT, INT64
from tests.graphs.random_motifs import SequenceMotifs


class Sequences(SequenceMotifs, Grower):
    """Transformer motifs on [batch, 4, width]."""

    LENGTH = 4

    def start(self) -> None:
        self.dim = self.draw(st.sampled_from([6, 8, 12]))
        if self.chance():
            ids = self.net.input([self.batch, self.LENGTH], "ids", dtype=INT64)
            self.table = self.net.weight(7, self.dim, name="table")
            self.x = self.net.add("Gather", self.table, ids)
        else:
            self.table = ""
            x = self.net.input([self.batch, self.LENGTH, 5])
            self.x = self.net.add("MatMul", x, self.net.weight(5, self.dim))
        if self.chance():
            self.x = self.net.add("Add", self.x, self.net.weight(self.LENGTH, self.dim, name="positions"))

    def matrix(self, size: int, out: int) -> str:
        """A weight, sometimes one that the graph computes from others."""
        net = self.net
        kind = self.pick(*["plain"] * 6, *COMPUTED)
        if kind == "transposed":
            return net.add("Transpose", net.weight(out, size), perm=[1, 0])
        if kind == "flat":
            return self.reshape(net.weight(size * out), size, out)
        if kind == "joined" and out > 1:
            return net.add("Concat", net.weight(size, 1), net.weight(size, out - 1), axis=1)
        if kind == "part":
            return self.slice(net.weight(size + 2, out), 1, size + 1, 0)
        if kind == "low-rank":
            return net.add("Add", net.weight(size, out), net.add("MatMul", net.weight(size, 3), net.weight(3, out)))
        if kind == "scaled":
            return net.add("Mul", net.weight(size, out), self.reshape(self.unit_scale(size), size, 1))
        if kind == "normed":
            w = net.weight(size, out)
            return net.add("Div", w, net.add("Sqrt", net.listed("ReduceSum", net.add("Mul", w, w), [0], since=13)))
        if kind == "standardised":
            w = net.weight(size, out)
            return net.add("Sub", w, self.reduce_mean(w, [0, 1], size * out))
        if kind == "softmax":
            return net.add("Transpose", net.add("Softmax", net.weight(out, size), axis=1), perm=[1, 0])
        if kind == "positive":
            return net.add("Mul", net.add("Exp", net.weight(size, out)), self.scalar(size**-0.5))
        if kind == "gathered":
            return net.add("Gather", net.weight(size, out), net.ints(*net.rng.permutation(out)), axis=1)
        if kind == "constant":
            return net.add("Constant", value=numpy_helper.from_array(net.rng.standard_normal((size, out)).astype("f")))
        if kind == "masked":
            return net.add("Where", net.const(net.rng.random((size, out)) > 0.5), net.weight(size, out), self.scalar(0))
        return net.weight(size, out)

    def linear(self, x: str, size: int, out: int) -> str:
        y = self.net.add("MatMul", x, self.matrix(size, out))
        return self.net.add("Add", y, self.net.weight(out)) if self.chance() else y

    def norm(self, x: str) -> str:
        net, dim = self.net, self.dim
        kind = self.pick("none", "layer", "rms", "decomposed")
        if kind == "none":
            return x
        if kind == "layer" and net.opset >= 17:
            return net.add("LayerNormalization", x, self.unit_scale(dim), net.weight(dim), epsilon=EPSILON)
        if kind == "rms" and net.opset >= 23:
            return net.add("RMSNormalization", x, self.unit_scale(dim), epsilon=EPSILON)
        centred = x if kind == "rms" else net.add("Sub", x, self.reduce_mean(x, [2], dim))
        power = self.reduce_mean(net.add("Mul", centred, centred), [2], dim)
        root = net.add("Sqrt", net.add("Add", power, self.scalar(EPSILON)))
        return net.add("Mul", net.add("Div", centred, root), self.unit_scale(dim))

    def residual(self, inner: str) -> None:
        self.x = self.net.add("Add", self.x, inner)

    def step_ffn(self) -> None:
        x, inner = self.norm(self.x), self.width(2, 9)
        kind = self.pick("plain", "gated", "packed")
        if kind == "plain":
            h = self.net.add(self.pick("Relu", "Tanh", "Sigmoid"), self.linear(x, self.dim, inner))
        elif kind == "gated":
            gate = self.net.add("Sigmoid", self.linear(x, self.dim, inner))
            h = self.net.add("Mul", gate, self.linear(x, self.dim, inner))
        else:
            parts = self.split(self.linear(x, self.dim, 2 * inner), [inner, inner], 2)
            h = self.net.add("Mul", self.net.add("Tanh", parts[0]), parts[1])
        self.residual(self.linear(h, inner, self.dim))

    def heads_of(self, x: str, heads: int, size: int) -> str:
        net = self.net
        if self.chance():
            rows = self.reshape(x, 0, self.LENGTH, heads, size)
        else:
            front = self.slice(net.add("Shape", x), 0, 2, 0)
            rows = net.add("Reshape", x, net.add("Concat", front, net.ints(heads, size), axis=0))
        return net.add("Transpose", rows, perm=[0, 2, 1, 3])

    def rotated(self, x: str, size: int) -> str:
        net, half = self.net, size // 2
        first, second = self.slice(x, 0, half, 3), self.slice(x, half, size, 3)
        turned = net.add("Concat", net.add("Neg", second), first, axis=3)
        cosine, sine = (net.const(f(np.arange(4 * size).reshape(4, size)).astype(np.float32)) for f in (np.cos, np.sin))
        return net.add("Add", net.add("Mul", x, cosine), net.add("Mul", turned, sine))

    def step_attention(self) -> None:
        net, dim = self.net, self.dim
        heads, size = self.pick(1, 2, 3, 4), self.pick(2, 4, 6)
        width = heads * size
        x = self.norm(self.x)
        shared_keys = heads % 2 == 0 and self.chance()
        if shared_keys:
            groups = heads // 2
            q = self.heads_of(self.linear(x, dim, width), heads, size)
            k, v = (self.heads_of(self.linear(x, dim, groups * size), groups, size) for _ in "kv")
        elif self.chance():
            parts = self.split(self.linear(x, dim, 3 * width), [width] * 3, 2)
            q, k, v = (self.heads_of(p, heads, size) for p in parts)
        elif self.chance():
            rows = self.reshape(self.linear(x, dim, 3 * width), 0, self.LENGTH, 3, heads, size)
            rows = net.add("Transpose", rows, perm=[2, 0, 3, 1, 4])
            q, k, v = (net.add("Gather", rows, net.const(np.int64(i)), axis=0) for i in range(3))
        else:
            q, k, v = (self.heads_of(self.linear(x, dim, width), heads, size) for _ in "qkv")
        if self.chance():
            q, k = self.rotated(q, size), self.rotated(k, size)
        if shared_keys:
            k, v = (self.repeated(t, heads // 2, size) for t in (k, v))
        scores = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 1, 3, 2]))
        if self.chance():
            root = net.add("Sqrt", net.cast(self.shape_part(q, 3), FLOAT))
            scores = net.add("Div", scores, root)
        else:
            scores = net.add("Mul", scores, self.scalar(size**-0.5))
        if self.chance():
            scores = net.add("Add", scores, net.weight(1, heads, 4, 4))
        mixed = net.add("MatMul", net.add("Softmax", scores, axis=3), v)
        back = self.reshape(net.add("Transpose", mixed, perm=[0, 2, 1, 3]), 0, self.LENGTH, width)
        self.residual(self.linear(back, width, dim))

    def repeated(self, x: str, groups: int, size: int) -> str:
        """Every key head twice, as grouped-query attention writes it."""
        net = self.net
        wide = net.listed("Unsqueeze", x, [2], since=13)
        if self.chance():
            wide = net.add("Expand", wide, net.ints(1, 1, 2, 1, 1))
        else:
            wide = net.add("Concat", wide, wide, axis=2)
        return self.reshape(wide, 0, groups * 2, self.LENGTH, size)

    def step_mixer(self) -> None:
        """A layer across positions."""
        net, inner = self.net, self.width(2, 7)
        turned = net.add("Transpose", self.norm(self.x), perm=[0, 2, 1])
        h = net.add("Relu", self.linear(turned, self.LENGTH, inner))
        self.residual(net.add("Transpose", self.linear(h, inner, self.LENGTH), perm=[0, 2, 1]))

    def step_windows(self) -> None:
        net, dim = self.net, self.dim
        windows = self.reshape(self.x, -1, 2, dim)
        scores = net.add("MatMul", windows, net.add("Transpose", windows, perm=[0, 2, 1]))
        mixed = net.add("MatMul", net.add("Softmax", scores, axis=2), self.linear(windows, dim, dim))
        self.residual(self.reshape(mixed, -1, self.LENGTH, dim))

    def step_merge(self) -> None:
        """Pairs of positions become one, and are spread again."""
        net, dim = self.net, self.dim
        pairs = self.reshape(self.x, 0, self.LENGTH // 2, 2 * dim)
        wide = net.add("MatMul", pairs, net.weight(2 * dim, 2 * dim))
        self.residual(self.reshape(wide, 0, self.LENGTH, dim))

    def step_conv(self) -> None:
        net, dim = self.net, self.dim
        turned = net.add("Transpose", self.x, perm=[0, 2, 1])
        y = net.add("Conv", turned, net.weight(dim, 1, 3), group=dim, pads=[1, 1])
        self.residual(net.add("Transpose", y, perm=[0, 2, 1]))

    def step_recurrence(self) -> None:
        """A recurrent layer over the positions, in one direction or both."""
        net, dim, hidden = self.net, self.dim, self.width(1, 7)
        gates, op = self.pick((1, "RNN"), (3, "GRU"), (4, "LSTM"))
        direction = self.pick("forward", "reverse", "bidirectional")
        d = 1 + (direction == "bidirectional")
        turned = net.add("Transpose", self.norm(self.x), perm=[1, 0, 2])
        weights = [self.by_direction(d, gates * hidden, size) for size in (dim, hidden)]
        bias = net.weight(d, 2 * gates * hidden) if self.chance() else ""
        state = ""
        if self.chance():
            sizes = net.add("Concat", net.ints(d), self.shape_part(turned, 1), net.ints(hidden), axis=0)
            state = net.add("Expand", self.scalar(self.pick(0.0, 0.0, 0.3)), sizes)
        states = ["", state, state][: 3 if op == "LSTM" else 2]
        y = net.add(op, turned, *weights, bias, *states, hidden_size=hidden, direction=direction)
        y = self.reshape(net.add("Transpose", y, perm=[2, 0, 1, 3]), 0, self.LENGTH, d * hidden)
        self.residual(self.linear(y, d * hidden, dim))

    def by_direction(self, directions: int, rows: int, columns: int) -> str:
        """The weights of all directions, sometimes joined by the graph."""
        if self.chance():
            return self.net.weight(directions, rows, columns, scale=0.5)
        parts = [self.net.add("Transpose", self.matrix(columns, rows), perm=[1, 0]) for _ in range(directions)]
        lifted = [self.net.listed("Unsqueeze", part, [0], since=13) for part in parts]
        return self.net.add("Concat", *lifted, axis=0)

    def finish(self) -> onnx.ModelProto:
        net, x = self.net, self.norm(self.x)
        if self.table and self.chance():
            weights = net.add("Transpose", self.table, perm=[1, 0])
            net.output(net.add("MatMul", x, weights), [self.batch, self.LENGTH, 7])
        elif self.chance():
            token = net.add("Gather", x, net.const(np.int64(0)), axis=1)
            net.output(net.add("Gemm", token, net.weight(self.dim, 3)), [self.batch, 3])
        else:
            pooled = net.listed("ReduceMean", x, [1], since=18, keepdims=0)
            net.output(net.add("MatMul", pooled, net.weight(self.dim, 3)), [self.batch, 3])
        return net.proto()
