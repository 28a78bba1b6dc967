"""Rules of differentiation, a file for each family of operators."""

import importlib

FAMILIES = (
    "contraction",
    "convolution",
    "index",
    "layout",
    "norm",
    "pointwise",
    "pooling",
    "quantized",
    "reduce",
    "resize",
    "signal",
)

for family in FAMILIES:
    importlib.import_module(f"{__name__}.{family}")

__all__ = ["FAMILIES"]
