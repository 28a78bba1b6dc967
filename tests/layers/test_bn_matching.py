"""Stand-ins for models without data: BatchNormalization statistics of random inputs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune.layers import bn_matching
from onnxprune.model import Model, load, to_proto
from onnxprune.runtime import Session
from onnxprune.tracing import trace

SHIFT, SCALE = 5.0, 3.0


def real(count: int, seed: int) -> np.ndarray:
    """Inputs as the network was trained on them: far from random ones."""
    return (SHIFT + SCALE * np.random.default_rng(seed).standard_normal((count, 3, 8, 8))).astype(np.float32)


def trained(opset: int = 17) -> Model:
    """Conv, BatchNormalization and Relu twice, whose statistics are those of `real` inputs."""
    rng = np.random.default_rng(0)
    nodes, weights, before, size = [], {}, "x", 3
    for number, wide in enumerate((12, 16)):
        names = [f"{part}{number}" for part in ("w", "scale", "bias", "mean", "var")]
        shapes = [(wide, size, 3, 3), *[(wide,)] * 4]
        weights |= {name: rng.standard_normal(shape) for name, shape in zip(names, shapes, strict=True)}
        weights[names[1]], weights[names[4]] = rng.uniform(0.5, 1.5, wide), np.ones(wide)
        nodes.append(helper.make_node("Conv", [before, names[0]], [f"c{number}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("BatchNormalization", [f"c{number}", *names[1:]], [f"n{number}"]))
        nodes.append(helper.make_node("Relu", [f"n{number}"], [f"r{number}"]))
        before, size = f"r{number}", wide
    weights["head"] = rng.standard_normal((5, size, 3, 3))
    nodes.append(helper.make_node("Conv", [before, "head"], ["y"]))
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", ["n", 3, 8, 8]), ("y", ["n", 5, 6, 6]))
    ]
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return load(to_proto(bn_matching.with_statistics_of(load(model), [{"x": real(256, 1)}])))


def tapped(model: Model, inputs: np.ndarray, names: list[str]) -> list[np.ndarray]:
    proto = onnx.ModelProto()
    proto.CopyFrom(to_proto(model))
    proto.graph.output.extend(helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", None, 8, 8]) for n in names)
    with Session(load(proto)) as session:
        return list(session.run({"x": inputs}, names))


@pytest.mark.parametrize("opset", [9, 17])
def test_normalised_channels_have_the_moments_of_training(opset: int) -> None:
    model, inputs = trained(opset), np.random.default_rng(2).standard_normal((64, 3, 8, 8)).astype(np.float32)
    like = bn_matching.with_statistics_of(model, [{"x": part} for part in np.split(inputs, 4)])
    for number, values in enumerate(tapped(like, inputs, ["n0", "n1"])):
        # The variance is that of the runs; epsilon (1e-5), and sums in single precision, are what is left.
        np.testing.assert_allclose(values.mean(axis=(0, 2, 3)), model.array(f"bias{number}"), atol=1e-3)
        np.testing.assert_allclose(values.std(axis=(0, 2, 3)), model.array(f"scale{number}"), rtol=1e-3)
    assert not np.allclose(tapped(model, inputs, ["n1"])[0].std(axis=(0, 2, 3)), model.array("scale1"), rtol=0.1)


def test_statistics_come_back() -> None:
    model = trained()
    back = bn_matching.restored(
        bn_matching.with_statistics_of(model, [{"x": np.zeros((4, 3, 8, 8), np.float32)}]), model
    )
    assert to_proto(back) == to_proto(model)


def test_models_without_norms_stand_for_themselves() -> None:
    groups = trace(load("models/digits.onnx"))
    assert bn_matching.stand_in(groups, [{"image": np.zeros((4, 1, 8, 8), np.float32)}]) is groups


def test_norms_in_training_are_left_alone() -> None:
    proto = to_proto(trained())
    norm = proto.graph.node[1]
    norm.attribute.append(helper.make_attribute("training_mode", 1))
    norm.output.extend(["mean_now", "var_now"])
    like = bn_matching.with_statistics_of(load(proto), [{"x": np.zeros((4, 3, 8, 8), np.float32)}])
    for name, changed in (("mean0", False), ("mean1", True)):
        assert (not np.array_equal(like.array(name), load(proto).array(name))) is changed


def test_random_inputs_repair_what_real_ones_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The repair holds for inputs that nobody gave, and the model keeps its own statistics."""
    model, unseen = trained(), {"x": real(64, 3)}

    def error(data: str | None) -> float:
        small = onnxprune.prune(to_proto(model), 0.25, criterion="l2", data=data).model
        with Session(model) as whole, Session(load(small)) as cut:
            wanted, (found,) = whole.run(unseen)[0], cut.run(unseen)
        return float(np.square(found - wanted).sum() / np.square(wanted - wanted.mean()).sum())

    cut_only, mended = error(None), error("random")
    monkeypatch.setattr(bn_matching, "stand_in", lambda groups, runs: groups)
    naive = error("random")
    assert mended < 0.5 * min(cut_only, naive), (cut_only, naive, mended)
