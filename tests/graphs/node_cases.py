"""The single-operator models that the `onnx` package ships, at every opset at which their operator changed."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TypeProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onnxprune.errors import RunError
from onnxprune.model import load
from onnxprune.runtime import Session
from tests.graphs.sandwich import versions_of

OLDEST = 7  # the first opset that ONNX Runtime supports
NEWEST_IN_RUNTIME = 26
HELPERS_OPSET = 21  # of the standard operators around an operator of another domain


@dataclass(frozen=True)
class NodeCase:
    """One node with the values of its inputs.

    Attributes:
        name: of the backend test.
        node: the node; its inputs are "in0", "in1"..., its outputs "out0", "out1"...
        version: opset version of the node's domain.
        values: per input: an array, a list (a sequence), or None where it is omitted or an empty optional.
        types: type of every input, None where it is omitted.
    """

    name: str
    node: onnx.NodeProto
    version: int
    values: Sequence[Any]
    types: Sequence[TypeProto | None]

    @property
    def op(self) -> str:
        """The operator, with its domain where it is not the standard one."""
        return f"{self.node.domain}.{self.node.op_type}" if self.node.domain else self.node.op_type

    @property
    def opset(self) -> int:
        """Opset version of the standard domain."""
        return HELPERS_OPSET if self.node.domain else self.version

    @property
    def schema(self) -> defs.OpSchema:
        """The operator's definition."""
        return defs.get_schema(self.node.op_type, self.version, self.node.domain)

    @functools.cached_property
    def attrs(self) -> dict[str, Any]:
        """Attribute values by name."""
        return {a.name: helper.get_attribute_value(a) for a in self.node.attribute}

    def opsets(self) -> list[onnx.OperatorSetIdProto]:
        """What a model around the node imports."""
        found = [helper.make_opsetid("", self.opset)]
        return [*found, helper.make_opsetid(self.node.domain, self.version)] if self.node.domain else found


def all_cases() -> list[NodeCase]:
    """Every backend test of a single node, under its newest definition."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    return [_case(t) for t in tests if len(t.model.graph.node) == 1]


def _case(test: Any) -> NodeCase:
    graph = test.model.graph
    stored = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    types = {i.name: i.type for i in graph.input}
    given = [i.name for i in graph.input if i.name not in stored]
    values = {**stored, **dict(zip(given, test.data_sets[0][0], strict=False))}
    node = onnx.NodeProto()
    node.CopyFrom(graph.node[0])
    old = list(node.input)
    node.input[:] = [f"in{i}" if name else "" for i, name in enumerate(old)]
    node.output[:] = [f"out{i}" if name else "" for i, name in enumerate(node.output)]
    versions = {o.domain: o.version for o in test.model.opset_import}
    since = defs.get_schema(node.op_type, versions[node.domain], node.domain).since_version
    given_values = [_array(values.get(name)) for name in old]
    return NodeCase(
        test.name,
        node,
        since if node.domain else max(since, OLDEST),
        given_values,
        [types.get(name) for name in old],
    )


def _array(value: Any) -> Any:
    """Values of small types come as they are stored, scalars as numbers."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def with_history(case: NodeCase) -> Iterator[NodeCase]:
    """The case under every definition of its operator that can express it, newest first."""
    yield case
    if case.node.domain:
        return
    for version in reversed(versions_of(case.node.op_type, since=OLDEST, until=case.version - 1)):
        older = redeclared(case, version) if version < case.version else None
        if older is not None:
            yield older


def redeclared(case: NodeCase, version: int) -> NodeCase | None:
    """The case under an older definition, inputs that were attributes then made attributes; None if it cannot be."""
    new, old = case.schema, defs.get_schema(case.node.op_type, version, "")
    names = [p.name for p in old.inputs]
    node = onnx.NodeProto(op_type=case.node.op_type, output=case.node.output)
    placed: dict[int, int] = {}
    for slot, name in enumerate(case.node.input):
        formal = new.inputs[min(slot, len(new.inputs) - 1)].name
        known = OLD_NAMES.get((case.node.op_type, formal), formal)
        if not name:
            continue
        if known in old.attributes and known not in names:
            if case.values[slot] is None or not np.size(case.values[slot]):
                return None
            node.attribute.append(_attribute(known, np.asarray(case.values[slot]), old.attributes[known].type))
        elif slot < old.max_input:
            placed[names.index(formal) if formal in names else slot] = slot
        else:
            return None
    for attribute in case.node.attribute:
        if attribute.name in old.attributes:
            node.attribute.append(attribute)
        elif attribute != new.attributes[attribute.name].default_value:
            return None
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), [])
    # Axes count from the back since opset 11 only.
    if len(case.node.output) > old.max_output or (version < 11 and any(a < 0 for a in axes)):
        return None
    order = [placed.get(i) for i in range(max(placed, default=-1) + 1)]
    node.input[:] = ["" if s is None else f"in{i}" for i, s in enumerate(order)]
    values = [None if s is None else case.values[s] for s in order]
    types = [None if s is None else case.types[s] for s in order]
    found = replace(case, node=node, version=version, values=values, types=types)
    return found if _is_valid(found) else None


# Inputs that had another name as attributes.
OLD_NAMES = {("Pad", "constant_value"): "value"}


def _attribute(name: str, value: np.ndarray, kind: Any) -> AttributeProto:
    flat = value.reshape(-1).tolist()
    is_list = kind in (defs.OpSchema.AttrType.INTS, defs.OpSchema.AttrType.FLOATS)
    return helper.make_attribute(name, flat if is_list else flat[0])


def alone(case: NodeCase) -> onnx.ModelProto:
    """The node as a model of its own; the types of its outputs are left to the reader."""
    inputs = [onnx.ValueInfoProto(name=n, type=t) for n, t in zip(case.node.input, case.types, strict=True) if n and t]
    outputs = [onnx.ValueInfoProto(name=n) for n in case.node.output if n]
    graph = helper.make_graph([case.node], "node", inputs, outputs)
    return helper.make_model(graph, opset_imports=case.opsets(), ir_version=10)


def _is_valid(case: NodeCase) -> bool:
    model = onnx.shape_inference.infer_shapes(alone(case))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


Outputs = dict[str, Any]


def run(proto: onnx.ModelProto, feeds: dict[str, Any]) -> Outputs:
    """Outputs by name: from ONNX Runtime, or from ONNX's reference where the runtime has no kernel.

    The runtime may write into what it is given (running statistics of a BatchNormalization): it gets copies.

    Raises:
        RunError: neither can run it.
    """
    feeds = copy.deepcopy(feeds)
    try:
        # As written: the runtime's optimiser moves a Transpose through a blocked quantisation, but not its scales.
        with Session(load(proto, check=False), threads=1, optimised=False) as session:
            return dict(zip(session.outputs, session.run(feeds), strict=True))
    except RunError as error:
        try:
            with np.errstate(all="ignore"):
                found = ReferenceEvaluator(proto).run(None, feeds)
        except Exception as second:
            raise RunError(f"{error.message}; reference: {type(second).__name__}: {second}") from second
        return dict(zip((o.name for o in proto.graph.output), found, strict=True))
