"""Trace which positions of which tensors must be removed together, and why some cannot be."""

from onnxprune.tracing.barriers import Barrier
from onnxprune.tracing.groups import Group, Groups, Member, trace
from onnxprune.tracing.rules.letters import Copies, through
from onnxprune.tracing.rules.site import Site

__all__ = ["Barrier", "Copies", "Group", "Groups", "Member", "Site", "through", "trace"]
