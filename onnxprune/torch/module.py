"""A model as a PyTorch module whose parameters are the model's initializers, and back."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch

from onnxprune.autodiff import default_parameters, modern, without_functions, write_back
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import Model, load
from onnxprune.torch import rules
from onnxprune.torch.program import Program, program, to_tensor
from onnxprune.torch.registry import find_translation
from onnxprune.typing import Array

# Integer constants up to this many elements are sizes and axes: they stay on the CPU, where their numbers are read.
_SHORT = 64
# What wraps a module under names of its own: data parallelism, and torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")


class OnnxModule(torch.nn.Module):
    """A model as a module: `state_dict()` has the initializers by their names.

    Norms use the statistics that the model has stored, and dropout that the graph has switched off stays off, in
    training mode too: the module computes what the model computes.

    Attributes:
        input_names: names of the inputs, in the order of `forward`.
        output_names: names of the outputs.
    """

    def __init__(self, graph: onnx.GraphProto, arrays: Mapping[str, Array], trained: Sequence[str]) -> None:
        """Lay a graph out.

        Args:
            graph: a graph without initializers.
            arrays: elements of its constants by name.
            trained: names of the constants that become parameters; other floats become buffers.

        Raises:
            ModelError: no rule says how PyTorch computes an operator.
        """
        super().__init__()
        self.input_names = [value.name for value in graph.input]
        self.output_names = [value.name for value in graph.output]
        self._program: Program = program(graph, {n: a for n, a in arrays.items() if n not in trained})
        self._sizes: dict[str, Any] = {}
        self._homes: dict[str, tuple[Mapping[str, Any], str]] = {}
        used = {i for call in self._program.calls for i in (*call.inputs, *call.around)} | set(self.output_names)
        for name, array in arrays.items():
            if name not in used:
                continue
            if name not in trained and array.dtype.kind in "iu" and array.size <= _SHORT:
                self._sizes[name] = to_tensor(array)
            else:
                self._homes[name] = self._register(name, to_tensor(array), name in trained)

    def _register(self, name: str, tensor: Any, is_trained: bool) -> tuple[Mapping[str, Any], str]:
        """Put a tensor where its name says, in modules inside of modules; return the dictionary that has it.

        The dictionaries are written to directly: parts of names may be called like attributes of a module ("type").
        """
        *path, leaf = name.split(".")
        place: torch.nn.Module = self
        for part in path:
            place = place._modules.setdefault(part, torch.nn.Module())
        if is_trained:
            place._parameters[leaf] = torch.nn.Parameter(tensor)
            return place._parameters, leaf
        place._buffers[leaf] = tensor
        return place._buffers, leaf

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Compute the outputs of the model.

        Args:
            *inputs: tensors in the order of `input_names`.
            **named: tensors by the names of the inputs.

        Returns:
            The output; a tuple in the order of `output_names` if there are several.

        Raises:
            UsageError: an input is missing or unknown.
            ModelError: PyTorch refuses a node.
        """
        if len(inputs) > len(self.input_names):
            raise UsageError(f"the model takes {len(self.input_names)} inputs, not {len(inputs)}")
        fed = {**dict(zip(self.input_names, inputs, strict=False)), **named}
        wrong = set(fed) ^ set(self.input_names)
        if wrong:
            state = "is not an input of the model" if min(wrong) in fed else "is not fed"
            raise UsageError(f"input {min(wrong)!r} {state}", hint=f"its inputs: {', '.join(self.input_names)}")
        values = {name: home[leaf] for name, (home, leaf) in self._homes.items()}
        results = self._program.run({**values, **self._sizes, **fed})
        return results[0] if len(results) == 1 else tuple(results)


def to_module(model: object, *, parameters: Sequence[str] | None = None) -> OnnxModule:
    """Turn a model into a PyTorch module, for one's own training loop, a GPU or mixed precision.

    Half-precision weights become float32, and are rounded again when `from_module` writes them back.

    Args:
        model: anything that `onnxprune.model.load` takes; it is not changed.
        parameters: initializers to train, names or globs; those that look like weights if None. Other floats become
            buffers.

    Returns:
        A module that takes the model's inputs in order or by name, with a parameter for every initializer to train, of
        the same name.

    Raises:
        ModelError: no rule says how PyTorch computes an operator; the operator and the node are named.
        UsageError: no initializer is called as `parameters` says.

    Example:
        >>> from onnxprune.torch import to_module
        >>> module = to_module("models/digits.onnx")
        >>> sorted(name for name, _ in module.named_parameters())[:2]
        ['conv.bias', 'conv.weight']
    """
    source = load(model)
    version = next((o.version for o in source.proto.opset_import if o.domain in ("", "ai.onnx")), 0)
    if version < 9 and any(node.op_type == "Scan" for node in source.proto.graph.node):
        # ONNX's converter leaves the batch axis of the old operator out.
        raise ModelError("no rule says how PyTorch computes Scan of version 8", hint="export at a newer opset")
    proto, arrays = modern(source, {})
    proto = without_functions(proto, arrays, {}, is_known=lambda node: find_translation(node) is not None)
    trained = default_parameters(proto.graph.node, arrays)
    if parameters is not None:
        floats = [name for name, array in arrays.items() if array.dtype.kind == "f"]
        trained = [n for n in floats if any(n == p or fnmatch.fnmatchcase(n, p) for p in parameters)]
        if not trained:
            raise UsageError(
                f"no float initializer matches {list(parameters)}", hint="`onnxprune inspect` lists the weights"
            )
    return OnnxModule(proto.graph, arrays, trained)


def from_module(model: object, module: torch.nn.Module) -> Model:
    """Write the values of a module's parameters and buffers back into a model, by name.

    Args:
        model: the model that the module was made of; it is not changed.
        module: what `to_module` returned, trained; wrapped for data parallelism or compiled, too.

    Returns:
        The model with the module's values.

    Raises:
        UsageError: no tensor of the module is called like an initializer, or one has another shape.
    """
    source = load(model)
    floats = {name for name, array in modern(source, {})[1].items() if array.dtype.kind == "f"}
    values = {_plain(name): tensor for name, tensor in module.state_dict().items()}
    known = {name: as_array(tensor) for name, tensor in values.items() if name in floats}
    if not known:
        raise UsageError(
            "no tensor of the module has the name of an initializer",
            hint="use a module that to_module made of this model; onnxprune.torch.masks finds renamed weights",
        )
    return write_back(source, known)


def _plain(name: str) -> str:
    """The name without what wrappers put in front of it."""
    while (prefix := next((w for w in _WRAPPERS if name.startswith(w)), None)) is not None:
        name = name.removeprefix(prefix)
    return name


def as_array(tensor: Any) -> Array:
    """Copy a tensor into an array; bfloat16 becomes float32."""
    tensor = tensor.detach().cpu()
    return np.array((tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy())


__all__ = ["OnnxModule", "as_array", "from_module", "rules", "to_module"]
