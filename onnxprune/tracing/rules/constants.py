"""Operators that make tensors, or read only the shape of one."""

from __future__ import annotations

import numpy as np
from onnx import helper

from onnxprune.model.shapes.constant_fold import EVALUATORS
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.attributes import Unsupported
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import through
from onnxprune.tracing.rules.node_view import OVERRIDABLE, Letter, NodeView
from onnxprune.tracing.rules.registry import rule


def _report_original(edit: Edit) -> None:
    """Sizes that the graph computes stay those of the original: whoever uses them as a target corrects itself."""
    view, new = edit.view, edit.new_in[0]
    old = view.shape(0)
    span = slice(view.attrs.get("start", 0), view.attrs.get("end"))
    if new is None or old[span] == new[span]:
        return
    output = view.node.output[0]
    constant = view.static.constant_values.get(output)
    if constant is not None:
        edit.replace_by(constant)
        return
    changed = {a for a, (o, n) in enumerate(zip(old[span], new[span], strict=True)) if o != n}
    if changed.isdisjoint(_entries_read(view, output, len(old[span]))):
        return
    fractions = [(o // np.gcd(o, n), n // np.gcd(o, n)) for o, n in zip(old, new, strict=True)][span]
    inner = edit.unique("onnxprune_size")
    edit.node.output[0] = inner
    tensor = inner
    for op, values in (("Mul", [n for n, _ in fractions]), ("Div", [d for _, d in fractions])):
        if any(v != 1 for v in values):
            result = edit.unique("onnxprune_size")
            factor = edit.constant(np.array(values, np.int64), op.lower())
            edit.after.append(helper.make_node(op, [tensor, factor], [result], name=result))
            tensor = result
    edit.after[-1].output[0] = output


def _entries_read(view: NodeView, tensor: str, count: int) -> set[int]:
    """The entries of a vector of sizes that anything uses, as far as constant indices tell."""
    everything = set(range(count))
    if view.state.is_output(tensor):
        return everything
    read: set[int] = set()
    for node in view.state.consumers(tensor):
        values = [view.static.constant_values.get(name) for name in node.input[1:]]
        if node.domain or node.input[0] != tensor or any(v is None for v in values):
            return everything
        if node.op_type in ("Cast", "Identity"):
            read |= _entries_read(view, node.output[0], count)
        elif node.op_type in ("Gather", "Slice"):
            attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            taken = EVALUATORS[node.op_type](attrs, np.arange(count), *values, outputs=1)[0]
            read.update(int(i) for i in np.atleast_1d(taken).reshape(-1))
        else:
            return everything
    return read


@rule("Shape", resize=_report_original)
def shape(view: NodeView) -> list[Axes]:
    """The sizes as they were; no label passes."""
    view.looks_at(0)
    if view.state.is_overridable(view.node.input[0]):
        raise Unsupported(f"{view.node.input[0]!r} {OVERRIDABLE}")
    return [(view.barrier("sizes"),)]


def _report_original_count(edit: Edit) -> None:
    """The count as it was."""
    old = edit.view.shape(0)
    if edit.new_in[0] != old:
        edit.replace_by(np.array(np.prod(old), np.int64))


@rule("Size", resize=_report_original_count)
def element_count(view: NodeView) -> list[Axes]:
    """The count as it was; no label passes, and all axes must stay where it is known to the run alone."""
    if not view.static.dynamic.get(view.node.input[0]):
        view.looks_at(0)
        return [()]
    letters = range(len(view.shape(0)))
    return through(view, [letters], [()], fixes=dict.fromkeys(letters, "counted"))


@rule("Range", "RandomNormal", "RandomUniform", "Constant", "EyeLike", "RandomNormalLike", "RandomUniformLike")
def made(view: NodeView) -> list[Axes]:
    """A tensor that is made whole; no label passes."""
    likes: list[list[Letter] | None] = []
    fixes: dict[Letter, str] = {}
    if view.node.op_type.endswith("Like"):
        likes = [list(range(len(view.shape(0))))]
        fixes = dict.fromkeys(likes[0] or [], "its size is the size of something else")
    return through(view, likes, [[f"new{a}" for a in range(len(view.out_shape()))]], fixes=fixes)


@rule("OneHot")
def one_hot(view: NodeView) -> list[Axes]:
    """Axes of the indices are kept; the new axis must stay whole."""
    rank = len(view.out_shape())
    axis = int(view.attrs.get("axis", -1)) % rank
    letters = range(rank - 1)
    output: list[Letter] = list(letters)
    output.insert(axis, "depth")
    return through(view, [letters], [output])
