"""Quantisers of QONNX and Brevitas as standard nodes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import RunError
from onnxprune.model import load
from onnxprune.model.protos import QUANTIZING
from onnxprune.model.quantizers import quantized, runnable
from onnxprune.runtime import Session
from tests.graphs.net import Net
from tests.tracing.rules.test_quantizers import DOMAIN, network, quant


def node(op: str, count: int, **attrs) -> onnx.NodeProto:
    return onnx.helper.make_node(op, [f"i{n}" for n in range(count)], ["y"], domain=DOMAIN, **attrs)


def value_of(op: str, *inputs, **attrs) -> list[float]:
    given = {f"i{n}": np.asarray(v, np.float32) for n, v in enumerate(inputs)}
    return quantized(node(op, len(inputs), **attrs), given).tolist()


@pytest.mark.parametrize(
    ("attrs", "bits", "wanted"),
    [
        ({}, 3, [-4, -2, -1, 0, 0, 2, 2, 3]),
        ({"narrow": 1}, 3, [-3, -2, -1, 0, 0, 2, 2, 3]),
        ({"signed": 0}, 2, [0, 0, 0, 0, 0, 2, 2, 3]),
        ({"signed": 0, "narrow": 1}, 2, [0, 0, 0, 0, 0, 2, 2, 2]),
        ({}, 1, [-1, -1, -1, -1, 1, 1, 1, 1]),
        ({"rounding_mode": "FLOOR"}, 3, [-4, -2, -2, -1, 0, 1, 2, 3]),
        ({"rounding_mode": "CEIL"}, 3, [-4, -1, -1, 0, 1, 2, 3, 3]),
        ({"rounding_mode": "UP"}, 3, [-4, -2, -2, -1, 1, 2, 3, 3]),
        ({"rounding_mode": "DOWN"}, 3, [-4, -1, -1, 0, 0, 1, 2, 3]),
        ({"rounding_mode": "HALF_UP"}, 3, [-4, -2, -1, -1, 1, 2, 3, 3]),
        ({"rounding_mode": "HALF_DOWN"}, 3, [-4, -1, -1, 0, 0, 1, 2, 3]),
    ],
)
def test_what_quant_makes(attrs: dict[str, int | str], bits: int, wanted: list[float]) -> None:
    """In steps of two, from the definition, worked out by hand."""
    x = np.array([-9, -1.5, -1.2, -0.5, 0.5, 1.5, 2.5, 9]) * 2
    assert value_of("Quant", x, 2.0, 0.0, float(bits), **attrs) == [2.0 * w for w in wanted]


def test_what_the_others_make() -> None:
    assert value_of("BipolarQuant", [-2, 0, 3], 0.5) == [-0.5, 0.5, 0.5]
    assert value_of("Trunc", [-33, 31, 47], 1.0, 0.0, 8.0, 4.0) == [-3, 1, 2]
    assert value_of("Quant", [0.0, 1.0, 9.0], 1.0, 2.0, 3.0, signed=0) == [0.0, 1.0, 5.0]


def test_only_copies_are_changed() -> None:
    model = load(network(QUANTIZING[0]))
    before = model.proto.SerializeToString(deterministic=True)
    assert all(not n.domain for n in runnable(model).proto.graph.node)
    with Session(model):
        pass
    assert model.proto.SerializeToString(deterministic=True) == before


def test_what_is_not_known_is_not_run() -> None:
    net = Net(17)
    x = net.input([2, 8])
    y = quant(rounding_mode="SOMEHOW")(net, net.add("MatMul", x, net.weight(8, 8)))
    net.output(net.add("MatMul", y, net.weight(8, 3)), [2, 3])
    with pytest.raises(RunError, match="cannot load the model"):
        Session(net.model())


VECTORS = json.loads((Path(__file__).parent / "qonnx_vectors.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['op']}-{len(v['inputs'])}-{v['attributes']}")
def test_what_the_package_of_qonnx_makes(vector: dict) -> None:
    """Recorded by `python -m tests.measure.qonnx_vectors --write tests/model/qonnx_vectors.json`."""
    assert value_of(vector["op"], *vector["inputs"], **vector["attributes"]) == vector["output"]
