"""Quantising: which layers, on which numbers, how good."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.errors import GoalMissed, RunError, UsageError
from onnxprune.model import Model, load, to_proto
from onnxprune.pipelines.quantize import KEPT, TOO_LOSSY, quantize_model
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.quantized import Quantized
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.user_metric import Evaluation
from tests.graphs.net import Net
from tests.graphs.quantized import output, quantizable


def quantised(kind: str, options: QuantizeOptions, *, data: bool = True, model: Model | None = None) -> Quantized:
    proto, inputs = quantizable(kind)
    given = RunInputs([{"x": inputs}] if data else None)
    return quantize_model(model or load(proto), options, given)


def sqnr(model: onnx.ModelProto, kind: str) -> float:
    """On inputs that nobody has seen, in dB."""
    proto, data = quantizable(kind)
    fresh = np.random.default_rng(7).standard_normal((48, *data.shape[1:])).astype(np.float32)
    wanted, found = output(proto, fresh), output(model, fresh)
    return float(10 * np.log10(np.square(wanted).sum() / np.square(found - wanted).sum()))


CASES: list[tuple[str, dict[str, Any], str]] = [
    ("conv", {"form": "qdq"}, "DequantizeLinear"),
    ("conv", {"form": "qdq", "weights": "int4"}, "DequantizeLinear"),
    ("conv", {"form": "operators", "weights": "uint8", "per_channel": False}, "QLinearConv"),
    ("conv", {"form": "dynamic", "per_channel": False}, "ConvInteger"),
    ("products", {"form": "qdq", "per_channel": False}, "DequantizeLinear"),
    ("products", {"form": "operators", "weights": "uint8", "per_channel": False}, "QLinearMatMul"),
    ("products", {"form": "dynamic", "weights": "uint8"}, "MatMulInteger"),
    ("products", {"form": "blocks"}, "MatMulNBits"),
]


@pytest.mark.parametrize(("kind", "options", "operator"), CASES)
def test_forms(kind: str, options: dict[str, Any], operator: str) -> None:
    """The numbers that data chose are no worse than the nearest, and the report tells the truth about them."""
    done, nearest = (quantised(kind, QuantizeOptions(**options, fit=fit)) for fit in (True, False))
    assert len(done.layers) == 2 and not done.floats and done.form == options["form"]
    assert done.sizes[1] < done.sizes[0]
    for made in (done, nearest):
        counts = Counter(node.op_type for node in made.model.proto.graph.node)
        assert counts[operator] >= 2
        assert made.judged is not None
        assert sqnr(to_proto(made.model), kind) == pytest.approx(made.judged.sqnr, abs=1.5)
    assert done.nearest == nearest.judged
    assert done.judged.error <= nearest.judged.error
    assert done.fit is not None and nearest.fit is None and len(done.fit.fits) == 2


def test_four_bits_gain_most() -> None:
    done = quantised("products", QuantizeOptions(form="blocks", block_size=16))
    assert done.judged.sqnr > done.nearest.sqnr + 1
    assert sqnr(to_proto(done.model), "products") > done.nearest.sqnr + 1


@pytest.mark.parametrize("form", ["dynamic", "blocks"])
def test_without_data_the_numbers_are_the_nearest(form: str) -> None:
    done = quantised("products", QuantizeOptions(form=form), data=False)
    assert (done.fit, done.judged, done.nearest) == (None, None, None) and len(done.layers) == 2
    assert sqnr(to_proto(done.model), "products") > 12


def test_a_gemm_is_found_again() -> None:
    """The quantiser turns it into a MatMul of another name first."""
    net = Net()
    h = net.add("Gemm", net.input(["n", 16]), net.weight(16, 32), net.weight(32))
    net.output(net.add("Gemm", net.add("Relu", h), net.weight(8, 32), net.weight(8), transB=1))
    data = RunInputs([{"x": np.random.default_rng(0).standard_normal((64, 16)).astype(np.float32)}])
    done = quantize_model(load(net.proto()), QuantizeOptions(form="dynamic"), data)
    assert len(done.layers) == 2 and done.fit is not None and len(done.fit.fits) == 2


def test_layers_that_are_kept() -> None:
    proto, _ = quantizable("conv")
    first = proto.graph.node[0].name
    done = quantised("conv", QuantizeOptions(keep=(first,)))
    assert done.floats == {first: KEPT} and len(done.layers) == 1
    with pytest.raises(UsageError, match="no layer is called 'nothing'"):
        quantised("conv", QuantizeOptions(keep=("nothing",)))
    with pytest.raises(GoalMissed, match="nothing is quantised"):
        quantised("conv", QuantizeOptions(keep=("*",)))


def test_layers_that_lose_too_much_stay_in_float() -> None:
    """The one that loses most is left, and the outputs are as good as asked for."""
    proto, _ = quantizable("products")
    names = [node.name for node in proto.graph.node if node.op_type == "MatMul"]
    nearest: dict[str, Any] = {"form": "blocks", "fit": False}
    alone = {name: quantised("products", QuantizeOptions(**nearest, keep=(name,))).judged.sqnr for name in names}
    best = max(alone, key=lambda name: alone[name])
    constraint = QualityConstraint("sqnr", alone[best] - 0.1)
    done = quantised("products", QuantizeOptions(**nearest, constraint=constraint))
    assert dict(done.floats) == {best: TOO_LOSSY} and len(done.layers) == 1
    assert done.judged.sqnr >= constraint.limit
    with pytest.raises(GoalMissed, match="not good enough with 1 of 2 layers in float"):
        quantised("products", QuantizeOptions(form="blocks", constraint=QualityConstraint("sqnr", 200)))


def test_the_users_measure() -> None:
    seen: list[float] = []

    def measure(path: str) -> float:
        model = onnx.load(path)
        seen.append(sum(node.op_type == "MatMul" for node in model.graph.node))
        return seen[-1]

    options = QuantizeOptions(
        form="blocks", constraint=QualityConstraint("value", 1.0), evaluation=Evaluation(measure), fit=False
    )
    done = quantised("products", options)
    assert done.values == (2.0, 1.0) and len(done.layers) == 1 and 0 in seen


def test_nothing_to_quantise() -> None:
    net = Net()
    net.output(net.add("Relu", net.input(["n", 4])))
    with pytest.raises(GoalMissed, match="no layer of the graph"):
        quantize_model(load(net.proto()), QuantizeOptions(form="dynamic"))


def test_blocks_are_for_products() -> None:
    with pytest.raises(GoalMissed) as caught:
        quantised("conv", QuantizeOptions(form="blocks"))
    assert "MatMul" in caught.value.hint


def test_the_model_that_was_given_stays() -> None:
    proto, _ = quantizable("conv")
    for node in proto.graph.node:
        node.name = ""
    before = proto.SerializeToString()
    done = quantised("conv", QuantizeOptions(), model=load(proto))
    assert proto.SerializeToString() == before and len(done.layers) == 2


def test_the_quantiser_refuses() -> None:
    """What stops ONNX Runtime's tool is an error that says so."""
    net = Net()
    net.output(net.add("MatMul", net.input(["n", 4]), net.weight(4, 4)))
    options, data = QuantizeOptions(form="qdq"), [{"x": np.full((32, 4), np.nan, np.float32)}]
    with pytest.raises((RunError, UsageError, GoalMissed)):
        quantize_model(load(net.proto()), options, RunInputs(data))


@pytest.mark.parametrize("form", ["qdq", "operators"])
def test_old_opsets_are_raised(form: str) -> None:
    """Quantisers know no channels before opset 13."""
    net = Net(opset=11)
    h = net.add("Conv", net.input(["n", 3, 6, 6]), net.weight(8, 3, 3, 3), net.weight(8))
    net.output(net.add("Conv", net.add("Relu", h), net.weight(4, 8, 3, 3), net.weight(4)))
    data = RunInputs([{"x": np.random.default_rng(0).standard_normal((64, 3, 6, 6)).astype(np.float32)}])
    done = quantize_model(load(net.proto()), QuantizeOptions(form=form, weights="uint8"), data)
    assert len(done.layers) == 2 and done.judged.sqnr > 20
    assert {o.domain: o.version for o in done.model.proto.opset_import}[""] >= 13
