"""What a group says of itself."""

from __future__ import annotations

from pathlib import Path

from onnxprune import api
from tests.tracing.traced_nets import two_layers

MODELS = Path(__file__).parents[2] / "models"


def test_a_group_says_what_it_cuts() -> None:
    groups = api.trace(two_layers().proto())
    (group,) = groups.groups
    assert (group.name, group.kind, group.units, group.exact) == ("w_in", "channel", 8, True)
    assert [(m.tensor, m.axis, m.size, m.positions) for m in group.members] == [("w_in", 1, 8, 8), ("w_out", 0, 8, 8)]
    assert group.params == 3 * 8 + 8 * 4
    assert group.macs * 2 in (2 * 5 * 8 * 7, 2 * 5 * 8 * 7 * 2)
    assert groups.prunable == (56, 56)


def test_scales_and_zero_points_are_no_weights_that_can_be_pruned() -> None:
    held, total = api.trace(MODELS / "quantized.onnx").prunable
    assert 0.99 * total < held < total
