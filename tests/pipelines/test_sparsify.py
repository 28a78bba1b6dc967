"""Models with zeros: proven, replayed, stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings

import onnxprune
from onnxprune.cost import count_nonzeros
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import load, save
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsify import carried_out, sparsified
from onnxprune.rewriting import Plan
from onnxprune.runtime import Session
from onnxprune.sparsity import SparsifyOptions
from onnxprune.sparsity.registry import METHODS, LayerEvidence, Masked
from tests.graphs.net import Net, array_of, feeds_of, run
from tests.graphs.quantized import in_blocks
from tests.graphs.random_graphs import FAMILIES

MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA = MODELS / "digits.onnx", MODELS / "digits_calibration.npz"
RUNNING = sorted(p.name for p in MODELS.glob("*.onnx") if p.stem not in ("bfloat16_compute", "custom_op"))


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("name", RUNNING)
def test_every_model_gets_zeros_that_are_proven(name, pattern):
    done = sparsified(load(MODELS / name), SparsifyOptions(pattern=pattern))
    assert done.verdict is not None and done.verdict.ok, done.verdict.problem
    assert done.sizes[1] <= done.sizes[0]
    asked = [w for w in done.weights if w.zeros > w.before]
    assert len(asked) >= len(done.weights) / 2
    if pattern == "unstructured":
        full = [w for w in done.weights if not w.before]
        share = sum(w.zeros for w in full) / sum(w.elements for w in full)
        assert 0.4 < share < 0.6


STORED = ("digits", "lstm", "quantized", "control_flow", "functions", "half", "sparse", "fused")


@pytest.mark.parametrize("name", STORED)
def test_sparse_storage_is_smaller_and_gives_the_same_outputs(name, tmp_path):
    model = load(MODELS / f"{name}.onnx")
    options = SparsifyOptions(0.9)
    dense = sparsified(model, options)
    sparse = sparsified(model, SparsifyOptions(0.9, storage="sparse"))
    save(sparse.model, tmp_path / "sparse.onnx")
    size = (tmp_path / "sparse.onnx").stat().st_size
    assert size == sparse.sizes[1] < dense.sizes[1]
    written = load(tmp_path / "sparse.onnx")
    assert count_nonzeros(sparse.groups, written) == count_nonzeros(dense.groups, dense.model)
    for one, other in zip(run(dense.model).values(), run(written).values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_file_with_ninety_percent_zeros_is_a_third(tmp_path):
    done = sparsified(load(DIGITS), SparsifyOptions(0.9, storage="auto"))
    save(done.model, tmp_path / "sparse.onnx")
    assert (tmp_path / "sparse.onnx").stat().st_size < DIGITS.stat().st_size / 3


def test_a_file_does_not_grow_where_sparse_is_larger():
    done = sparsified(load(DIGITS), SparsifyOptions(0.5, storage="sparse"))
    assert done.sizes[1] == done.sizes[0] and {w.stored for w in done.weights} == {"dense"}


def test_zeros_of_quantised_weights_are_zero_points():
    net = Net()
    x = net.input((3, 8))
    stored = np.arange(40, dtype=np.uint8).reshape(8, 5) + 100
    scale, zero = net.const(0.1, "s", np.float32), net.const(np.uint8(120), "z")
    weight = net.add("DequantizeLinear", net.const(stored, "w"), scale, zero)
    net.output(net.add("MatMul", x, weight))
    done = sparsified(net.model(), SparsifyOptions(0.5))
    assert done.verdict is not None and done.verdict.ok, done.verdict.problem
    changed = done.model.array("w")
    assert ((changed == 120) | (changed == stored)).all()
    assert (changed == 120).sum() == 20


def test_a_table_that_is_looked_up_too_stays():
    net = Net()
    ids = net.input((3,), dtype=onnx.TensorProto.INT64)
    table = net.weight(6, 4, name="table")
    x = net.add("Gather", table, ids)
    net.output(net.add("MatMul", net.add("MatMul", x, net.weight(4, 4, name="w")), net.add("Transpose", table)))
    done = sparsified(net.model(), SparsifyOptions(0.5))
    assert [w.name for w in done.weights] == ["w"]
    assert "Gather" in done.left["table"]
    assert done.verdict is not None and done.verdict.ok


def test_globs_and_ratios():
    options = SparsifyOptions(0.5, keep=["fc*"], ratios={"residual.*": 0.75, "*conv_1*": 0.25})
    done = sparsified(load(DIGITS), options)
    shares = {w.name: w.zeros / w.elements for w in done.weights}
    expected = {"conv.weight": 4 / 9, "conv_1.weight": 0.25, "residual.conv.weight": 0.75}
    assert shares == pytest.approx(expected | {"residual.conv_1.weight": 0.25})
    alone = sparsified(load(DIGITS), SparsifyOptions(only=["/fc*"]))
    assert {w.name for w in alone.weights} == {"fc.weight", "fc_1.weight"}


@pytest.mark.parametrize("data", [None, DATA])
def test_all_layers_are_compared_and_keep_their_floor(data):
    method = "wanda" if data else "magnitude"
    each = onnxprune.sparsify(DIGITS, 0.8, method=method, data=data)
    options = {"per": "global", "floor": 0.1, "ratios": {"conv.weight": 0.0}}
    done = onnxprune.sparsify(DIGITS, 0.8, method=method, data=data, **options)
    shares = {w.name: w.zeros / w.elements for w in done.report.weights}
    assert shares.pop("conv.weight") == 0 and max(shares.values()) < 0.91
    assert max(shares.values()) - min(shares.values()) > 0.05
    free = [w for w in done.report.weights if w.name != "conv.weight"]
    assert sum(w.zeros for w in free) / sum(w.elements for w in free) == pytest.approx(0.8, abs=0.02)
    assert accuracy(done.model) > accuracy(each.model) - 0.05


@pytest.mark.parametrize(("method", "kept"), [("auto", {"sparsegpt"}), ("alps", {"alps"})])
def test_auto_has_another_method_where_the_fit_of_the_first_is_not_kept(monkeypatch, method, kept):
    def useless(evidence: LayerEvidence) -> Masked:
        staying = evidence.choose(np.abs(evidence.weight))
        return np.where(staying, -evidence.weight, 0.0), staying

    monkeypatch.setitem(METHODS, "alps", replace(METHODS["alps"], make=useless))
    done = onnxprune.sparsify(DIGITS, 0.7, method=method, data=DATA, samples=64, verify=False).report
    assert {w.method for w in done.weights} == kept
    assert (done.masked is None) == (method == "alps"), "a fit is kept, and what zeros alone give is told"
    assert done.judged is not None and done.judged.sqnr > 0


def accuracy(model) -> float:
    with np.load(MODELS / "digits_test.npz") as data, Session(load(model)) as session:
        (logits,) = session.run({"image": data["image"]})
        return float(np.mean(np.argmax(logits, -1) == data["label"]))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sparsity": 1.0}, "--sparsity: 1 is not at least 0 and below 1"),
        ({"sparsity": -0.1}, "--sparsity: -0.1 is not"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "2:4 says how many zeros there are"),
        ({"sparsity": 0.5, "method": "threshold:0.1"}, "says how many zeros there are"),
        ({"per": "row"}, "--per: 'row' is none of"),
        ({"storage": "zip"}, "--storage: 'zip' is none of"),
        ({"keep": ["nothing*"]}, "--keep: no weight or node matches 'nothing*'"),
        ({"ratios": {"x": 0.5}}, "--ratio: no weight or node matches 'x'"),
        ({"recover": True}, "--recover fits to what the model computes"),
        ({"method": "alps"}, "needs inputs"),
    ],
)
def test_bad_requests_are_refused(options, says):
    with pytest.raises(UsageError) as error:
        onnxprune.sparsify(DIGITS, **options)
    assert says in error.value.message


def test_nothing_to_change():
    net = Net()
    net.output(net.add("Relu", net.input((2, 3))))
    with pytest.raises(GoalMissed, match="nothing to change"):
        sparsified(net.model(), SparsifyOptions())


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_random_graphs(family):
    @given(FAMILIES[family]())
    @settings(max_examples=5, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(proto):
        before = proto.SerializeToString(deterministic=True)
        for options in (SparsifyOptions(0.5), SparsifyOptions(pattern="2:4"), SparsifyOptions(0.9, storage="sparse")):
            try:
                done = sparsified(load(proto), options, RunInputs([feeds_of(proto, seed) for seed in range(3)]))
            except GoalMissed:
                continue
            assert done.verdict is not None and done.verdict.ok, done.verdict.problem
            assert done.sizes[1] <= done.sizes[0]
            assert [o.name for o in done.model.proto.graph.output] == [o.name for o in proto.graph.output]
            assert proto.SerializeToString(deterministic=True) == before
            again = Plan.from_json(done.plan.to_json())
            if options.storage == "dense":
                replayed = carried_out(load(proto), again, RunInputs(), verify=False)
                assert count_nonzeros(done.groups, replayed.model) == count_nonzeros(done.groups, done.model)

    check()


@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_numbers_that_share_a_byte_become_their_zero_point(bits, pattern):
    """What the node decodes is zero where the plan says so, and unchanged elsewhere; inputs stand in their order."""
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input(["n", 32]), net.weight(32, 48, name="a")))
    net.output(net.add("MatMul", x, net.weight(48, 8, name="b")))
    proto = in_blocks(net.proto(), bits)
    result = onnxprune.sparsify(proto, pattern=pattern)
    assert result.report.verdict.ok and result.report.left == {}
    zero = 2 ** (bits - 1)

    def numbers(value, shape):
        parts = [value >> bits * i & 2**bits - 1 for i in range(8 // bits)]
        return np.stack(parts, -1).reshape(shape)

    for step in result.plan.zeros:
        before, after = (array_of(p, step.tensor) for p in (proto, result.model))
        split = [numbers(value, step.keep.shape) for value in (before, after)]
        np.testing.assert_array_equal(split[1], np.where(step.keep, split[0], zero))
        if pattern == "2:4":
            fours = (split[1] != zero).reshape(len(before), -1, 4)
            assert fours.sum(axis=2).max() <= 2
    plan = Plan.from_json(result.plan.to_json())
    assert onnxprune.verify(proto, result.model, plan).ok
    assert onnxprune.apply(proto, plan) == result.model
    told = result.report
    assert sum(w.zeros for w in told.weights) >= 0.49 * sum(w.elements for w in told.weights)


def test_a_wrong_number_in_a_byte_is_noticed():
    net = Net()
    net.output(net.add("MatMul", net.input(["n", 32]), net.weight(32, 8, name="a")))
    proto = in_blocks(net.proto(), 4)
    result = onnxprune.sparsify(proto, 0.5)
    wrong = onnx.ModelProto()
    wrong.CopyFrom(result.model)
    tensor = next(t for t in wrong.graph.initializer if t.name == result.plan.zeros[0].tensor)
    value = onnx.numpy_helper.to_array(tensor).copy()
    value[0, 0, 0] ^= 0x10
    tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    assert not onnxprune.verify(proto, wrong, result.plan).ok
