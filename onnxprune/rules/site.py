"""Moved to `onnxprune.tracing`."""

import warnings

from onnxprune.tracing import Copies, NodeView, through

warnings.warn("onnxprune.rules.site has moved to onnxprune.tracing", DeprecationWarning, stacklevel=2)

Site = NodeView

__all__ = ["Copies", "Site", "through"]
