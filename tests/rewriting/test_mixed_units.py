"""Units that are changed alike in every weight that holds them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxprune.errors import UsageError
from onnxprune.model import load, to_proto
from onnxprune.rewriting import cell_places, unit_places
from onnxprune.rewriting.mixed_units import group_of_step, why_not_stored, with_mixed_units
from onnxprune.tracing import Groups, trace
from tests.graphs.linear import WIDTH, attention, bottleneck
from tests.graphs.net import Net


@pytest.fixture
def groups() -> Groups:
    return trace(load(bottleneck()))


def values(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


def test_what_a_mix_gives_stands_along_every_axis_that_holds_the_units(groups: Groups) -> None:
    group = group_of_step(groups, "stem", WIDTH)
    found = values(to_proto(with_mixed_units(groups, [(group, [lambda rows: 3 * rows[::-1]])])))
    before = values(groups.model.proto)
    held = {member.tensor: member.axis for member in group.members}
    assert held.items() >= {"stem": 0, "expand0": 1, "classes": 0}.items()
    for name, value in before.items():
        wanted = 3 * np.flip(value, held[name]) if name in held else value
        np.testing.assert_allclose(found[name], wanted, rtol=1e-6)


def test_units_of_cells_are_found_by_cell() -> None:
    groups = trace(load(attention()), head_dims=True)
    group = next(g for g in groups.groups if g.name == "value")
    labels = groups.tracing.axes["value"][1]
    first, second = cell_places(unit_places(groups, group, labels), group)
    np.testing.assert_array_equal(np.concatenate([first, second])[:, 0], np.arange(8))
    twice, _ = cell_places(np.array([0, 1, 2, 3, -1, 3, 2, 1, 0, 4, 5, 6, 7]), group)
    assert twice.tolist() == [[0, 8], [1, 7], [2, 6], [3, 5]]
    with pytest.raises(ValueError, match="more positions than others"):
        cell_places(np.array([0, 1, 2, 3, 0]), group)


def test_a_step_of_another_model_is_refused(groups: Groups) -> None:
    with pytest.raises(UsageError, match="no group 'other'"):
        group_of_step(groups, "other", WIDTH)
    with pytest.raises(UsageError, match="8 units in the model, 3 in the plan"):
        group_of_step(groups, "stem", 3)


def test_weights_that_are_shared_by_uses_stay() -> None:
    net = Net()
    bias = net.const(np.ones(6, np.float32))
    x = net.add("Conv", net.input([1, 4, 5, 5]), net.weight(6, 4, 1, 1, name="first"), bias)
    x = net.add("Conv", x, net.weight(6, 6, 1, 1, name="second"), bias)
    net.output(net.add("Conv", x, net.weight(3, 6, 1, 1)))
    groups = trace(load(net.proto()))
    assert "cut in several ways" in why_not_stored(groups, groups.groups[0])
    assert why_not_stored(trace(load(bottleneck())), group_of_step(trace(load(bottleneck())), "stem", WIDTH)) == ""
