"""Times that are measured in turn, and what may be said about their ratio."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.model import load
from onnxprune.model.shapes.symbols import sizes_of
from onnxprune.report import numbers
from onnxprune.runtime import Setting
from onnxprune.runtime.bench import Place, bench, feeds_of
from onnxprune.runtime.paired_timing import TimeRatio
from tests.cli.conftest import run  # noqa: F401 - a fixture
from tests.graphs.net import Net
from tests.runtime.clocks import DIGITS, MODELS, ONE


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(2.5, "2.500 s"), (0.0123456, "12.35 ms"), (0.1234567, "123.5 ms"), (8.5e-5, "85.00 us"), (3e-8, "0.030 us")],
)
def test_duration(seconds, shown):
    assert numbers.duration(seconds) == shown


@pytest.mark.parametrize(
    ("joules", "shown"), [(2.5, "2.500 J"), (0.0123456, "12.35 mJ"), (8.5e-5, "85.00 uJ"), (3e-8, "0.030 uJ")]
)
def test_energy_text(joules, shown):
    assert numbers.energy(joules) == shown


def test_bench_of_two_models():
    first, second = bench([DIGITS, onnx.load(DIGITS)], place=ONE, batches=[1, 4], seconds=0.05, runs=6)
    assert (first.name, second.name) == ("digits.onnx", "model 2")
    assert first.size == Path(DIGITS).stat().st_size and first.shapes == {"image": (1, 1, 8, 8)}
    assert [t.batch for t in second.timings] == [1, 4]
    for timing in (*first.timings, *second.timings):
        assert 0 < timing.median <= timing.p95 and timing.runs >= 6
        assert timing.throughput == timing.batch / timing.median
    assert first.timings[0].ratio == TimeRatio(1, 1, 1)
    assert first.memory is None or 1 << 18 < first.memory < 1 << 30


def test_external_data_counts(tmp_path):
    (found,) = bench([str(MODELS / "external.onnx")], place=ONE, seconds=0.0, runs=1)
    assert found.size >= sum((MODELS / f"external.{end}").stat().st_size for end in ("onnx", "data")) * 0.99


def test_batch_of_a_model_with_another():
    net = Net()
    net.output(net.add("Relu", net.input([2, 3])), [2, 3])
    assert bench([net.proto()], batches=[2], seconds=0.0, runs=1)[0].timings[0].batch == 2
    with pytest.raises(UsageError, match="batches of 2 only"):
        bench([net.proto()], batches=[3], seconds=0.0, runs=1)


def test_shapes_become_sizes():
    graph = load(str(MODELS / "bert.onnx")).proto.graph
    name = graph.input[0].name
    sizes = sizes_of(graph, {name: (3, 7)})
    assert sorted(sizes.values()) == [3, 7]
    with pytest.raises(UsageError, match="no input is called 'y'"):
        sizes_of(graph, {"y": (1,)})
    for shape in ((3,), (3, 7, 1)):
        with pytest.raises(UsageError, match="cannot be"):
            sizes_of(graph, {name: shape})
    with pytest.raises(UsageError, match="cannot be 1x1x8x9"):
        sizes_of(onnx.load(DIGITS).graph, {"image": (1, 1, 8, 9)})


def test_feeds_take_the_shape_that_is_asked_for():
    model = load(str(MODELS / "bert.onnx"))
    name = model.proto.graph.input[0].name
    assert feeds_of(model, Place(Setting(threads=1), {name: (2, 5)}))[name].shape == (2, 5)
    assert feeds_of(model, Place(Setting(threads=1), {name: (2, 5)}), batch=3)[name].shape == (3, 5)


def test_a_model_that_does_not_run_says_so():
    net = Net()
    x = net.input(["n", "k"])
    net.output(net.add("MatMul", x, net.weight(5, 4)), ["n", 4])
    with pytest.raises(RunError, match="ONNX Runtime failed") as found:
        feeds_of(net.model(), ONE)
    assert "--shape" in found.value.hint
