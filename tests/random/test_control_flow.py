"""Random graphs inside of branches, and with inputs and outputs that may shrink."""

from __future__ import annotations

from typing import Any

import onnx
from hypothesis import given

from onnxprune import api
from onnxprune.errors import GoalMissed
from tests.graphs.branches import in_branches
from tests.graphs.net import prune
from tests.graphs.random_graphs import images, mixed, options, sequences
from tests.random.test_graphs import quick


def check_branches(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    """What can be pruned in a graph can be in each of two branches, and is proven in both."""
    nested = in_branches(proto)
    heads = {k: v for k, v in chosen.items() if k in ("heads", "head_dims")}
    plain, twice = api.trace(proto, **heads), api.trace(nested, **heads)
    assert sorted(2 * [g.units for g in plain.groups]) == sorted(g.units for g in twice.groups)
    if plain.groups:
        check(nested, chosen)


def check(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    try:
        outcome = prune(proto, **chosen)
    except GoalMissed as missed:
        assert missed.message.startswith("nothing can be pruned"), missed.message
        return
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()


@quick(8)
@given(images(), options())
def test_images_in_branches(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    check_branches(proto, chosen)


@quick(8)
@given(sequences(), options())
def test_sequences_in_branches(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    check_branches(proto, chosen)


@quick(15)
@given(mixed(), options())
def test_inputs_and_outputs_may_shrink(proto: onnx.ModelProto, chosen: dict[str, Any]) -> None:
    check(proto, chosen | {"allow_io_changes": True})
