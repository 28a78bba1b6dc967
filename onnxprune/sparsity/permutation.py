"""The order of inputs in which N of M neighbours keep most: a search over channel permutations.

Zeros of N:M are chosen among M neighbours. Inputs may stand in any order, as long as what makes them follows; a good
one spreads the large weights over all neighbourhoods. Two inputs of different neighbourhoods change places where that
keeps more, in rounds in which every neighbourhood meets one other.

Source: Pool and Yu, "Channel Permutations for N:M Sparsity", NeurIPS 2021 (greedy swaps).
"""

from __future__ import annotations

import numpy as np

from onnxprune.sparsity.pattern import NofM
from onnxprune.typing import Array

# Columns of the scores that a swap is judged by, and neighbourhoods that are compared in one go.
COLUMNS, PAIRS = 512, 64
# Rounds at most, and how many in a row may gain nothing worth the name (a share of all) before the search ends.
ROUNDS, PATIENCE, WORTH_IT = 400, 12, 1e-5


def best_order(scores: Array, pattern: NofM, rng: np.random.Generator) -> Array:
    """Find an order of inputs.

    Args:
        scores: what is kept with an element, [inputs, columns], at least 0; a column is an output at a position of the
            kernel.
        pattern: how many of how many neighbours stay.
        rng: draws the pairs.

    Returns:
        int[inputs]: the input that stands at every place; the present order where none that was found keeps more.
    """
    order = np.arange(len(scores))
    drawn = scores if scores.shape[1] <= COLUMNS else scores[:, rng.choice(scores.shape[1], COLUMNS, replace=False)]
    blocks = len(scores) // pattern.m  # what is left over stays where it is
    if blocks < 2:
        return order
    places = order[: blocks * pattern.m].reshape(blocks, pattern.m).copy()
    total, idle = float(drawn.sum()), 0
    for _ in range(ROUNDS):
        shuffled = rng.permutation(blocks)[: blocks // 2 * 2].reshape(-1, 2)
        gain = sum(
            _swapped(places, drawn, shuffled[first : first + PAIRS], pattern)
            for first in range(0, len(shuffled), PAIRS)
        )
        idle = idle + 1 if gain <= WORTH_IT * total else 0
        if idle > PATIENCE:
            break
    found = np.concatenate([places.reshape(-1), order[blocks * pattern.m :]])
    return found if kept(scores[found], pattern) > kept(scores, pattern) else order


def kept(scores: Array, pattern: NofM) -> float:
    """What N of M neighbours keep, in this order.

    Args:
        scores: [inputs, columns].
        pattern: how many of how many neighbours stay.

    Returns:
        The sum of the scores that stay.
    """
    return float((scores * pattern.keep(scores[None], pattern.share, channels=len(scores))[0]).sum())


def _swapped(places: Array, scores: Array, pairs: Array, pattern: NofM) -> float:
    """Carry out the best swap of every pair of neighbourhoods, where it keeps more; what that gained.

    Args:
        places: int[neighbourhoods, M], the inputs of each; changed in place.
        scores: [inputs, columns].
        pairs: int[pairs, 2], no neighbourhood twice.
        pattern: how many of how many neighbours stay.
    """
    m = pattern.m
    one, other = (scores[places[pairs[:, side]]] for side in (0, 1))  # [pairs, M, columns]
    before = _highest(one, pattern) + _highest(other, pattern)
    after = np.empty((len(pairs), m, m))
    for i in range(m):
        for j in range(m):
            with_other, with_one = one.copy(), other.copy()
            with_other[:, i], with_one[:, j] = other[:, j], one[:, i]
            after[:, i, j] = _highest(with_other, pattern) + _highest(with_one, pattern)
    best = after.reshape(len(pairs), -1).argmax(axis=1)
    gains = np.take_along_axis(after.reshape(len(pairs), -1), best[:, None], axis=1)[:, 0] - before
    worth = gains > 0
    first, second = pairs[worth, 0], pairs[worth, 1]
    i, j = best[worth] // m, best[worth] % m
    places[first, i], places[second, j] = places[second, j], places[first, i]
    return float(gains[worth].sum())


def _highest(scores: Array, pattern: NofM) -> Array:
    """The sum of the N highest of M, [pairs, M, columns] -> [pairs]."""
    split = pattern.m - pattern.n
    return np.asarray(np.partition(scores, split, axis=1)[:, split:].sum(axis=(1, 2), dtype=np.float64))
