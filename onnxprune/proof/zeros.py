"""Proof of zeros: the model with zeros in its weights equals the original that multiplies these weights with masks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune.errors import RunError
from onnxprune.model import Model, Names, inlined
from onnxprune.model.flatten import flattened
from onnxprune.proof.compare_outputs import differences
from onnxprune.proof.prove import LONGEST_PROOF, tolerance_of
from onnxprune.proof.runnable import runs_to_compare
from onnxprune.proof.validity import valid
from onnxprune.proof.verdict import Verdict, of_errors
from onnxprune.rewriting import ZeroStep, with_dense
from onnxprune.rewriting.rewrite import nested
from onnxprune.runtime import Session
from onnxprune.tracing import Groups
from onnxprune.typing import Array, Feeds

# Whether the elements of a stored weight, as [groups, D, O] or as they are stored, have the pattern that they should.
Holds = Callable[[Array], bool]


@dataclass(frozen=True)
class Claim:
    """What is said of a model with zeros.

    Attributes:
        steps: the elements that are zero.
        plain: the model with zeros, and nothing else changed.
        dense: the model in which elements that stay may have other values.
        final: the same with weights stored sparse, which is handed out; `dense` where none is.
        patterns: name of a weight -> whether its stored elements have its pattern.
    """

    steps: Sequence[ZeroStep]
    plain: Model
    dense: Model
    final: Model
    patterns: Mapping[str, Holds]


def prove_zeros(
    groups: Groups, claim: Claim, *, sizes: Mapping[str, int] | None = None, samples: Sequence[Feeds] = ()
) -> Verdict:
    """Prove a model with zeros against the original.

    Args:
        groups: the traced original.
        claim: what is to be proven.
        sizes: numbers for symbolic dims.
        samples: inputs of the user, which are run beside random ones.

    Returns:
        The verdict; its error is that of the model with zeros and nothing else changed.
    """
    tolerance, checks = tolerance_of(groups), ["checker and strict shape inference"]
    # Strict shape inference takes a sparse initializer for a tensor of another type, which few operators allow.
    for model in (claim.plain, claim.dense):
        if problem := valid(groups.model, model):
            return Verdict(False, math.nan, tolerance, problem, checks=checks)
    if problem := _stored_problem(groups, claim):
        return Verdict(False, math.nan, tolerance, problem, checks=checks)
    checks.append(f"zeros and patterns of {len(claim.steps)} weights as they are stored")
    runs, problem = runs_to_compare(groups, sizes or {}, samples)
    if problem:
        return Verdict(False, math.nan, tolerance, problem, checks=checks, runnable=False)
    try:
        errors = _compared(masked_original(groups, claim.steps), claim.plain, runs)
        _ = _compared(claim.final, claim.final, runs)
    except RunError as error:
        return Verdict(False, math.nan, tolerance, f"a model with zeros does not run: {error.message}", checks=checks)
    return of_errors(errors, tolerance, checks, "the masked original")


def _compared(one: Model, other: Model, runs: Sequence[Feeds]) -> dict[str, float]:
    """The largest difference of every output over all runs.

    Raises:
        RunError: a model does not run.
    """
    errors: dict[str, float] = {}
    with Session(one, limit=LONGEST_PROOF) as first, Session(other, limit=LONGEST_PROOF) as second:
        for feeds in runs:
            found = differences(first.outputs, first.run(feeds), second.run(feeds, first.outputs))
            errors = {name: max(error, errors.get(name, 0.0)) for name, error in found.items()}
    return errors


def same_outputs(one: Model, other: Model, runs: Sequence[Feeds]) -> bool:
    """Tell whether two models of the same weights, stored differently, both run and give equal outputs.

    Args:
        one: a model that runs.
        other: the other.
        runs: inputs; without any, it is enough that `other` loads.

    Returns:
        Whether every output of every run is the same, to the bit but for the order of sums.
    """
    try:
        errors = _compared(one, other, runs)
    except RunError:
        return False
    return all(error <= 1e-6 for error in errors.values())


def _stored_problem(groups: Groups, claim: Claim) -> str:
    """What is wrong with stored elements; empty if nothing is."""
    original = groups.tracing
    plain, final = (flattened(inlined(model)) for model in (claim.plain, claim.final))
    for step in claim.steps:
        before, zero = original.stored_value(step.tensor), original.stored_zero(step.tensor)
        assert before is not None
        point = original.elements(step.tensor, zero.astype(before.dtype))
        expected = np.where(step.keep, original.elements(step.tensor, before), point)
        if not np.array_equal(original.elements(step.tensor, plain.array(step.tensor)), expected):
            return f"the stored weight {step.tensor!r} is not the original's with zeros"
        found = final.array(step.tensor)
        is_zero = original.elements(step.tensor, found) == point
        if found.dtype != before.dtype or not is_zero[~step.keep].all():
            return f"the stored weight {step.tensor!r} differs from zero where it must not"
        holds = claim.patterns.get(step.tensor)
        if holds is not None and not holds(~is_zero):
            return f"the stored weight {step.tensor!r} has not the pattern {step.pattern}"
    return ""


# --- the reference -----------------------------------------------------------------------------------------


def masked_original(groups: Groups, steps: Sequence[ZeroStep]) -> Model:
    """The original, in which nodes multiply weights with masks before they are read.

    Args:
        groups: the traced original.
        steps: the masks.

    Returns:
        A model that computes at every run what the zeros are to be.
    """
    flat = with_dense(groups, [step.tensor for step in steps])
    proto = onnx.ModelProto()
    proto.CopyFrom(flat.proto)
    names, front = Names(proto.graph), list[onnx.NodeProto]()
    for step in steps:
        value = flat.array(step.tensor)
        nodes, made = _masking(proto.graph, names, step, value, groups.tracing.stored_zero(step.tensor))
        for node in proto.graph.node:
            node.input[:] = [made if name == step.tensor else name for name in node.input]
        front += nodes
    rest = [onnx.NodeProto.FromString(node.SerializeToString()) for node in proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend([*front, *rest])
    return nested(replace(flat, proto=proto), tidied=False)


@dataclass(frozen=True, eq=False)
class _Added:
    """Nodes in front of a graph that are being made.

    Attributes:
        graph: where their constants go.
        names: that are taken.
        stem: what theirs begin with.
        nodes: those that were made.
    """

    graph: onnx.GraphProto
    names: Names
    stem: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def put(self, stem: str, array: Array) -> str:
        """Store a constant."""
        name = self.names.unique(f"{self.stem}_{stem}")
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: int) -> str:
        """Add a node; what it makes."""
        made = self.names.unique(f"{self.stem}_{op.lower()}")
        self.nodes.append(helper.make_node(op, list(inputs), [made]))
        self.nodes[-1].attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        return made


def _masking(
    graph: onnx.GraphProto, names: Names, step: ZeroStep, value: Array, zero: Array
) -> tuple[list[onnx.NodeProto], str]:
    """Nodes that compute (value - zero) * mask + zero in a type that every runtime computes in.

    Of several numbers in a byte, each is taken out by a division and a remainder, and put back as a multiple.
    """
    kind, new = helper.np_dtype_to_tensor_dtype(value.dtype), _Added(graph, names, step.tensor)
    integer = kind in _INTEGERS
    inner = TensorProto.INT32 if integer else TensorProto.DOUBLE if kind == TensorProto.DOUBLE else TensorProto.FLOAT
    dtype = helper.tensor_dtype_to_np_dtype(inner)
    whole = new.add("Cast", new.put("stored", value), to=inner)
    if not integer:
        return new.nodes, new.add("Cast", new.add("Mul", whole, new.put("mask", step.keep.astype(dtype))), to=kind)
    count = step.keep.size // max(value.size, 1)
    zeros, results = np.broadcast_to(zero, value.shape).astype(np.int64), list[str]()
    for number in range(count):
        keep = step.keep[..., number::count] if count > 1 else step.keep
        base, size = (1 << (8 // count * number), 1 << (8 // count)) if count > 1 else (1, 0)
        point = new.put("zero", (zeros // base % size if size else zeros).astype(dtype))
        made = whole
        if size:
            made = new.add("Div", made, new.put("base", np.array(base, dtype)))
            made = new.add("Mod", made, new.put("size", np.array(size, dtype)))
        made = new.add("Add", new.add("Mul", new.add("Sub", made, point), new.put("mask", keep.astype(dtype))), point)
        results.append(new.add("Mul", made, new.put("base", np.array(base, dtype))) if size else made)
    total = results[0]
    for other in results[1:]:
        total = new.add("Add", total, other)
    return new.nodes, new.add("Cast", total, to=kind)


_INTEGERS = frozenset(
    (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32, TensorProto.INT64)
)
