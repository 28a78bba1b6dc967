"""Operators rewritten to plainer ones in the training copy, so that they need no rule of their own."""

import importlib

FAMILIES = ("attention", "fused", "norm", "quantized", "recurrent", "rotary", "sampling", "signal")

for family in FAMILIES:
    importlib.import_module(f"{__name__}.{family}")

__all__ = ["FAMILIES"]
