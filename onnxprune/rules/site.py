"""Moved to `onnxprune.tracing.rules.site`."""

import warnings

from onnxprune.tracing.rules.site import Copies, Site, through

warnings.warn("onnxprune.rules.site has moved to onnxprune.tracing.rules.site", DeprecationWarning, stacklevel=2)

__all__ = ["Copies", "Site", "through"]
