"""Random graphs as ONNX Runtime's tools quantise them: what comes out is valid and equal to the masked original."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnxruntime import quantization as tools

from onnxprune.model.graph import remove_dead
from tests.graphs.net import feeds_of, run
from tests.graphs.random_graphs import images, mixed, options, sequences
from tests.random.test_graphs import LONG, check, quick

Quantise = Callable[[onnx.ModelProto, str], None]


class Reader(tools.CalibrationDataReader):
    """Two random batches."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.batches: Iterator[dict[str, np.ndarray]] = iter([feeds_of(proto, seed) for seed in (0, 1)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


@st.composite
def ways(draw: Any) -> Quantise:
    """A way to quantise: at run time, or ahead in one of two forms; per tensor or per channel."""
    per_channel = draw(st.booleans())
    weights = draw(st.sampled_from([tools.QuantType.QInt8, tools.QuantType.QUInt8]))
    if draw(st.booleans()):
        return lambda proto, path: tools.quantize_dynamic(
            proto,
            path,
            per_channel=per_channel and weights == tools.QuantType.QInt8,
            weight_type=weights,
        )
    form = draw(st.sampled_from([tools.QuantFormat.QDQ, tools.QuantFormat.QOperator]))
    if per_channel:
        weights = tools.QuantType.QInt8
    return lambda proto, path: tools.quantize_static(
        proto,
        path,
        Reader(proto),
        quant_format=form,
        per_channel=per_channel,
        weight_type=weights,
        activation_type=tools.QuantType.QUInt8,
    )


def quantised(proto: onnx.ModelProto, quantise: Quantise) -> onnx.ModelProto:
    assume(proto.opset_import[0].version >= 13)  # below, what the tools write is no valid model
    logging.disable(logging.WARNING)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "model.onnx")
            quantise(proto, path)
            made = onnx.load(path)
            remove_dead(made.graph)  # the tools leave notes on tensors that are gone
            run(made)
            return made
    except Exception as error:  # not every graph can be quantised, and not all that the tools write runs
        assume(False)
        raise AssertionError from error
    finally:
        logging.disable(logging.NOTSET)


@quick(24)
@given(images(), ways(), options())
def test_convolutional_graphs(proto: onnx.ModelProto, quantise: Quantise, chosen: dict[str, Any]) -> None:
    check(quantised(proto, quantise), chosen)


@quick(12)
@given(sequences(), ways(), options())
def test_transformer_graphs(proto: onnx.ModelProto, quantise: Quantise, chosen: dict[str, Any]) -> None:
    check(quantised(proto, quantise), chosen)


@pytest.mark.long
@settings(max_examples=LONG, deadline=None, database=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.one_of(images(), sequences(), mixed()), ways(), options())
def test_many_graphs(proto: onnx.ModelProto, quantise: Quantise, chosen: dict[str, Any]) -> None:
    check(quantised(proto, quantise), chosen)
