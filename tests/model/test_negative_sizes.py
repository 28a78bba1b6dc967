"""Sizes below zero: declared ones are open, computed ones are refused before native code ends the process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

import onnxprune
from onnxprune.errors import ModelError
from onnxprune.model import load
from onnxprune.runtime import bench
from tests.graphs.net import Net

# What makes less than nothing of five positions.
WINDOWS: dict[str, Callable[[Net, str], str]] = {
    "Conv": lambda net, x: net.add("Conv", x, net.weight(8, 2, 16), strides=[4]),
    "dilated Conv": lambda net, x: net.add("Conv", x, net.weight(8, 2, 3), dilations=[7]),
    "MaxPool": lambda net, x: net.add("MaxPool", x, kernel_shape=[16], strides=[4]),
    "AveragePool": lambda net, x: net.add("AveragePool", x, kernel_shape=[16], strides=[4]),
    "ConvTranspose": lambda net, x: net.add("ConvTranspose", x, net.weight(2, 8, 3), pads=[9, 9]),
    "Pad": lambda net, x: net.add("Pad", x, net.ints(0, 0, 0, 0, 0, -9)),
}


def windowed(window: str, size: int | str, *, typed: bool = True) -> onnx.ModelProto:
    """A window over `size` positions, a slice of the result, and a layer apart that can be pruned."""
    net = Net(16)
    given = net.input([1, 2, size], "x")
    made = WINDOWS[window](net, given)
    net.add("Slice", made, *(net.ints(n) for n in (0, 4, 2)), name="part")
    hidden = net.add("Relu", net.add("Conv", given, net.weight(8, 2, 1)))
    net.output(net.add("Conv", hidden, net.weight(3, 8, 1), name="y"), [1, 3, size])
    proto = net.proto()
    proto.graph.output.append(onnx.ValueInfoProto(name="part"))
    if typed:
        proto.graph.output[-1].CopyFrom(onnx.helper.make_tensor_value_info("part", 1, [1, None, None]))
    return proto


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("typed", [True, False])
def test_a_slice_of_less_than_nothing_is_refused(window: str, typed: bool) -> None:
    with pytest.raises(ModelError, match=r"Slice '.*' reads '.*' of shape \[1, \d, -\d+\]"):
        onnxprune.trace(windowed(window, 5, typed=typed))


def test_models_that_are_not_traced_are_looked_at_too() -> None:
    bad, good = windowed("Conv", 5), windowed("Conv", 64)
    with pytest.raises(ModelError, match="of shape"):
        bench.bench([bad])
    result = onnxprune.prune(good, 0.5)
    with pytest.raises(ModelError, match="of shape"):
        onnxprune.verify(good, bad, result.plan)


@pytest.mark.parametrize("window", WINDOWS)
def test_sizes_are_chosen_that_leave_something(window: str) -> None:
    result = onnxprune.prune(windowed(window, "n"), 0.5)
    assert result.report.verdict is not None and result.report.verdict.ok
    assert result.plan.steps


def declared(where: str) -> onnx.ModelProto:
    """Two layers with a slice along the batch between them; -1 is written for its size, as old exporters do."""
    net = Net(16)
    size = -1 if where in ("input", "output") else 4
    hidden = net.add("MatMul", net.input([size, 6], "x"), net.weight(6, 8), name="hidden")
    part = net.add("Slice", hidden, *(net.ints(n) for n in (0, 2, 0)))
    net.output(net.add("MatMul", part, net.weight(8, 3), name="y"), [-1 if where == "output" else 2, 3])
    proto = net.proto()
    if where == "between":
        proto.graph.value_info.append(onnx.helper.make_tensor_value_info("hidden", 1, [-1, 8]))
    if where == "untyped output":
        proto.graph.output[0].type.Clear()
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1
    return proto


@pytest.mark.parametrize("where", ["input", "output", "between", "untyped output"])
def test_a_size_that_is_declared_as_minus_one_is_open(where: str) -> None:
    result = onnxprune.prune(declared(where), 0.5)
    assert result.report.verdict is not None and result.report.verdict.ok
    assert [len(step.remove) for step in result.plan.steps] == [4]
    again = load(result.model.SerializeToString())
    assert again.proto.graph.input[0].type == load(declared(where)).proto.graph.input[0].type


def test_commands_end_with_a_message(tmp_path: Path) -> None:
    onnx.save(windowed("Conv", 5), tmp_path / "bad.onnx")
    for verb in ("inspect", "bench"):
        command = [sys.executable, "-m", "onnxprune", verb, str(tmp_path / "bad.onnx")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 3, done.stderr
        assert "of shape [1, 8, -1]" in done.stderr
