"""A tiny ONNX graph builder, and the table of models that the other files of this folder fill.

`net.Relu(x)` appends a node of that operator and returns the name of its output: any operator is a method,
tensors are strings, and Python numbers, lists and numpy arrays among the inputs become constants. Lower-case
methods are layers: they make their own random weights.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper


class Net:
    """A graph under construction.

    Args:
        name: Name of the graph, and the seed of its weights.
        opset: Version of the default operator set.
        ir: IR version; the oldest that the opset allows if None.
        dtype: Type of the weights and of the floating-point constants.
        weights: "initializer", or "constant" for Constant nodes (as CNTK and some converters write).
        constants: Likewise for all that is no weight: "constant" (TorchScript) or "initializer" (dynamo, TF).
        domains: Further operator sets, name to version.
        listed: Whether initializers are listed among the graph's inputs (as IR version 3 demands).
    """

    def __init__(
        self,
        name: str,
        opset: int,
        ir: int | None = None,
        dtype: Any = np.float32,
        weights: str = "initializer",
        constants: str = "constant",
        domains: dict[str, int] | None = None,
        listed: bool = False,
    ):
        self.name, self.opset, self.listed = name, opset, listed
        self.dtype = np.dtype(dtype)
        self.elem = helper.np_dtype_to_tensor_dtype(self.dtype)
        self.store = {"weight": weights, "constant": constants}
        self.imports = [helper.make_opsetid(*pair) for pair in {"": opset, **(domains or {})}.items()]
        self.ir = ir or helper.find_min_ir_version_for(self.imports, ignore_unknown=True)
        self.rng = np.random.RandomState(zlib.crc32(name.encode()))  # a stream that numpy keeps for good
        self.path: list[str] = []
        self.counts: Counter[str] = Counter()
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.metadata: dict[str, str] = {}

    # -- the graph ---------------------------------------------------------------------------------

    def __getattr__(self, op: str) -> Callable[..., Any]:
        if not op[0].isupper():
            raise AttributeError(op)
        return partial(self.op, op)

    def op(self, kind: str, *inputs: Any, outputs: int = 1, **attributes: Any) -> Any:
        """Append a node; return its output's name, or the names of several."""
        label = "/" + "/".join([*self.path, self.unique(kind)])
        names = [f"{label}_output_{i}" for i in range(outputs)]
        for key, value in attributes.items():
            attributes[key] = numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
        operands = [self.operand(i) for i in inputs]
        self.nodes.append(helper.make_node(kind, operands, names, label, **attributes))
        return names[0] if outputs == 1 else names

    def operand(self, value: Any) -> str:
        """The tensor's name for what was given as a node's input: a name, None (left out) or a constant."""
        if value is None or isinstance(value, str):
            return value or ""
        array = np.asarray(value)
        if not isinstance(value, np.ndarray) and array.dtype.kind == "f":
            array = array.astype(self.dtype)
        return self.tensor(self.unique("Constant"), array, role="constant")

    def tensor(self, name: str, array: np.ndarray, role: str = "weight") -> str:
        """Store an array as an initializer or as a Constant node, whichever is this model's habit."""
        label = ".".join([*self.path, name])
        proto = numpy_helper.from_array(np.asarray(array), label)
        if self.store[role] == "initializer":
            self.tensors.append(proto)
        else:
            self.nodes.append(helper.make_node("Constant", [], [label], f"/{label}", value=proto))
        return label

    def input(self, name: str, shape: Sequence[int | str], elem: int | None = None) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, elem or self.elem, shape))
        return name

    def output(self, name: str, tensor: str, shape: Sequence[int | str], elem: int | None = None) -> None:
        """Make a tensor a graph output, under a name of its own."""
        for node in self.nodes:
            node.input[:] = [name if i == tensor else i for i in node.input]
            node.output[:] = [name if i == tensor else i for i in node.output]
        self.outputs.append(helper.make_tensor_value_info(name, elem or self.elem, shape))

    def proto(self) -> onnx.ModelProto:
        listed = self.tensors if self.listed else []
        inputs = self.inputs + [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in listed]
        graph = helper.make_graph(self.nodes, self.name, inputs, self.outputs, self.tensors)
        versions = {"opset_imports": self.imports, "ir_version": self.ir}
        model = helper.make_model(graph, **versions, functions=self.functions, producer_name="onnxprune")
        helper.set_model_props(model, self.metadata)
        return model

    # -- names -------------------------------------------------------------------------------------

    def unique(self, stem: str) -> str:
        key = "/".join([*self.path, stem])
        self.counts[key] += 1
        return stem if self.counts[key] == 1 else f"{stem}_{self.counts[key] - 1}"

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix the names of the nodes and weights made inside, as the modules of a framework do."""
        self.path.append(self.unique(name))
        yield
        self.path.pop()

    # -- weights -----------------------------------------------------------------------------------

    def matrix(self, *shape: int, fan: int | None = None, name: str = "weight") -> str:
        """Weights that keep the variance of activations: `fan` is how many inputs one output sums."""
        scale = np.sqrt(2 / (fan or int(np.prod(shape[1:]))))
        return self.tensor(name, (self.rng.standard_normal(shape) * scale).astype(self.dtype))

    def vector(self, *shape: int, mean: float = 0.0, name: str = "bias") -> str:
        return self.tensor(name, (mean + 0.1 * self.rng.standard_normal(shape)).astype(self.dtype))

    # -- layers ------------------------------------------------------------------------------------

    def conv(self, x, cin, cout, kernel=3, *, stride=1, groups=1, dilation=1, pad=None, bias=True, dims=2):
        """Conv of 1, 2 or 3 spatial axes; `kernel` may be a tuple. Padding keeps the size if None."""
        kernel = kernel if isinstance(kernel, tuple) else (kernel,) * dims
        pads = [dilation * (k // 2) if pad is None else pad for k in kernel] * 2
        with self.scope("conv"):
            weights = [self.matrix(cout, cin // groups, *kernel), *([self.vector(cout)] if bias else [])]
            return self.Conv(
                *(x, *weights),
                group=groups,
                kernel_shape=kernel,
                pads=pads,
                strides=[stride] * len(kernel),
                dilations=[dilation] * len(kernel),
            )

    def conv_relu(self, *args, **options):
        return self.Relu(self.conv(*args, **options))

    def upconv(self, x, cin, cout, kernel=2, *, stride=2, pad=0, groups=1):
        """Transposed convolution."""
        with self.scope("up"):
            weights = self.matrix(cin, cout // groups, kernel, kernel, fan=cin // groups), self.vector(cout)
            shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [pad] * 4}
            return self.ConvTranspose(x, *weights, group=groups, **shape)

    def batch_norm(self, x, size):
        with self.scope("bn"):
            parts = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1}
            return self.BatchNormalization(x, *(self.vector(size, mean=m, name=n) for n, m in parts.items()))

    def layer_norm(self, x, size):
        with self.scope("norm"):
            return self.LayerNormalization(x, self.vector(size, mean=1, name="weight"), self.vector(size))

    def linear(self, x, cin, cout, *, bias=True):
        """MatMul and Add, as exporters write a linear layer on more than two axes."""
        with self.scope("linear"):
            y = self.MatMul(x, self.matrix(cin, cout, fan=cin))
            return self.Add(self.vector(cout), y) if bias else y

    def gemm(self, x, cin, cout, *, trans=True):
        with self.scope("fc"):
            weight = self.matrix(*((cout, cin) if trans else (cin, cout)), fan=cin)
            return self.Gemm(x, weight, self.vector(cout), transB=int(trans))

    def softmax_head(self, x, width, classes=10):
        """Global average pooling and a classifier."""
        return self.gemm(self.Flatten(self.GlobalAveragePool(x)), width, classes)

    # -- operators whose parameters moved from attributes to inputs --------------------------------

    def axes_op(self, kind: str, since: int, x: str, axes: list[int], **attributes: Any) -> str:
        if self.opset >= since:
            return self.op(kind, x, axes, **attributes)
        return self.op(kind, x, axes=axes, **attributes)

    def unsqueeze(self, x: str, *axes: int) -> str:
        return self.axes_op("Unsqueeze", 13, x, list(axes))

    def squeeze(self, x: str, *axes: int) -> str:
        return self.axes_op("Squeeze", 13, x, list(axes))

    def mean(self, x: str, *axes: int, keepdims: int = 1) -> str:
        return self.axes_op("ReduceMean", 18, x, list(axes), keepdims=keepdims)

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        if self.opset >= 13:
            return self.Split(x, sizes, axis=axis, outputs=len(sizes))
        return self.Split(x, split=sizes, axis=axis, outputs=len(sizes))

    # -- shape arithmetic, as tracing exporters write it -------------------------------------------

    def size(self, x: str, axis: int) -> str:
        """The length of an axis, computed in the graph."""
        return self.Gather(self.Shape(x), np.array(axis), axis=0)

    def view(self, x: str, *sizes: int | str) -> str:
        """Reshape to sizes some of which are computed in the graph (scalars, as `size` returns them)."""
        parts = [self.unsqueeze(s, 0) if isinstance(s, str) else [s] for s in sizes]
        return self.Reshape(x, self.Concat(*parts, axis=0))


Touch = Callable[[onnx.ModelProto], None] | None


@dataclass(frozen=True)
class Spec:
    """How to make one model.

    Attributes:
        build: Fills a Net; may return a last touch, a function that edits the finished model. Its
            docstring is "architecture: what the model exhibits".
        options: Arguments of Net.
        runnable: Whether ONNX Runtime can run the model on a CPU.
        strict: Whether onnx can infer the shapes of all its operators.
        save: Writes the model to a path.
    """

    name: str
    build: Callable[[Net], Touch]
    options: dict[str, Any]
    runnable: bool
    strict: bool
    save: Callable[[onnx.ModelProto, Path], None]

    @property
    def about(self) -> tuple[str, str]:
        architecture, _, exhibits = " ".join((self.build.__doc__ or "").split()).partition(": ")
        return architecture, exhibits.rstrip(".")

    def make(self) -> onnx.ModelProto:
        net = Net(self.name, **self.options)
        touch = self.build(net)
        proto = net.proto()
        if touch:
            touch(proto)
        return proto


MODELS: dict[str, Spec] = {}


def model(*, runnable: bool = True, strict: bool = True, save: Callable = onnx.save, **options: Any) -> Callable:
    """Enter a function that builds a model into the table; the model bears the function's name."""

    def enter(build: Callable[[Net], Touch]) -> Callable[[Net], Touch]:
        MODELS[build.__name__] = Spec(build.__name__, build, options, runnable, strict, save)
        return build

    return enter
