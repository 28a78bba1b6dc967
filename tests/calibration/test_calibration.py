"""Calibration data from every kind of source, and what is said about data that does not fit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from onnxprune import calibration
from onnxprune.model import load

MODELS = Path(__file__).parents[2] / "models"


def model(batch: int | str = "n", inputs: tuple[str, ...] = ("x",), elem_type: int = TensorProto.FLOAT, rest=(3,)):
    values = [helper.make_tensor_value_info(name, elem_type, [batch, *rest]) for name in inputs]
    result = helper.make_tensor_value_info("y", elem_type, [batch, *rest])
    graph = helper.make_graph([helper.make_node("Sum", list(inputs), ["y"])], "g", values, [result])
    return load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


DATA = np.arange(60, dtype=np.float32).reshape(20, 3)


def together(runs: list[dict[str, np.ndarray]], name: str = "x") -> np.ndarray:
    return np.concatenate([run[name] for run in runs])


def test_feeds_and_readers():
    feeds = [{"x": DATA[:5]}, {"x": DATA[5:]}]

    class Reader:
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self):
            return next(self.left, None)

    for source in (feeds, iter(feeds), Reader()):
        assert np.array_equal(together(calibration.read(source, model())), DATA)


def test_random_inputs_are_reproducible_and_fit():
    for name in ("digits", "bert"):
        net = load(str(MODELS / f"{name}.onnx"))
        first, second = (calibration.read("random", net, samples=40) for _ in range(2))
        assert sum(len(next(iter(run.values()))) for run in first) == 40
        assert all(np.array_equal(a[key], b[key]) for a, b in zip(first, second, strict=True) for key in a)
    assert first[0]["input_ids"].min() >= 0 and len(np.unique(first[0]["input_ids"])) > 10
    long = calibration.read("random", net, sizes={"sequence": 12})
    assert long[0]["input_ids"].shape == (32, 12)
