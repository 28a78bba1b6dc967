"""Moved to `onnxprune.pipelines.search`."""

import warnings

from onnxprune.pipelines.search import search

warnings.warn("onnxprune.search has moved to onnxprune.pipelines.search", DeprecationWarning, stacklevel=2)

__all__ = ["search"]
