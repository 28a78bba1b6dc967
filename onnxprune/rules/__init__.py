"""Moved to `onnxprune.tracing.rules`; what is here hands over."""
