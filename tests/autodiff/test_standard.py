"""Models of old versions of ONNX compute the same after they are brought to a new one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxprune.autodiff import GradientSession, build_vjp
from onnxprune.autodiff.standard import converted
from onnxprune.errors import ModelError
from onnxprune.model import Model
from onnxprune.runtime import Session, Setting


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("operator", "version", "scale"),
    [*(("Upsample", 9, s) for s in (2.0, 1.5, 3.0)), *(("Resize", 10, s) for s in (2.0, 1.5, 0.5))],
)
def test_resampling_places_its_positions_as_before(operator: str, version: int, scale: float, mode: str) -> None:
    kinds = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in (("x", [1, 2, 8, 8]), ("y", None))]
    scales = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "scales")
    node = helper.make_node(operator, ["x", "scales"], ["y"], mode=mode)
    graph = helper.make_graph([node], "resampling", kinds[:1], kinds[1:], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)], ir_version=8)
    feeds = {"x": np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)}
    with Session(Model(model)) as old, Session(Model(converted(model))) as new:
        assert np.abs(old.run(feeds)[0] - new.run(feeds)[0]).max() < 1e-5


def scanned(directions: list[int] | None, count: int, lengths: str = "") -> onnx.ModelProto:
    """h = tanh(h w + x), of every sample; a Scan of version 8 has the samples along its first axis."""

    def info(name: str, shape: list[int] | None) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    rng = np.random.default_rng(1)
    steps = [
        *(helper.make_node("MatMul", ["h", "w"], ["p"]), helper.make_node("Add", ["p", "part"], ["s"])),
        *(helper.make_node("Tanh", ["s"], ["new"]), helper.make_node("Identity", ["new"], ["out"])),
    ]
    given, made = [info("h", [1, 3]), info("part", [1, 3])], [info("new", [1, 3]), info("out", [1, 3])]
    scan = helper.make_node(
        *("Scan", [lengths, "start", "x"], ["last", "all"]),
        body=helper.make_graph(steps, "step", given, made),
        num_scan_inputs=1,
        directions=directions,
    )
    weights = {"w": rng.standard_normal((3, 3)), "start": rng.standard_normal((count, 1, 3))}
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    if lengths:
        stored.append(numpy_helper.from_array(np.full(count, 2, np.int64), lengths))
    ends = [info("last", [count, 1, 3]), info("all", [count, 4, 1, 3])]
    graph = helper.make_graph([scan], "scan", [info("x", [count, 4, 1, 3])], ends, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 8)], ir_version=4)


@pytest.mark.parametrize(("directions", "count"), [(None, 2), ([0], 3), ([1], 2), ([1], 1)])
def test_a_scan_with_a_batch_axis_is_one_over_samples(directions: list[int] | None, count: int) -> None:
    """The same numbers, and the gradient in a random direction is the slope of the model as it was."""
    model = scanned(directions, count)
    rng = np.random.default_rng(0)
    feeds = {"x": rng.standard_normal((count, 4, 1, 3)).astype(np.float32)}
    with Session(Model(model)) as old, Session(Model(converted(model))) as new:
        for before, after in zip(old.run(feeds), new.run(feeds, old.outputs), strict=True):
            assert np.abs(before - after).max() < 1e-6
    graph = build_vjp(Model(model), feeds, parameters=["w", "start"])
    targets = {name: rng.standard_normal(shape).astype(kind) for name, (shape, kind) in graph.targets.items()}
    steps = {name: rng.standard_normal(graph.parameters[name].shape).astype(np.float32) for name in ("w", "start")}
    with GradientSession(graph, Setting(threads=1)) as session:
        found = session.evaluate({**feeds, **targets}, {}).gradients
        high, low = (
            session.loss({**feeds, **targets}, {n: graph.parameters[n] + d * s for n, s in steps.items()})
            for d in (1e-2, -1e-2)
        )
    terms = np.concatenate([(found[name] * step).ravel() for name, step in steps.items()])
    assert (high - low) / 2e-2 == pytest.approx(float(terms.sum()), abs=1e-3 * float(np.abs(terms).sum()))


def test_sequences_of_unequal_length_are_refused() -> None:
    with pytest.raises(ModelError, match="Scan 'last' has sequences of unequal length"):
        converted(scanned(None, 2, "lengths"))
