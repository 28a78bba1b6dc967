"""How often Python looks for circles of dead objects."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

# New objects between two looks. Python's 700 are many looks at code and graphs, which live to the end of the process.
OBJECTS = 20_000


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look for circles of dead objects less often; afterwards as often as before."""
    before = gc.get_threshold()
    gc.set_threshold(OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
