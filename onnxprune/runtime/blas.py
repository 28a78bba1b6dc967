"""How many threads numpy's linear algebra takes.

Its threads, and those of ONNX Runtime, wait for work by spinning: side by side they take each other's cores, and small
products, which is what most layers give, take longer with many threads than with one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from onnxprune.system import cores

# Width of a matrix from which on more threads than one are worth their start.
WIDE = 1024


@contextmanager
def blas_threads(width: int = 0) -> Iterator[None]:
    """Set how many threads linear algebra takes inside of the block, or of the function that this decorates.

    Args:
        width: of the matrices: one thread below `WIDE`, all cores from there on.
    """
    with _controller().limit(limits=cores() if width >= WIDE else 1, user_api="blas"):
        yield


@cache
def _controller() -> Any:
    """The libraries that numpy has loaded."""
    import numpy  # noqa: F401 - loads them
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
