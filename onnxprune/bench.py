"""Moved to `onnxprune.runtime.bench`."""

import warnings

from onnxprune.runtime.bench import Place, bench

warnings.warn("onnxprune.bench has moved to onnxprune.runtime.bench", DeprecationWarning, stacklevel=2)

__all__ = ["Place", "bench"]
