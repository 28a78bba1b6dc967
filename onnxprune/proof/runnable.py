"""Inputs on which the original runs, if it does not run on those of its trace."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from onnxprune.errors import OnnxPruneError, RunError, UsageError
from onnxprune.model.shapes.infer import StaticInfo, infer
from onnxprune.model.shapes.symbols import Use, candidate_sizes, dims_of, sizes_of, symbolic_dims
from onnxprune.runtime import Session, count_choices, random_feeds
from onnxprune.tracing import Groups
from onnxprune.typing import Feeds

logger = logging.getLogger(__name__)

Sizes = Mapping[str, int]

# Seconds of the search, and of one run in it.
LONGEST_SEARCH = 60.0
LONGEST_RUN = 10.0
# Elements of a tensor that is computed in the search.
LARGEST_TENSOR = 1 << 26
# Sizes that are tried for axes that are no batch: kernels, windows and frames of audio are powers of two or round.
LADDER = (1, 2, 4, 16, 32, 64, 128, 256, 512, 1024, 1600, 4096, 16000)
# Samples of the user's data that are tried, and sets of values for inputs of one entry.
MOST_SAMPLES = 2
MOST_VALUES = 4


@dataclass(frozen=True)
class Inputs:
    """Inputs for one run.

    Attributes:
        sizes: numbers for the symbolic dims.
        feeds: input name -> value, of these sizes.
    """

    sizes: Sizes
    feeds: Feeds


def inputs_that_run(groups: Groups, given: Sizes, samples: Sequence[Feeds] = ()) -> Inputs | None:
    """Inputs on which the original runs; None where none was found in time.

    Args:
        groups: the traced original.
        given: numbers for symbolic dims that are fixed.
        samples: the user's own inputs, which are tried first.
    """
    end = time.monotonic() + LONGEST_SEARCH
    try:
        with Session(groups.model, limit=LONGEST_RUN) as session:
            for inputs in _tries(groups, given, samples):
                if time.monotonic() > end:
                    logger.debug("no inputs were found in %g seconds", LONGEST_SEARCH)
                    return None
                try:
                    session.run(inputs.feeds)
                except RunError as error:
                    logger.debug("sizes %s: %s", dict(inputs.sizes), error.message)
                else:
                    return inputs
    except OnnxPruneError as error:
        logger.debug("the original cannot be tried: %s", error.message)
    return None


def runs_to_compare(groups: Groups, given: Sizes, samples: Sequence[Feeds]) -> tuple[list[Feeds], str]:
    """Random inputs, and inputs of the user where there are some, on which the original runs.

    Args:
        groups: the traced original.
        given: numbers for symbolic dims that are fixed.
        samples: the user's own inputs.

    Returns:
        The inputs, and why there are none.
    """
    found = [inputs_that_run(groups, given, chosen) for chosen in ((), samples) if chosen or chosen == ()]
    runs = [inputs.feeds for inputs in found if inputs is not None]
    return runs, "" if runs else f"the original does not run, nothing to compare{hint(groups, given)}"


def hint(groups: Groups, given: Sizes) -> str:
    """What the user can do to let the original run."""
    graph = groups.model.proto.graph
    stored = groups.model.initializers
    inputs = [value for value in graph.input if value.name not in stored]
    axes = {s: f"axis {use.axis} of {use.tensor!r}" for s, use in symbolic_dims(graph).items() if s not in given}
    if not inputs:
        return ""
    if not axes:
        return "; --data with inputs on which it runs lets the proof run on them"
    numbers = " ".join(f"--sizes {symbol}=N" for symbol in axes)
    return f"; {numbers} ({', '.join(axes.values())}) or --data may give inputs on which it runs"


def _tries(groups: Groups, given: Sizes, samples: Sequence[Feeds]) -> Iterator[Inputs]:
    model, flat = groups.model, groups.tracing.model
    for feeds in samples[:MOST_SAMPLES]:
        try:
            sizes = sizes_of(model.proto.graph, {name: value.shape for name, value in feeds.items()})
        except UsageError as error:
            logger.debug("a sample does not fit: %s", error.message)
            continue
        yield Inputs({**groups.static.sizes, **sizes}, feeds)
    seen: list[Sizes] = []
    for numbers in _sizes(model.proto.graph, given):
        if numbers in seen:
            continue
        seen.append(numbers)
        static = infer(flat, numbers)
        if _is_large(static):
            continue
        for choice in range(min(MOST_VALUES, count_choices(flat, static))):
            yield Inputs(static.sizes, random_feeds(flat, static, np.random.default_rng(0), choice=choice))


def _is_large(static: StaticInfo) -> bool:
    return any(math.prod(shape) > LARGEST_TENSOR for shape in static.shapes.values())


def _sizes(graph: onnx.GraphProto, given: Sizes) -> Iterator[dict[str, int]]:
    """Numbers for the symbolic dims, most likely first."""
    symbols = symbolic_dims(graph)
    free = {symbol: use for symbol, use in symbols.items() if symbol not in given}
    pairs = list(candidate_sizes(symbols, given))
    yield from ({**given, **numbers} for numbers, _ in pairs)
    if not free:
        return
    for batch in _batches(graph):
        for is_batch in (_is_first, may_be_batch):
            others = [symbol for symbol, use in free.items() if not is_batch(use)]
            base = {**given, **dict.fromkeys(free, batch)}
            for size in LADDER if others else LADDER[:1]:
                yield base | dict.fromkeys(others, size)
            if len(others) == 3:  # what is attended to: the past and the new tokens
                yield from (base | {s: 2 * 4 if s == total else 4 for s in others} for total in others)
    yield from ({**given, **dict.fromkeys(free, size)} for size in LADDER)


def _is_first(use: Use) -> bool:
    return use.axis == 0


def may_be_batch(use: Use) -> bool:
    """Whether an axis is a batch, too, where states put layers or directions in front of it."""
    return use.axis == 0 or (use.axis == 1 and use.rank >= 3 and use.is_float)


def _batches(graph: onnx.GraphProto) -> list[int]:
    """Numbers for the batch: one, some, and the fixed sizes of the first axes of other inputs."""
    stored = {tensor.name for tensor in graph.initializer}
    dims = [dims_of(value)[:2] for value in graph.input if value.name not in stored]
    fixed = sorted({d for axes in dims for d in axes if isinstance(d, int) and 0 < d <= 64})
    return list(dict.fromkeys((1, 2, *fixed[:4])))
