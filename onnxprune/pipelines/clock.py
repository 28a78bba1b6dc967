"""The stages of a run: told as they begin, and how long each took."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from onnxprune.progress import Progress

logger = logging.getLogger(__name__)

Given = TypeVar("Given")
Made = TypeVar("Made")


class Clock:
    """Times stages and tells about them."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.progress = progress or logger.info
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time what is done inside as `stage`."""
        self.progress(stage)
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def around(self, stage: str, function: Callable[[Given], Made]) -> Callable[[Given], Made]:
        """A function of one argument whose calls are timed as `stage`."""

        def timed(given: Given) -> Made:
            with self(stage):
                return function(given)

        return timed
