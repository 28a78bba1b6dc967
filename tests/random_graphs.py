"""Random graphs out of what real networks consist of: strategies for hypothesis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import numpy_helper

from tests.graphs import FLOAT, INT64, Net
from tests.random_motifs import ImageMotifs, SequenceMotifs

Draw = Callable[[st.SearchStrategy[Any]], Any]
# Norms of random values that hardly differ amplify float noise beyond what a proof in float32 can tell from an error.
EPSILON = 1e-2
OPSETS = (11, 13, 17, 18, 21, 23)


# Ways in which a graph computes a weight from others.
COMPUTED = ("transposed", "flat", "joined", "part", "low-rank", "scaled", "gathered", "constant", "masked")


class Grower:
    """A net that grows by random steps; sizes of tensors are known without running anything."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.net = Net(draw(st.sampled_from(OPSETS)), seed=draw(st.integers(0, 1000)))
        self.batch: int | str = draw(st.sampled_from([2, "batch"]))
        self.shared: dict[tuple[int, ...], str] = {}
        self.ones: dict[int, str] = {}

    def pick(self, *values: Any) -> Any:
        return self.draw(st.sampled_from(values))

    def chance(self) -> bool:
        return bool(self.draw(st.booleans()))

    def width(self, low: int = 2, high: int = 13) -> int:
        return int(self.draw(st.integers(low, high)))

    def scalar(self, value: float) -> str:
        return self.net.const(np.float32(value))

    def reduce_mean(self, x: str, axes: list[int]) -> str:
        return self.net.listed("ReduceMean", x, axes, since=18)

    def shape_part(self, x: str, axis: int) -> str:
        return self.net.add("Gather", self.net.add("Shape", x), self.net.ints(axis))

    def unit_scale(self, size: int) -> str:
        """All-ones: one initializer for all users, as exporters merge them."""
        if size not in self.ones:
            self.ones[size] = self.net.const(np.ones(size, np.float32), f"ones_{size}")
        return self.ones[size]

    def reshape(self, x: str, *target: int) -> str:
        return self.net.add("Reshape", x, self.net.ints(*target))

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        net, count = self.net, len(sizes)
        if net.opset < 13:
            return net.add("Split", x, outputs=count, axis=axis, split=sizes)
        if net.opset >= 18 and len(set(sizes)) == 1 and self.chance():
            return net.add("Split", x, outputs=count, axis=axis, num_outputs=count)
        return net.add("Split", x, net.ints(*sizes), outputs=count, axis=axis)

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        ints = self.net.ints
        return self.net.add("Slice", x, ints(start), ints(end), ints(axis), ints(step))


class Images(ImageMotifs, Grower):
    """Convolutional motifs on [batch, channels, 4, 4]."""

    SIDE = 4

    def start(self, channels: int = 3) -> None:
        self.live = [(self.net.input([self.batch, channels, self.SIDE, self.SIDE]), channels)]
        self.step_conv()

    @property
    def now(self) -> tuple[str, int]:
        return self.live[-1]

    def push(self, name: str, channels: int) -> None:
        self.live.append((name, channels))

    def weight(self, *sizes: int) -> str:
        """Sometimes one that is there already: the layers share it."""
        if sizes in self.shared and self.draw(st.integers(0, 3)) == 0:
            return self.shared[sizes]
        self.shared[sizes] = self.net.weight(*sizes)
        return self.shared[sizes]

    def conv(self, x: str, channels: int, out: int, kernel: int = 1, group: int = 1) -> str:
        given = [self.weight(out, channels // group, kernel, kernel)]
        if self.chance():
            given.append(self.net.weight(out))
        pad = kernel // 2
        return self.net.add("Conv", x, *given, group=group, pads=[pad] * 4)

    def step_conv(self) -> None:
        x, c = self.now
        out = self.width()
        self.push(self.conv(x, c, out, self.pick(1, 3)), out)

    def step_grouped(self) -> None:
        x, c = self.now
        groups = [g for g in range(2, c + 1) if c % g == 0]
        if groups:
            group = self.draw(st.sampled_from(groups))
            out = group * self.draw(st.integers(1, 4))
            self.push(self.conv(x, c, out, 1, group), out)

    def step_transposed(self) -> None:
        x, c = self.now
        group = self.draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
        out = self.draw(st.integers(1, 4))
        self.push(self.net.add("ConvTranspose", x, self.net.weight(c, out, 1, 1), group=group), out * group)

    def step_activation(self) -> None:
        x, c = self.now
        op = self.pick("Relu", "Sigmoid", "Tanh", "Softplus", "Abs", "PRelu", "Clip")
        extra = [self.net.weight(c, 1, 1)] if op == "PRelu" else []
        if op == "Clip":
            extra = [self.scalar(-1), self.scalar(1)]
        self.push(self.net.add(op, x, *extra), c)

    def step_batch_norm(self) -> None:
        x, c = self.now
        variance = self.net.const(np.abs(self.net.rng.standard_normal(c)).astype(np.float32) + 0.5)
        scale = self.unit_scale(c) if self.chance() else self.net.weight(c)
        self.push(self.net.add("BatchNormalization", x, scale, self.net.weight(c), self.net.weight(c), variance), c)

    def step_norm(self) -> None:
        x, c = self.now
        kind = self.pick("instance", "group", "lrn", "layer", "l2")
        if kind == "instance":
            y = self.net.add("InstanceNormalization", x, self.unit_scale(c), self.net.weight(c), epsilon=EPSILON)
        elif kind == "group" and self.net.opset >= 21:
            group = self.draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
            given = [self.unit_scale(c), self.net.weight(c)]
            y = self.net.add("GroupNormalization", x, *given, num_groups=group, epsilon=EPSILON)
        elif kind == "lrn":
            y = self.net.add("LRN", x, size=3)
        elif kind == "l2":
            y = self.net.add("LpNormalization", x, axis=1)
        else:
            y = self.net.add("Sub", x, self.reduce_mean(x, [1]))
        self.push(y, c)

    def step_residual(self) -> None:
        x, c = self.now
        other, d = self.draw(st.sampled_from(self.live[1:]))
        if d != c:
            other = self.conv(other, d, c)
        self.push(self.net.add(self.pick("Add", "Mul", "Max"), x, other), c)

    def step_concat(self) -> None:
        x, c = self.now
        other, d = self.draw(st.sampled_from(self.live[1:]))
        if c + d <= 40:
            self.push(self.net.add("Concat", *((x, other) if self.chance() else (other, x)), axis=1), c + d)

    def step_split(self) -> None:
        x, c = self.now
        if c < 2:
            return
        cut = c // 2 if self.chance() else self.draw(st.integers(1, c - 1))
        parts = self.split(x, [cut, c - cut], 1)
        if cut * 2 == c and self.chance():
            self.push(self.net.add("Mul", parts[0], self.net.add("Sigmoid", parts[1])), cut)
        elif self.chance():
            self.push(self.net.add("Concat", *parts[::-1], axis=1), c)
        else:
            self.push(parts[1], c - cut)

    def step_slice(self) -> None:
        x, c = self.now
        if c < 3:
            return
        kind = self.pick("head", "stride", "reverse")
        if kind == "head":
            start = self.draw(st.integers(0, c - 2))
            end = self.draw(st.integers(start + 1, c))
            self.push(self.slice(x, start, end, 1), end - start)
        elif kind == "stride":
            first = self.draw(st.integers(0, 1))
            self.push(self.slice(x, first, c, 1, 2), len(range(first, c, 2)))
        else:
            self.push(self.slice(x, c - 1, -c - 1, 1, -1), c)

    def step_gather(self) -> None:
        x, c = self.now
        index = self.net.rng.permutation(c)[: self.draw(st.integers(1, c))]
        self.push(self.net.add("Gather", x, self.net.ints(*index), axis=1), len(index))

    def step_shuffle(self) -> None:
        x, c = self.now
        group = self.draw(st.sampled_from([g for g in range(1, c + 1) if c % g == 0]))
        y = self.reshape(x, 0, group, c // group, self.SIDE, self.SIDE)
        y = self.net.add("Transpose", y, perm=[0, 2, 1, 3, 4])
        self.push(self.reshape(y, 0, c, self.SIDE, self.SIDE), c)

    def step_gate(self) -> None:
        x, c = self.now
        mean = self.net.add("GlobalAveragePool", x) if self.chance() else self.reduce_mean(x, [2, 3])
        inner = self.width(1, 6)
        gate = self.conv(self.net.add("Relu", self.conv(mean, c, inner)), inner, c)
        self.push(self.net.add("Mul", x, self.net.add("Sigmoid", gate)), c)

    def step_pool(self) -> None:
        x, c = self.now
        small = self.net.add(self.pick("MaxPool", "AveragePool"), x, kernel_shape=[2, 2], strides=[2, 2])
        empty = self.net.const(np.empty(0, np.float32))
        if self.chance():
            scales = self.net.const(np.array([1, 1, 2, 2], np.float32))
            self.push(self.net.add("Resize", small, empty, scales, mode="nearest"), c)
        else:
            front = self.slice(self.net.add("Shape", x), 0, 2, 0)
            sizes = self.net.add("Concat", front, self.net.ints(self.SIDE, self.SIDE), axis=0)
            self.push(self.net.add("Resize", small, empty, empty, sizes, mode="nearest"), c)

    def step_pixels(self) -> None:
        x, c = self.now
        y = self.conv(x, c, out := 4 * self.draw(st.integers(1, 3)))
        y = self.net.add("DepthToSpace", y, blocksize=2, mode=self.pick("DCR", "CRD"))
        self.push(self.net.add("SpaceToDepth", y, blocksize=2), out)

    def step_scale(self) -> None:
        x, c = self.now
        self.push(self.net.add("Mul", x, self.reshape(self.unit_scale(c), c, 1, 1)), c)

    def step_softmax(self) -> None:
        x, c = self.now
        self.push(self.net.add("Softmax", x, axis=3 if self.net.opset < 13 else self.pick(-1, 2)), c)

    def step_pad(self) -> None:
        x, c = self.now
        front, back = self.draw(st.integers(0, 2)), self.draw(st.integers(0, 2))
        self.push(self.net.add("Pad", x, self.net.ints(0, front, 0, 0, 0, back, 0, 0)), c + front + back)

    def step_tokens(self) -> None:
        """Attention between positions, on channels as features."""
        x, c = self.now
        rows = self.net.add("Transpose", self.reshape(x, 0, 0, -1), perm=[0, 2, 1])
        query, key = (self.net.add("MatMul", rows, self.net.weight(c, 6)) for _ in "qk")
        scores = self.net.add("MatMul", query, self.net.add("Transpose", key, perm=[0, 2, 1]))
        mixed = self.net.add("MatMul", self.net.add("Softmax", scores, axis=2), rows)
        back = self.net.add("Transpose", mixed, perm=[0, 2, 1])
        self.push(self.reshape(back, 0, c, self.SIDE, self.SIDE), c)

    def finish(self) -> onnx.ModelProto:
        x, c = self.now
        side = self.SIDE
        if self.chance():
            self.net.output(self.conv(x, c, 3), [self.batch, 3, side, side])
        elif self.chance():
            flat = self.net.add("Flatten", x)
            self.net.output(self.net.add("Gemm", flat, self.net.weight(4, c * side * side), transB=1), [self.batch, 4])
        else:
            flat = self.net.add("Flatten", self.net.add("GlobalAveragePool", x))
            self.net.output(self.net.add("MatMul", flat, self.net.weight(c, 4)), [self.batch, 4])
        if self.draw(st.integers(0, 4)) == 0:
            extra, d = self.draw(st.sampled_from(self.live[1:]))
            self.net.output(self.net.add("Identity", extra), [self.batch, d, side, side])
        return self.net.proto()


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
        centred = x if kind == "rms" else net.add("Sub", x, self.reduce_mean(x, [2]))
        power = self.reduce_mean(net.add("Mul", centred, centred), [2])
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


class Mixed(Images, Sequences):
    """Convolutions, then tokens."""

    def start(self) -> None:  # type: ignore[override]
        Images.start(self)

    def to_tokens(self) -> None:
        x, c = self.now
        self.LENGTH, self.dim, self.table = self.SIDE * self.SIDE // 4, c, ""
        y = self.net.add("Conv", x, self.weight(c, c, 2, 2), strides=[2, 2])
        self.x = self.net.add("Transpose", self.reshape(y, 0, c, self.LENGTH), perm=[0, 2, 1])


def steps_of(kind: type) -> list[str]:
    return sorted(n for n in dir(kind) if n.startswith("step_"))


@st.composite
def images(draw: Draw) -> onnx.ModelProto:
    grower = Images(draw)
    grower.start()
    for step in draw(st.lists(st.sampled_from(steps_of(Images)), min_size=3, max_size=11)):
        getattr(grower, step)()
    return grower.finish()


@st.composite
def sequences(draw: Draw) -> onnx.ModelProto:
    grower = Sequences(draw)
    grower.start()
    for step in draw(st.lists(st.sampled_from(steps_of(Sequences)), min_size=1, max_size=4)):
        getattr(grower, step)()
    return grower.finish()


@st.composite
def mixed(draw: Draw) -> onnx.ModelProto:
    grower = Mixed(draw)
    grower.start()
    for step in draw(st.lists(st.sampled_from(steps_of(Images)), min_size=1, max_size=4)):
        getattr(grower, step)()
    grower.to_tokens()
    for step in draw(st.lists(st.sampled_from(steps_of(Sequences)), min_size=1, max_size=3)):
        if step != "step_conv":
            getattr(grower, step)()
    return Sequences.finish(grower)


@st.composite
def options(draw: Draw) -> dict[str, Any]:
    return {
        "ratio": draw(st.sampled_from([0.2, 0.5, 0.5, 0.75, 0.9])),
        "allocation": draw(st.sampled_from(["uniform", "global", "greedy", "sensitivity"])),
        "criterion": draw(st.sampled_from(["l1", "l2", "random", "fpgm", "lamp", "bn-scale", "ensemble"])),
        "seed": draw(st.integers(0, 3)),
        "heads": draw(st.sampled_from([True, True, False])),
        "head_dims": draw(st.booleans()),
        "exact_only": draw(st.sampled_from([False, False, True])),
        "round_to": draw(st.sampled_from([1, 1, 2, 4])),
    }


FAMILIES = {"convolutional": images, "transformer": sequences, "mixed": mixed}
