"""Quantised models: what repair gives back, and what stays as it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.model import load, to_proto
from onnxprune.recovery.closed_form import RecoveryOptions, recover
from onnxprune.rewriting import Removal
from tests.graphs.quantized import BLOCKS, DYNAMIC, FORMS, KINDS, output, quantizable, quantized

CASES = [(kind, form) for kind in KINDS for form in FORMS if (kind, form) != ("conv", BLOCKS)]


def error(model: onnx.ModelProto, original: onnx.ModelProto, x: np.ndarray) -> float:
    """As a layer's fit is judged: relative to what outputs deviate from their means."""
    wanted, found = (np.moveaxis(output(m, x), 1 if x.ndim == 4 else -1, 0) for m in (original, model))
    wanted, found = (v.reshape(len(v), -1) for v in (wanted, found))
    spread = np.square(wanted - wanted.mean(axis=1, keepdims=True)).sum()
    return float(np.square(found - wanted).sum() / spread)


@pytest.mark.parametrize("criterion", ["l2", "obs"])
@pytest.mark.parametrize(("kind", "form"), CASES)
def test_repair_on_the_grid(kind: str, form: str, criterion: str) -> None:
    """Most of the damage is undone, with the same operators and types, on samples that the repair never saw."""
    proto, data = quantizable(kind)
    runs = [{"x": part} for part in np.split(data, 12)]
    model = quantized(proto, form, runs)
    cut = onnxprune.prune(model, 0.5, criterion, data=runs, recovery="none")
    mended = onnxprune.prune(model, 0.5, criterion, data=runs)
    fresh = np.random.default_rng(1).standard_normal((64, *data.shape[1:])).astype(np.float32)
    errors = [error(m.model, model, fresh) for m in (cut, mended)]
    assert errors[0] > 0.05 and errors[1] < 0.35 * errors[0]
    repair = mended.report.recovery
    assert repair is not None and repair.kept and repair.fits and all(fit.kept for fit in repair.fits)
    # The held-out rows of a layer that judge its fit tell the truth about it.
    assert repair.fits[-1].after == pytest.approx(errors[1], rel=0.3)
    assert Counter(n.op_type for n in mended.model.graph.node) == Counter(n.op_type for n in model.graph.node)
    types = {t.name: (t.data_type, tuple(t.dims)) for t in cut.model.graph.initializer}
    assert {t.name: (t.data_type, tuple(t.dims)) for t in mended.model.graph.initializer} == types


def stored(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


def test_scales_of_the_bias_follow_those_of_the_weight() -> None:
    """Where a weight gets larger steps, its int32 bias is in steps of input times weight as before."""
    proto, data = quantizable("conv")
    runs = [{"x": part} for part in np.split(data, 12)]
    model = quantized(proto, "qdq", runs)
    mended = onnxprune.prune(model, 0.75, "l2", data=runs)
    before, after = stored(model), stored(mended.model)
    last = [n for n in mended.model.graph.node if n.op_type == "Conv"][-1]
    makers = {n.output[0]: n for n in mended.model.graph.node}
    x, w, b = (makers[name] for name in last.input)
    assert (after[w.input[1]] > before[w.input[1]]).any(), "no scale grew: the test asks for nothing"
    assert np.allclose(after[b.input[1]], after[x.input[1]] * after[w.input[1]], rtol=1e-6)


def test_numbers_stay_within_those_of_the_original() -> None:
    """A model that was quantised to 7 bits, for processors whose sums saturate, stays one."""
    proto, data = quantizable("conv")
    runs = [{"x": part} for part in np.split(data, 12)]
    model = quantized(proto, "qdq", runs)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4:
            tensor.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(tensor) // 2).astype(np.int8), tensor.name))
    largest = max(int(np.abs(v).max()) for v in stored(model).values() if v.dtype == np.int8)
    mended = onnxprune.prune(model, 0.5, "l2", data=runs)
    assert mended.report.recovery is not None and mended.report.recovery.kept
    assert max(int(np.abs(v.astype(int)).max()) for v in stored(mended.model).values() if v.dtype == np.int8) <= largest


def test_a_fit_is_judged_as_it_is_stored() -> None:
    """With three numbers to a weight, what least squares gain is lost by rounding: the layer stays as it was cut."""
    proto, data = quantizable("products")
    runs = [{"x": part} for part in np.split(data, 12)]
    model = quantized(proto, "qdq", runs)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 2:
            few = np.sign(numpy_helper.to_array(tensor)).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(few, tensor.name))
    source = load(model)
    outcome = api.run(source, Options(ratio=0.5, criterion="l2"))
    removal = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
    mended, report = recover(removal, outcome.model, runs, RecoveryOptions())
    assert all(fit.kept == (fit.after < fit.before) for fit in report.fits)
    numbers = {int(n) for v in stored(to_proto(mended)).values() if v.dtype == np.int8 and v.ndim == 2 for n in v.flat}
    assert numbers <= {-1, 0, 1}
    assert report.kept == (report.after.error < report.before.error)


def test_a_dynamic_product_is_fitted_to_its_floats() -> None:
    """What is quantised by its own range is read in front of that."""
    proto, data = quantizable("products")
    model = quantized(proto, DYNAMIC, [])
    runs = [{"x": part} for part in np.split(data, 12)]
    mended = onnxprune.prune(model, 0.5, "l2", data=runs)
    assert [fit.kept for fit in mended.report.recovery.fits] == [True]  # type: ignore[union-attr]
