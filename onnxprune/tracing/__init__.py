"""Trace which positions of which tensors must be removed together, and why some cannot be."""

from onnxprune.tracing.barriers import Barrier
from onnxprune.tracing.describe import batch_size
from onnxprune.tracing.group import Group, Member
from onnxprune.tracing.groups import Groups, retrace, trace
from onnxprune.tracing.labels import Axes, Constraints, as_field
from onnxprune.tracing.moved_weights import places_behind
from onnxprune.tracing.rules.ask import CONTRADICTION, resize_node
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Copies, through
from onnxprune.tracing.rules.node_view import Letter, MaskedAxis, NodeView
from onnxprune.tracing.rules.pointwise import BINARY, UNARY
from onnxprune.tracing.rules.registry import NEWEST_OPSET, Contraction, Resize, rule
from onnxprune.tracing.rules.untraceable import UNTRACEABLE
from onnxprune.tracing.trace_result import TraceResult
from onnxprune.tracing.tracer import Tracer

__all__ = [
    "Axes",
    "BINARY",
    "Barrier",
    "CONTRADICTION",
    "Constraints",
    "Contraction",
    "Copies",
    "Edit",
    "Group",
    "Groups",
    "Letter",
    "MaskedAxis",
    "Member",
    "NEWEST_OPSET",
    "NodeView",
    "Resize",
    "TraceResult",
    "Tracer",
    "UNARY",
    "UNTRACEABLE",
    "as_field",
    "batch_size",
    "places_behind",
    "resize_node",
    "retrace",
    "rule",
    "through",
    "trace",
]
