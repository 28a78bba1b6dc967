"""Random graphs of differentiable operators in double precision, where central differences are exact to eight digits.

Operators whose kernels exist in single precision alone (convolutions, pooling, Erf, recurrent layers, norms of images)
stand between two Casts; a graph with one of these is compared to the precision of 32 bits. Weights are used in several
places, operands broadcast, and shapes are computed from others.

What it never makes: functions, quantised tensors and ONNX Runtime's own operators (cases of their own:
`tests/autodiff`), loops that end by a condition, nested bodies, empty tensors, sequences, and DeformConv and RoiAlign.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
LARGEST = 200  # elements of a tensor
SINGLE = "single"  # begins the names of nodes of single precision


class Growing:
    """A graph that grows by one operator at a time.

    Attributes:
        shapes: tensor -> its sizes; any of them may be read again.
        weights: name -> elements of the initializers to differentiate by.
    """

    def __init__(self, draw: Callable[[Any], Any], seed: int) -> None:
        self.draw, self.rng = draw, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: dict[str, Shape] = {"x": (2, 3, 4)}
        self.weights: dict[str, np.ndarray] = {}
        self.constants: dict[str, np.ndarray] = {}

    def number(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def choice(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def pick(self, *, rank: int = 0) -> str:
        """Some tensor of at least `rank` axes, rather a new one."""
        names = [n for n, s in self.shapes.items() if len(s) >= rank]
        return names[-1] if self.number(0, 2) else self.choice(names)

    def weight(self, shape: Shape) -> str:
        """A weight of a shape: one that is there already, or a new one."""
        same = [n for n, w in self.weights.items() if w.shape == shape]
        if same and self.number(0, 1):
            return self.choice(same)
        name = f"w{len(self.weights)}"
        self.weights[name] = self.rng.standard_normal(shape)
        return name

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def integers(self, *numbers: int) -> str:
        return self.constant(np.array(numbers, np.int64))

    def add(self, operator: str, inputs: list[str], shape: Shape | None, **attributes: Any) -> str:
        """Add a node; its output may be read by others if its shape is given."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        if shape is not None:
            self.shapes[name] = shape
        return name

    def single(self, operator: str, inputs: list[str], shape: Shape, **attributes: Any) -> str:
        """Add a node of single precision between casts."""
        cast = [self.add("Cast", [i], None, to=TensorProto.FLOAT) for i in inputs]
        made = self.add(operator, cast, None, name=f"{SINGLE}{len(self.nodes)}", **attributes)
        return self.add("Cast", [made], shape, to=TensorProto.DOUBLE)

    def resized(self, picture: str, sizes: str, shape: Shape, mode: str) -> str:
        """Resize an image in single precision; the sizes stay integers."""
        cast = self.add("Cast", [picture], None, to=TensorProto.FLOAT)
        made = self.add("Resize", [cast, "", "", sizes], None, name=f"{SINGLE}{len(self.nodes)}", mode=mode)
        return self.add("Cast", [made], shape, to=TensorProto.DOUBLE)

    def weight_of(self, shape: Shape) -> str:
        """A weight as a tensor that others may read, too."""
        return self.add("Identity", [self.weight(shape)], shape)

    def inside(self, name: str) -> str:
        """A tensor brought into [-1, 1], where powers stay small."""
        return self.add("Tanh", [name], self.shapes[name])


# --- operators ---------------------------------------------------------------------------------------------

SMOOTH = ("Sigmoid", "Tanh", "Softplus", "Softsign", "Neg", "Elu", "Sin", "Cos", "Atan", "Sinh", "Asinh")
CORNERS = ("Relu", "LeakyRelu", "Abs", "Selu", "ThresholdedRelu")


def unary(g: Growing) -> None:
    x = g.pick()
    operator = g.choice(SMOOTH + CORNERS)
    if operator in ("Sinh", "Sin", "Cos", "Atan", "Asinh", "Elu", "Selu", "ThresholdedRelu"):
        g.single(operator, [g.inside(x)], g.shapes[x])
    else:
        g.add(operator, [x], g.shapes[x])


def positive(g: Growing) -> None:
    """Operators that want numbers above zero, or small ones."""
    x = g.pick()
    operator = g.choice(["Log", "Sqrt", "Reciprocal", "Exp", "Pow"])
    small = g.inside(x)
    base = g.add("Add", [small, g.constant(np.float64(2))], g.shapes[x])
    if operator == "Pow":
        g.add("Pow", [base, g.choice([g.constant(np.float64(g.choice([2, 3, 0.5, -1]))), small])], g.shapes[x])
    else:
        g.add(operator, [small if operator == "Exp" else base], g.shapes[x])


def binary(g: Growing) -> None:
    """An operand of its own shape, broadcast from the right, or with axes of one position."""
    x = g.pick()
    shape = g.shapes[x]
    kept = tuple(n if g.number(0, 2) else 1 for n in shape)[g.number(0, len(shape)) :]
    fitting = [n for n, s in g.shapes.items() if s == shape]
    other = g.choice(fitting) if g.number(0, 1) else g.weight(kept)
    operator = g.choice(["Add", "Sub", "Mul", "Div", "Max", "Min", "Sum"])
    if operator == "Div":
        broad = shape if other in g.shapes else kept
        squared = g.add("Mul", [other, other], broad)
        other = g.add("Add", [squared, g.constant(np.float64(1))], broad)
    pair = [x, other] if g.number(0, 1) else [other, x]
    g.add(operator, pair, shape)


def where(g: Growing) -> None:
    x = g.pick()
    mask = g.constant(g.rng.random(g.shapes[x]) < 0.5)
    g.add("Where", [mask, x, g.weight(g.shapes[x][-1:])], g.shapes[x])


def clip(g: Growing) -> None:
    x = g.pick()
    g.add("Clip", [x, g.constant(np.float64(-0.7)), g.constant(np.float64(0.9))], g.shapes[x])


def matmul(g: Growing) -> None:
    x = g.pick(rank=1)
    shape = g.shapes[x]
    width = g.number(1, 4)
    kind = g.choice(["right", "left", "vector", "stack", "gemm", "einsum"])
    if kind == "left" and len(shape) >= 2:
        g.add("MatMul", [g.weight((width, shape[-2])), x], (*shape[:-2], width, shape[-1]))
    elif kind == "vector":
        g.add("MatMul", [x, g.weight((shape[-1],))], shape[:-1])
    elif kind == "stack" and len(shape) >= 3:
        g.add("MatMul", [x, g.weight((*shape[:-2], shape[-1], width))], (*shape[:-1], width))
    elif kind == "gemm" and len(shape) == 2:
        turned = g.number(0, 1)
        second = (width, shape[1]) if turned else (shape[1], width)
        bias = g.choice([(width,), (1, width), (shape[0], 1), ()])
        g.add("Gemm", [x, g.weight(second), g.weight(bias)], (shape[0], width), transB=turned, alpha=0.7, beta=1.3)
    elif kind == "einsum" and len(shape) == 3:
        g.add("Einsum", [x, g.weight((shape[2], shape[0], 2))], (2, shape[1]), equation="abc,cad->db")
    else:
        g.add("MatMul", [x, g.weight((shape[-1], width))], (*shape[:-1], width))


def reduce(g: Growing) -> None:
    x = g.pick(rank=1)
    shape = g.shapes[x]
    axes = sorted(g.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    keep = g.number(0, 1)
    kinds = ("Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "LogSumExp", "Prod")
    operator = f"Reduce{g.choice(kinds)}"
    made = tuple(1 if a in axes else n for a, n in enumerate(shape) if keep or a not in axes)
    named = [a - len(shape) if g.number(0, 1) else a for a in axes]
    g.add(operator, [x, g.integers(*named)], made, keepdims=keep)


def softmax(g: Growing) -> None:
    x = g.pick(rank=1)
    axis = g.number(-1, len(g.shapes[x]) - 1)
    g.add(g.choice(["Softmax", "LogSoftmax"]), [x], g.shapes[x], axis=axis)


def norm(g: Growing) -> None:
    x = g.pick(rank=1)
    shape = g.shapes[x]
    first = g.number(0, len(shape) - 1)
    width = shape[first:]
    if math.prod(width) > 1:
        g.add("LayerNormalization", [x, g.weight(width), g.weight(width)], shape, axis=first, epsilon=0.1)


def transpose(g: Growing) -> None:
    x = g.pick(rank=2)
    order = g.draw(st.permutations(range(len(g.shapes[x]))))
    g.add("Transpose", [x], tuple(g.shapes[x][a] for a in order), perm=order)


def reshape(g: Growing) -> None:
    """To a written shape, or to one that is computed from the shapes of others."""
    x = g.pick(rank=1)
    shape = g.shapes[x]
    flat = math.prod(shape)
    kind = g.choice(["flat", "split", "computed", "unsqueeze", "flatten"])
    if kind == "split" and shape[-1] % 2 == 0:
        g.add("Reshape", [x, g.integers(*[0] * (len(shape) - 1), 2, -1)], (*shape[:-1], 2, shape[-1] // 2))
    elif kind == "computed":
        sizes = g.add("Shape", [x], None)
        front = g.add("Slice", [sizes, g.integers(0), g.integers(1)], None)
        whole = g.add("Concat", [front, g.integers(-1)], None, axis=0)
        g.add("Reshape", [x, whole], (shape[0], flat // shape[0]))
    elif kind == "unsqueeze" and len(shape) < 4:
        axis = g.number(0, len(shape))
        g.add("Unsqueeze", [x, g.integers(axis)], (*shape[:axis], 1, *shape[axis:]))
    elif kind == "flatten":
        axis = g.number(0, len(shape))
        g.add("Flatten", [x], (math.prod(shape[:axis]), math.prod(shape[axis:])), axis=axis)
    else:
        g.add("Reshape", [x, g.integers(-1)], (flat,))


def expand(g: Growing) -> None:
    x = g.pick(rank=1)
    shape = g.shapes[x]
    target = tuple(2 if n == 1 else n for n in shape)
    if math.prod(target) * 2 <= LARGEST:
        g.add("Expand", [x, g.integers(2, *target)], (2, *target))


def join(g: Growing) -> None:
    x = g.pick(rank=1)
    shape = g.shapes[x]
    axis = g.number(0, len(shape) - 1)
    other = g.weight(tuple(2 if a == axis else n for a, n in enumerate(shape)))
    made = tuple(n + (2 if a == axis else 0) for a, n in enumerate(shape))
    if math.prod(made) <= LARGEST:
        g.add("Concat", [x, other] if g.number(0, 1) else [other, x], made, axis=axis)


def part(g: Growing) -> None:
    """Slices with steps and from the back, gathers with repeats, pads, splits."""
    x = g.pick(rank=1)
    shape = g.shapes[x]
    axis = g.number(0, len(shape) - 1)
    n = shape[axis]

    def along(size: int) -> Shape:
        return tuple(size if a == axis else m for a, m in enumerate(shape))

    kind = g.choice(["slice", "gather", "pad", "split", "tile", "cumsum", "topk", "gather_elements", "scatter"])
    if kind == "slice":
        step = g.choice([1, 2, -1, -2])
        start, stop = (0, n) if step > 0 else (n - 1, -n - 1)
        start = g.number(0, n - 1) if step > 0 else start
        count = len(range(n)[start:stop:step]) if step > 0 else len(range(n - 1, -1, step))
        g.add("Slice", [x, *(g.integers(v) for v in (start, stop, axis, step))], along(count))
    elif kind == "gather":
        index = [g.number(-n, n - 1) for _ in range(g.number(1, 3))]
        g.add("Gather", [x, g.constant(np.array(index, np.int64))], along(len(index)), axis=axis)
    elif kind == "pad":
        mode = g.choice(["constant", "edge", *(["reflect"] if n > 1 else [])])
        g.add("Pad", [x, g.integers(1, 1), "", g.integers(axis)], along(n + 2), mode=mode)
    elif kind == "split" and n > 1:
        first, second = f"t{len(g.nodes)}a", f"t{len(g.nodes)}b"
        g.nodes.append(helper.make_node("Split", [x, g.integers(1, n - 1)], [first, second], axis=axis))
        g.shapes |= {first: along(1), second: along(n - 1)}
    elif kind == "tile" and math.prod(shape) * 2 <= LARGEST:
        g.add("Tile", [x, g.integers(*[2 if a == axis else 1 for a in range(len(shape))])], along(2 * n))
    elif kind == "cumsum":
        flags = {"exclusive": g.number(0, 1), "reverse": g.number(0, 1)}
        g.add("CumSum", [x, g.constant(np.array(axis, np.int64))], shape, **flags)
    elif kind == "topk":
        name = f"t{len(g.nodes)}"
        g.nodes.append(helper.make_node("TopK", [x, g.integers(1)], [name, f"{name}i"], axis=axis))
        g.shapes[name] = along(1)
    elif kind == "gather_elements":
        index = g.rng.integers(-n, n, shape)
        g.add("GatherElements", [x, g.constant(index)], shape, axis=axis)
    elif kind == "scatter":
        index = g.rng.integers(0, n, shape)
        reduction = g.choice(["add", "mul", "max", "min"])
        g.add("ScatterElements", [x, g.constant(index), g.weight(shape)], shape, axis=axis, reduction=reduction)


def image(g: Growing) -> None:
    """Operators on images, of single precision."""
    x = g.pick(rank=3)
    shape = g.shapes[x]
    if len(shape) != 3:
        return
    batch, channels, length = shape
    pools = ("AveragePool", "MaxPool")
    kind = g.choice(["Conv", "ConvTranspose", "depthwise", *pools, "InstanceNorm", "BatchNorm", "Erf"])
    if kind == "Conv" and length >= 2:
        stride = g.number(1, 2)
        made = (length + 2 - 2) // stride + 1
        weights = [g.weight((2, channels, 2)), g.weight((2,))]
        g.single("Conv", [x, *weights], (batch, 2, made), pads=[1, 1], strides=[stride])
    elif kind == "ConvTranspose":
        g.single("ConvTranspose", [x, g.weight((channels, 2, 2))], (batch, 2, 2 * length), strides=[2])
    elif kind == "depthwise":
        g.single("Conv", [x, g.weight((channels, 1, 3))], shape, pads=[1, 1], group=channels)
    elif kind in pools:
        g.single(kind, [x], (batch, channels, length), kernel_shape=[3], pads=[1, 1])
    elif kind == "InstanceNorm" and length > 1:
        g.single("InstanceNormalization", [x, g.weight((channels,)), g.weight((channels,))], shape, epsilon=0.1)
    elif kind == "BatchNorm":
        statistics = [g.constant(g.rng.random(channels) + 0.5) for _ in range(2)]
        inputs = [x, g.weight((channels,)), g.weight((channels,)), *statistics]
        g.single("BatchNormalization", inputs, shape)
    else:
        g.single("Erf", [x], shape)


def recurrent(g: Growing) -> None:
    x = g.pick(rank=3)
    if len(g.shapes[x]) != 3:
        return
    steps, batch, width = g.shapes[x]
    operator, gates = g.choice([("LSTM", 4), ("GRU", 3), ("RNN", 1)])
    weights = [g.weight((1, 2 * gates, width)), g.weight((1, 2 * gates, 2)), g.weight((1, 4 * gates))]
    made = g.single(operator, [g.inside(x), *weights], (steps, 1, batch, 2), hidden_size=2)
    assert made in g.shapes


def chosen(g: Growing) -> None:
    """Masks and indices that are computed from data: constant nearly everywhere, and no path of a gradient."""
    x = g.pick(rank=1)
    shape = g.shapes[x]
    if g.number(0, 1):
        mask = g.add(g.choice(["Greater", "LessOrEqual"]), [x, g.constant(np.float64(0.1))], None)
        g.add("Where", [mask, x, g.weight(shape[-1:])], shape)
        return
    axis = g.number(0, len(shape) - 1)
    place = g.add("ArgMax", [x], None, axis=axis, keepdims=1)
    g.add("GatherElements", [x, place], tuple(1 if a == axis else n for a, n in enumerate(shape)), axis=axis)


def branch(g: Growing) -> None:
    """An If that shapes decide; the branch that is taken has a weight of the graph around it."""
    x = g.pick(rank=1)
    shape = g.shapes[x]
    weight = g.weight(shape[-1:])
    count = g.add("Size", [x], None)
    many = g.add("Greater", [count, g.constant(np.array(5, np.int64))], None)
    number = len(g.nodes)
    bodies = {
        name: helper.make_graph(
            [helper.make_node(operator, [x, weight], [f"b{number}{name}"])],
            name,
            [],
            [helper.make_tensor_value_info(f"b{number}{name}", TensorProto.DOUBLE, shape)],
        )
        for name, operator in (("then_branch", "Mul"), ("else_branch", "Sub"))
    }
    g.add("If", [many], shape, **bodies)
    # The branches read these from outside: `read` sees the inputs of nodes alone.
    g.add("Add", [x, weight], shape)


def loop(g: Growing) -> None:
    """A Scan: h' = tanh(h w + x_t), from a weight on, forwards or backwards."""
    x = g.pick(rank=1)
    shape = g.shapes[x]
    steps, width = math.prod(shape[:-1]), shape[-1]
    if len(shape) != 2:
        x = g.add("Flatten", [x], (steps, width), axis=len(shape) - 1)
    weight, first, number = g.weight((width, width)), g.weight((1, width)), len(g.nodes)
    names = [f"s{number}{part}" for part in ("h", "x", "p", "s", "new", "out")]
    h, row, product, total, new, out = names
    body = helper.make_graph(
        [
            helper.make_node("MatMul", [h, weight], [product]),
            helper.make_node("Add", [product, row], [total]),
            helper.make_node("Tanh", [total], [new]),
            helper.make_node("Identity", [new], [out]),
        ],
        "body",
        [helper.make_tensor_value_info(n, TensorProto.DOUBLE, s) for n, s in ((h, [1, width]), (row, [width]))],
        [helper.make_tensor_value_info(n, TensorProto.DOUBLE, [1, width]) for n in (new, out)],
    )
    last, all_steps = f"t{number}last", f"t{number}all"
    backwards = g.number(0, 1)
    g.nodes.append(
        helper.make_node(
            "Scan", [first, x], [last, all_steps], body=body, num_scan_inputs=1, scan_input_directions=[backwards]
        )
    )
    g.shapes |= {last: (1, width), all_steps: (steps, 1, width)}
    g.add("MatMul", [last, weight], (1, width))


def sampled(g: Growing) -> None:
    """Reads between positions, of single precision."""
    x = g.pick(rank=3)
    shape = g.shapes[x]
    if len(shape) != 3 or min(shape[1:]) < 2 or math.prod(shape) * 2 > LARGEST:
        return
    batch, height, width = shape
    picture = g.add("Unsqueeze", [x, g.integers(1)], (batch, 1, height, width))
    if g.number(0, 1):
        sizes = g.integers(batch, 1, height + 1, 2 * width)
        made = (batch, 1, height + 1, 2 * width)
        g.resized(picture, sizes, made, g.choice(["linear", "nearest", "cubic"]))
    else:
        grid = g.inside(g.weight_of((batch, 2, 2, 2)))
        g.single("GridSample", [picture, grid], (batch, 1, 2, 2), mode=g.choice(["bilinear", "bicubic"]))


FAMILIES = (
    *(chosen, branch, loop, sampled),
    *(unary, positive, binary, binary, where, clip, matmul, matmul, reduce, softmax, norm, transpose, reshape),
    *(reshape, expand, join, part, part, part, image, recurrent),
)


@st.composite
def differentiable(draw: Callable[[Any], Any]) -> tuple[onnx.ModelProto, list[str], bool]:
    """A model, its weights, and whether all of it is in double precision."""
    g = Growing(draw, draw(st.integers(0, 10_000)))
    g.add("Mul", ["x", g.weight((4,))], (2, 3, 4))
    for family in draw(st.lists(st.sampled_from(FAMILIES), min_size=1, max_size=8)):
        family(g)
    read = {i for node in g.nodes for i in node.input}
    ends = [n for n in g.shapes if n not in read]
    outputs = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, g.shapes[n]) for n in ends]
    stored = [numpy_helper.from_array(a, n) for n, a in (*g.weights.items(), *g.constants.items())]
    graph = helper.make_graph(
        g.nodes, "random", [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [2, 3, 4])], outputs, stored
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    double = not any(node.name.startswith(SINGLE) for node in g.nodes)
    return model, sorted(g.weights.keys() & read), double
