"""Trace which positions of which tensors must be removed together, and why some cannot be."""

from onnxprune.tracing.barriers import Barrier
from onnxprune.tracing.describe import batch_size
from onnxprune.tracing.group import Group, Member
from onnxprune.tracing.groups import Groups, trace
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.letters import Copies, through
from onnxprune.tracing.rules.node_view import Letter, MaskedAxis, NodeView
from onnxprune.tracing.trace_result import TraceResult
from onnxprune.tracing.tracer import Tracer

__all__ = [
    "Barrier",
    "Copies",
    "Edit",
    "Group",
    "Groups",
    "Letter",
    "MaskedAxis",
    "Member",
    "NodeView",
    "TraceResult",
    "Tracer",
    "batch_size",
    "through",
    "trace",
]
