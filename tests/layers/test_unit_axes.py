"""Elements of weights by unit."""

from __future__ import annotations

import numpy as np

from onnxprune import api
from onnxprune.layers.unit_axes import UnitAxis, norm_scales, unit_axes, unit_reads
from onnxprune.tracing import Groups
from tests.graphs.net import Net

NAMES = ("a", "b", "scale", "shift", "mean", "variance")


def normalised() -> Groups:
    net = Net()
    h = net.add("Conv", net.input([1, 3, 6, 6]), net.weight(8, 3, 3, 3, name="a"))
    lines = [net.const(np.arange(1, 9, dtype=np.float32), n) for n in NAMES[2:]]
    h = net.add("Relu", net.add("BatchNormalization", h, *lines))
    net.output(net.add("Conv", h, net.weight(5, 8, 1, 1, name="b")))
    return api.trace(net.proto())


def test_units_hold_weights_and_are_read() -> None:
    groups = normalised()
    held = {(axis.name, axis.classes.shape) for axis in unit_axes(groups, NAMES)}
    assert held == {("a", (8, 1, 1, 1)), ("b", (1, 8, 1, 1)), ("scale", (8,)), ("shift", (8,))}, "no statistics"
    assert [(axis.name, axis.classes.shape) for axis in unit_reads(groups, NAMES)] == [("b", (1, 8, 1, 1))]
    assert unit_reads(groups, ["a"]) == [] and unit_axes(groups, []) == []


def test_scale_and_shift_of_norms() -> None:
    ((scale, shift),) = norm_scales(normalised(), NAMES)
    assert (scale.name, shift.name) == ("scale", "shift") and (scale.classes == shift.classes).all()
    assert norm_scales(normalised(), ["scale"]) == []


def test_what_an_axis_keeps_sums_and_lays_out() -> None:
    axis = UnitAxis("w", (3, 2), np.array([[0], [2], [-1]]))
    gone = np.array([True, False, False])
    assert axis.kept(gone).tolist() == [[False, False], [True, True], [True, True]], "what belongs to no group stays"
    assert axis.laid_out(np.array([5.0, 6.0, 7.0])).tolist() == [[5.0], [7.0], [1.0]]
    assert axis.sums(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), 3).tolist() == [3.0, 0.0, 7.0]
