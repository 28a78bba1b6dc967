"""Scores of blocks: how little a block changes what enters it, or how many parameters it has; the lowest go first.

GraphBlock influence is 1 - E[cos(x, y)] over the positions of the stream, x what enters and y what leaves: Men et al.,
"ShortGPT: Layers in Large Language Models are More Redundant Than You Expect", 2024, eq. 1. It does not know what a
repair gives back; how far the outputs are from the original's after it does, and is measured in `pipelines/drop.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune.layers import channel_axis
from onnxprune.model.blocks import GraphBlock
from onnxprune.runtime import ActivationReader, routes_of
from onnxprune.tracing import Groups
from onnxprune.typing import Array


def block_influence(
    groups: Groups, blocks: Sequence[GraphBlock], runs: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """Measure how much every block changes the direction of the stream.

    Args:
        groups: the traced original.
        blocks: its blocks.
        runs: calibration inputs.

    Returns:
        Name of a block -> 1 - mean cosine of what enters and what leaves; infinite where no run comes there.
    """
    model = groups.tracing.model
    taps = [name for block in blocks for name in (block.entry, block.exit)]
    found: dict[str, float] = {}
    with ActivationReader(model, runs, taps, routes=routes_of(model, runs)) as reader:
        for block in blocks:
            axis, cosines = channel_axis(groups, block.exit), list[Array]()
            for values in reader.read([block.entry, block.exit]):
                if len(values) == 2:
                    cosines.append(_cosines(values[block.entry], values[block.exit], axis))
            found[block.name] = 1 - float(np.concatenate(cosines).mean()) if cosines else math.inf
    return found


def _cosines(x: Array, y: Array, axis: int) -> Array:
    x, y = x.astype(np.float64), y.astype(np.float64)
    lengths = np.sqrt(np.square(x).sum(axis) * np.square(y).sum(axis))
    return np.asarray(((x * y).sum(axis) / np.maximum(lengths, 1e-300)).reshape(-1))


def block_params(groups: Groups, block: GraphBlock) -> int:
    """Count the parameters that go with a block.

    Args:
        groups: the traced original.
        block: a block of it.

    Returns:
        Elements of the stored weights that nothing else reads.
    """
    return sum(math.prod(groups.static.shapes.get(name, ())) for name in block.weights)
