"""What quantising gave."""

from __future__ import annotations

from onnxprune.model import load
from onnxprune.pipelines.quantized import Quantized
from tests.graphs.quantized import quantizable


def test_what_was_not_measured_is_not_there() -> None:
    done = Quantized(load(quantizable("conv")[0]), "dynamic", ("a",), {"b": "--keep"}, (2, 1))
    assert (done.fit, done.nearest, done.judged, done.values, done.speed) == (None,) * 5
    assert done.unfolded == 0 and not done.seconds
