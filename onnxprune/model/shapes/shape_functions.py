"""The shape functions of onnx, asked about one node: with numbers, or with symbols in place of sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from onnxprune.model.graph import first_output
from onnxprune.model.shapes import contrib
from onnxprune.model.shapes.polynomials import Dim, Dims, is_known
from onnxprune.system import killable

if TYPE_CHECKING:
    from onnxprune.model.model import Model

# The sizes of an output as a shape function tells them: None where it does not, for an axis or altogether.
Answer = Sequence[Dim | None] | None
# (data type, 0 if it is not told; sizes) of every output.
Answers = list[tuple[int, Answer]]
# Entries of a value that a shape function may look at.
MOST_ENTRIES = 1024


@dataclass
class ShapeFunctions:
    """The shape functions for a model, which are asked once about nodes that look alike.

    Attributes:
        model: the model.
        versions: opset version by domain.
    """

    model: Model
    versions: Mapping[str, int]
    _answers: dict[tuple[object, ...], Answers] = field(default_factory=dict)
    _types: dict[tuple[int, Dims | None], onnx.TypeProto] = field(default_factory=dict)
    _attributes: dict[str, tuple[bytes, ...]] = field(default_factory=dict)

    def ask(
        self,
        node: onnx.NodeProto,
        dims: Mapping[str, Dims],
        dtypes: Mapping[str, int],
        values: Mapping[str, np.ndarray],
    ) -> tuple[Answers, str]:
        """(types and sizes of the outputs, why there are none).

        Args:
            node: the node.
            dims: the sizes of its inputs, where they are known.
            dtypes: the types of its inputs.
            values: the values of its inputs, where they are known.
        """
        negative = (
            f"{i!r} has a size of {d}" for i in node.input for d in dims.get(i, ()) if isinstance(d, int) and d < 0
        )
        if problem := next(negative, ""):  # with which some functions end the process
            return [], problem
        small = {i: values[i] for i in node.input if i in values and values[i].size <= MOST_ENTRIES}
        key = (
            node.domain,
            node.op_type,
            self._attributes_of(node),
            tuple((dtypes.get(i), dims.get(i)) if i else None for i in node.input),
            tuple(small[i].tobytes() if i in small else None for i in node.input),
            tuple(map(bool, node.output)),
        )
        answers = self._answers.get(key)
        if answers is not None:
            return answers, ""
        answers, failure = self._ask(node, dims, dtypes, small)
        if answers:  # a refusal is asked again, since every scan counts its own
            self._answers[key] = answers
        return answers, failure

    def forget(self) -> None:
        """Ask about every node again."""
        self._answers.clear()

    def _attributes_of(self, node: onnx.NodeProto) -> tuple[bytes, ...]:
        """The attributes of a node, which its first output identifies."""
        made = first_output(node)
        known = self._attributes.get(made) if made else None
        if known is None:
            known = self._attributes[made] = tuple(a.SerializeToString() for a in node.attribute)
        return known

    def _ask(
        self,
        node: onnx.NodeProto,
        dims: Mapping[str, Dims],
        dtypes: Mapping[str, int],
        values: Mapping[str, np.ndarray],
    ) -> tuple[Answers, str]:
        proto = self.model.proto
        node = contrib.standard(node)
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            schema = defs.get_schema(node.op_type, self.versions.get(domain, 1), domain)
        except defs.SchemaError:
            return [], ""
        given = {i for i in node.input if i}
        if not given <= dtypes.keys():
            return [], ""
        named = {str(d): d for i in given for d in dims.get(i, ()) if not is_known(d)}
        try:
            with killable():
                found = shape_inference.infer_node_outputs(
                    schema,
                    node,
                    {i: self._type(dtypes[i], dims.get(i)) for i in given},
                    {i: numpy_helper.from_array(v) for i, v in values.items()},
                    opset_imports=list(proto.opset_import),
                    ir_version=min(proto.ir_version, onnx.IR_VERSION),
                )
        except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError) as error:
            return [], "" if named else str(error).splitlines()[0]
        return [_read(found.get(name), named) for name in node.output], ""

    def _type(self, dtype: int, dims: Dims | None) -> onnx.TypeProto:
        kind = self._types.get((dtype, dims))
        if kind is None:
            sizes = None if dims is None else [d if isinstance(d, int) else str(d) for d in dims]
            kind = self._types[dtype, dims] = helper.make_tensor_type_proto(dtype, sizes)
        return kind


def _read(found: onnx.TypeProto | None, named: Mapping[str, Dim]) -> tuple[int, Answer]:
    """What a shape function says of one output."""
    kind = found.tensor_type if found is not None else None
    if kind is None or not kind.elem_type:
        return 0, None
    if not kind.HasField("shape"):
        return kind.elem_type, None
    read = [d.dim_value if d.HasField("dim_value") else named.get(d.dim_param) for d in kind.shape.dim]
    return kind.elem_type, tuple(read)
