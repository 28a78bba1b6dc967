"""Random convolutional graphs."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st

from tests.graphs.grower import EPSILON, Grower
from tests.graphs.random_motifs import ImageMotifs


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
            y = self.net.add("Sub", x, self.reduce_mean(x, [1], c))
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
        mean = self.net.add("GlobalAveragePool", x) if self.chance() else self.reduce_mean(x, [2, 3], self.SIDE**2)
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
