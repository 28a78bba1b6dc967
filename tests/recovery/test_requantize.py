"""Numbers of a quantised model chosen by what its layers make."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune.errors import UsageError
from onnxprune.layers import weight_at
from onnxprune.model import load, to_proto
from onnxprune.recovery import requantized
from onnxprune.rewriting import Blocks, Removal, removed_classes, with_blocks
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups, trace
from tests.graphs.quantized import output, quantizable


def case(removed: int = 0) -> tuple[Removal, Groups, dict[str, str], list[dict[str, Any]], Any]:
    """The original with some units removed, the traced small model in blocks of 4 bits, and inputs."""
    proto, data = quantizable("products")
    groups = trace(load(proto))
    (group,) = groups.groups
    removal = Removal(groups, removed_classes(groups, {group.name: np.arange(removed)}))
    small = rewrite(groups, removal.removed_classes)
    names = [node.name for node in small.proto.graph.node if node.op_type == "MatMul"]
    quantized = trace(with_blocks(small, names, Blocks(4, 16)))
    return removal, quantized, {n: n for n in names}, [{"x": part} for part in np.split(data, 12)], proto


def error(model: Any, original: Any) -> float:
    x = np.random.default_rng(5).standard_normal((64, 6, 16)).astype(np.float32)
    wanted = output(original, x)
    return float(np.square(output(to_proto(model), x) - wanted).mean() / np.square(wanted).mean())


@pytest.mark.parametrize("removed", [0, 16])
def test_outputs_are_nearer_to_the_original(removed: int) -> None:
    """With units removed before, the same numbers make up for both; the error is on samples that no fit saw."""
    removal, quantized, origins, runs, proto = case(removed)
    model, report = requantized(removal, quantized, origins, runs)
    assert report.kept and len(report.fits) == 2 and report.after.error < report.before.error
    before, after = error(quantized.model, proto), error(model, proto)
    assert after < (0.8 if not removed else 0.5) * before
    types = {t.name: (t.data_type, tuple(t.dims)) for t in quantized.model.proto.graph.initializer}
    assert {t.name: (t.data_type, tuple(t.dims)) for t in model.proto.graph.initializer} == types


@pytest.mark.parametrize("removed", [0, 16])
def test_zeros_of_the_original_stay_zero(removed: int) -> None:
    """Half of all weights; with units removed before, too. The outputs come nearer all the same."""
    proto, data = quantizable("products")
    sparse, rng = onnx.ModelProto(), np.random.default_rng(2)
    sparse.CopyFrom(proto)
    for tensor in sparse.graph.initializer:
        weight = onnx.numpy_helper.to_array(tensor)
        kept = np.abs(weight) > np.median(np.abs(weight))
        tensor.CopyFrom(onnx.numpy_helper.from_array(weight * kept, tensor.name))
    groups = trace(load(sparse))
    (group,) = groups.groups
    removal = Removal(groups, removed_classes(groups, {group.name: np.arange(removed)}))
    small = rewrite(groups, removal.removed_classes)
    names = [node.name for node in small.proto.graph.node if node.op_type == "MatMul"]
    quantized = trace(with_blocks(small, names, Blocks(4, 16, symmetric=True)))
    runs = [{"x": part} for part in np.split(data, 12)]
    model, report = requantized(removal, quantized, {n: n for n in names}, runs)
    assert report.kept and report.after.error < report.before.error
    for weight, found in zip(floats(small), floats(model), strict=True):
        assert weight.shape == found.shape and 0.4 < (weight == 0).mean() < 0.6
        assert not found[weight == 0].any()
    x = rng.standard_normal((64, 6, 16)).astype(np.float32)
    wanted = output(sparse, x)
    before, after = (np.square(output(to_proto(m), x) - wanted).mean() for m in (quantized.model, model))
    assert after < 0.9 * before


def floats(model: Any) -> list[np.ndarray]:
    """The weights of all products, [inputs, outputs]."""
    found = []
    for node in model.proto.graph.node:
        if node.op_type == "MatMul":
            found.append(model.array(node.input[1]))
        elif node.op_type == "MatMulNBits":
            weight = weight_at(node)
            assert weight is not None
            found.append(weight.value(model.array))
    return found


def test_layers_of_unknown_origin_stay() -> None:
    removal, quantized, _, runs, _ = case()
    model, report = requantized(removal, quantized, {}, runs)
    assert model is quantized.model and not report.kept and not report.fits


def test_one_run_is_not_enough() -> None:
    removal, quantized, origins, runs, _ = case()
    with pytest.raises(UsageError, match="one batch"):
        requantized(removal, quantized, origins, runs[:1])
