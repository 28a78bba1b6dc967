"""Where zeros may lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.errors import UsageError
from onnxprune.sparsity import NofM, pattern_of

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 7))


def scores_of(shape, seed: int = 0):
    groups, positions, channels, outputs = shape
    return np.random.default_rng(seed).random((groups, positions * channels, outputs)) + 0.1, channels


@given(SHAPES, st.floats(0, 0.99), st.sampled_from(["output", "layer"]))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_unstructured_keeps_the_highest_and_as_many_as_asked_for(shape, share, per):
    scores, channels = scores_of(shape)
    keep = pattern_of("unstructured", per).keep(scores, share, channels=channels)
    sets = [(scores[g, :, o], keep[g, :, o]) for g in range(scores.shape[0]) for o in range(scores.shape[2])]
    for values, kept in sets if per == "output" else [(scores.ravel(), keep.ravel())]:
        away = min(len(values) - 1, int(np.floor(share * len(values) + 0.5 - 1e-9)))
        assert (~kept).sum() == away
        assert away == 0 or values[~kept].max() < values[kept].min()


@given(SHAPES, st.sampled_from([(2, 4), (1, 4), (4, 8), (1, 3)]))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_n_of_m_keeps_the_n_highest_of_every_m(shape, n_of_m):
    (n, m), (scores, channels) = n_of_m, scores_of(shape)
    pattern = pattern_of(f"{n}:{m}")
    assert isinstance(pattern, NofM)
    keep = pattern.keep(scores, 0.0, channels=channels)
    for g, o, first in np.ndindex(scores.shape[0], scores.shape[2], scores.shape[1] // channels):
        for start in range(0, channels, m):
            part = slice(first * channels + start, first * channels + min(start + m, channels))
            values, kept = scores[g, part, o], keep[g, part, o]
            assert set(np.flatnonzero(kept)) == set(np.argsort(-values)[:n])
    assert pattern.holds(keep, channels=channels)
    full = np.ones_like(scores)
    assert pattern.holds(full, channels=channels) == (channels <= n)


def test_blocks_go_whole():
    scores = np.ones((1, 8, 6))
    scores[0, :2, :3] = 5.0
    keep = pattern_of("block 3x2").keep(scores, 0.75, channels=8)
    assert keep[0, :2, :3].all() and keep[0, :2, 3:].any(axis=0).sum() in (0, 3)
    blocks = keep.reshape(4, 2, 2, 3)
    assert (blocks.all(axis=(1, 3)) | ~blocks.any(axis=(1, 3))).all()
    assert keep.sum() == 12, "a quarter of each row of blocks"


@given(SHAPES, st.floats(0, 0.9), st.integers(1, 4), st.integers(1, 4), st.sampled_from(["output", "layer"]))
@settings(max_examples=60, derandomize=True, deadline=None)
def test_blocks_of_any_size_fit_any_matrix(shape, share, rows, columns, per):
    scores, channels = scores_of(shape)
    keep = pattern_of(f"block {rows}x{columns}", per).keep(scores, share, channels=channels)
    assert keep.shape == scores.shape
    for first in range(0, scores.shape[1], channels):
        for start in range(0, channels, columns):
            inputs = slice(first + start, first + min(start + columns, channels))
            for output in range(0, scores.shape[2], rows):
                block = keep[:, inputs, output : output + rows].reshape(scores.shape[0], -1)
                assert (block.all(axis=1) | ~block.any(axis=1)).all()


@pytest.mark.parametrize("text", ["", "4:2", "0:4", "2:4:8", "block", "block 0x4", "2-4", "block 4", "1:99999"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(UsageError, match="is no pattern"):
        pattern_of(text)
