"""The account of quantising."""

from __future__ import annotations

import json

import numpy as np

from onnxprune.model import load
from onnxprune.pipelines.quantize import quantize_model
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.quantized import Quantized, TriedShare
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.report.quantize import quantize_data, quantize_lines
from onnxprune.runtime import Agreement
from onnxprune.runtime.bench import Place
from onnxprune.runtime.paired_timing import TimeRatio
from onnxprune.sparsity import Speed
from tests.graphs.quantized import quantizable


def done(*, data: bool = True) -> Quantized:
    proto, inputs = quantizable("products")
    first = proto.graph.node[0].name
    options = QuantizeOptions(form="blocks", keep=(first,))
    return quantize_model(load(proto), options, RunInputs([{"x": inputs}] if data else None))


def test_lines() -> None:
    lines = "\n".join(quantize_lines(done()))
    assert "layers   1 of 2 quantised, weights alone, in blocks" in lines
    assert "float    " in lines and ": --keep" in lines
    assert "numbers  chosen by what they make of the data, in 1 of 1 layer" in lines
    assert "by the nearest numbers -> " in lines and "on held-out samples" in lines
    assert "speed" not in lines and "value" not in lines


def test_lines_without_data_say_less() -> None:
    lines = "\n".join(quantize_lines(done(data=False)))
    assert "layers   1 of 2 quantised" in lines and "outputs" not in lines and "numbers" not in lines


def test_saturation_is_said() -> None:
    good, bad = (Agreement(1.0, sqnr, 1.0, None) for sqnr in (40.0, 22.0))
    of = Quantized(load(quantizable("conv")[0]), "qdq", ("a",), {}, (2, 1), nearest=good, judged=good, deployed=bad)
    assert of.saturates and "but 22.0 dB by this machine's kernels" in "\n".join(quantize_lines(of))


def test_what_was_tried_is_said() -> None:
    outputs = [Agreement(1.0, sqnr, 1.0, None) for sqnr in (12.0, 15.0)]
    tried = (TriedShare(0.4, 0, 900, outputs[0], value=0.5), TriedShare(0.8, 2, 1000, outputs[1], value=0.7))
    of = Quantized(load(quantizable("conv")[0]), "qdq", ("a", "b"), {}, (9000, 1000), share=0.8, tried=tried)
    lines = [line for line in quantize_lines(of) if line.startswith("within")]
    assert "80.0% of the parameters, 2 layers of 4 bits, 1000 B: 15.0 dB" in lines[0] and "value 0.7" in lines[0]
    assert "not as good: 40.0% of the parameters, 0 layers of 4 bits" in lines[1]
    assert [t["narrow"] for t in quantize_data(of)["tried"]] == [0, 2]


def test_data_are_plain() -> None:
    found = json.loads(json.dumps(quantize_data(done()), allow_nan=False))
    assert found["form"] == "blocks"
    assert [(layer["quantised"], layer["why"]) for layer in found["quantised"]] == [(True, ""), (False, "--keep")]
    assert found["quantised"][0]["after"] < found["quantised"][0]["before"] and found["quantised"][1]["after"] is None
    assert np.isfinite(found["outputs"]["sqnr"]) and found["speed"] is None and found["fit"]["kept"]


def test_times_that_were_tried_are_said() -> None:
    """Two models with all of their parameters: the layers in float tell them apart."""
    outputs = [Agreement(1.0, sqnr, 1.0, None) for sqnr in (30.0, 20.0)]
    speeds = [Speed(1e-3, 1e-3 * r, TimeRatio(r, r, r), Place()) for r in (0.6, 0.7)]
    tried = tuple(
        TriedShare(1.0, 0, 900, o, floats=n, speed=s) for o, n, s in zip(outputs, (0, 1), speeds, strict=True)
    )
    of = Quantized(load(quantizable("conv")[0]), "qdq", ("a", "b"), {}, (9000, 900), share=1.0, tried=tried)
    lines = "\n".join(quantize_lines(of))
    assert "within   100.0% of the parameters, 0 layers of 4 bits, 900 B, 60.0% of the time: 30.0 dB" in lines
    assert "not as good: 100.0% of the parameters, 1 layer in float, 0 layers of 4 bits, 900 B, 70.0% of" in lines
    assert [t["floats"] for t in quantize_data(of)["tried"]] == [0, 1]
