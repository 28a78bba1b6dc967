"""Rewriting the example models: what does not shrink comes out as it went in, whatever kind of model it is."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.errors import GoalMissed
from onnxprune.model import external, load, save, tensors, to_proto
from onnxprune.model.graph import captured
from onnxprune.proof import valid
from onnxprune.rewriting.rewrite import rewrite
from tests.graphs.net import Net, prune, run, shapes_of

MODELS = Path(__file__).parents[2] / "models"
NAMES = sorted(p.stem for p in MODELS.glob("*.onnx"))
# Shapes that the graph computes: inference and tracing take longest here, and find what they find elsewhere.
LONG = {"gpt2", "bert", "swin", "vit", "llama", "encoder_decoder"}


@functools.cache
def pruned(name: str) -> api.Outcome:
    """A model at 0.5, without the proof."""
    return api.run(load(MODELS / f"{name}.onnx"), Options(ratio=0.5), verify=False)


@functools.cache
def pair(name: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """A model and what became of it, with all data in memory; read-only."""
    return to_proto(load(MODELS / f"{name}.onnx")), to_proto(pruned(name).model)


def raw(message) -> bytes:
    return message.SerializeToString(deterministic=True)


def copied(message):
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


# --- what did not change ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_everything_around_the_graph_stays(name):
    before, after = (copied(p) for p in pair(name))
    for proto in (before, after):
        for field in ("node", "initializer", "sparse_initializer", "value_info", "input"):
            proto.graph.ClearField(field)
        if name == "functions":  # written out
            proto.ClearField("functions")
    assert raw(before) == raw(after)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_outputs_are_the_same_bytes(name):
    before, after = pair(name)
    assert [raw(v) for v in before.graph.output] == [raw(v) for v in after.graph.output]
    inputs = [[raw(v) for v in p.graph.input if v.name not in shapes_of(p)] for p in (before, after)]
    assert inputs[0] == inputs[1]


@pytest.mark.parametrize("name", [n for n in NAMES if n != "functions"])
def test_nodes_keep_their_order_and_names(name):
    before, after = pair(name)
    old = {n.name: n for n in before.graph.node}
    assert len(old) == len(before.graph.node)
    kept = [n for n in after.graph.node if n.name in old]
    names = {n.name for n in kept}
    assert [n.name for n in kept] == [name for name in old if name in names]
    assert len({n.name for n in after.graph.node}) == len(after.graph.node)
    for node in kept:
        assert (node.op_type, node.domain) == (old[node.name].op_type, old[node.name].domain)
        assert node.doc_string == old[node.name].doc_string
        assert node.metadata_props == old[node.name].metadata_props


@pytest.mark.parametrize("name", ["annotated", "digits", "resnet", "merged", "siamese", "external", "densenet", "mlp"])
def test_nodes_that_hold_no_size_are_the_same_bytes(name):
    before, after = pair(name)
    duplicated_per_use = pruned(name).groups.tracing.duplicated_per_use
    for old, new in zip(before.graph.node, after.graph.node, strict=True):
        expected = copied(old)
        for slot, given in enumerate(old.input):
            if given in duplicated_per_use:
                expected.input[slot] = new.input[slot]
        assert raw(new) == raw(expected)


@pytest.mark.parametrize("name", NAMES)
def test_initializers_that_do_not_shrink_are_the_same_bytes(name):
    before, after = pair(name)
    masks = pruned(name).plan.masks(MODELS / f"{name}.onnx")
    cut = {key.partition("@")[0] for key in masks}
    old = {t.name: t for t in before.graph.initializer}
    kept = [t for t in after.graph.initializer if t.name in old]
    assert [t.name for t in kept] == sorted((t.name for t in kept), key=list(old).index)
    for tensor in kept:
        given = old[tensor.name]
        if tensor.name not in cut:
            assert raw(tensor) == raw(given), tensor.name
        else:
            assert (tensor.data_type, tensor.doc_string) == (given.data_type, given.doc_string)
            assert tensor.metadata_props == given.metadata_props
            assert [*tensor.dims] != [*given.dims]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_dead(name):
    _, after = pair(name)
    graph = after.graph
    needed = {o.name for o in graph.output}
    for node in reversed(graph.node):
        assert needed & set(node.output), f"dead node {node.name or node.output[0]}"
        needed.update([*node.input, *captured(node)])
    tensors = [t.name for t in graph.initializer] + [s.values.name for s in graph.sparse_initializer]
    assert [t for t in tensors if t not in needed] == []
    assert len(tensors) == len(set(tensors))
    made = {o for n in graph.node for o in n.output}
    assert [v.name for v in graph.value_info if v.name not in needed | made] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_result_is_valid(name):
    before, after = pair(name)
    assert valid(load(before, check=False), load(after, check=False)) == ""


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_never_larger(name):
    sizes = [p.ByteSize() for p in pair(name)]
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_a_sparse_model_does_not_grow(ratio):
    before = onnx.load(MODELS / "sparse.onnx")
    sizes = before.ByteSize(), api.apply(before, api.make_plan(before, ratio)).ByteSize()
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize("name", [n for n in NAMES if n not in LONG])
def test_the_result_can_be_pruned_again(name):
    once = pruned(name).model
    try:
        twice = api.run(once, Options(ratio=0.5), verify=False)
    except GoalMissed:
        return
    assert twice.after.params < twice.before.params
    assert valid(once, twice.model) == ""


# --- annotations ------------------------------------------------------------------------------------------


def test_value_info_has_the_new_sizes_and_is_otherwise_the_same():
    before, after = pair("annotated")
    assert len(before.graph.value_info) > 5
    bare = copied(after)
    del bare.graph.value_info[:]
    types = {v.name: v.type for v in onnx.shape_inference.infer_shapes(bare, strict_mode=True).graph.value_info}
    for old, new in zip(before.graph.value_info, after.graph.value_info, strict=True):
        assert raw(new.type) == raw(types[new.name]) != raw(old.type)
        expected = copied(new)
        expected.type.CopyFrom(old.type)
        assert raw(expected) == raw(old)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in LONG])
def test_value_info_agrees_with_inference(name):
    noted = onnx.shape_inference.infer_shapes(pair(name)[0], data_prop=True)
    # Exporters list initializers as well.
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in noted.graph.initializer]
    noted.graph.value_info.extend(listed)
    after = to_proto(api.run(load(noted, check=False), Options(), verify=False).model)
    bare = copied(after)
    del bare.graph.value_info[:]
    found = {v.name: v for v in onnx.shape_inference.infer_shapes(bare, data_prop=True).graph.value_info}
    sizes = shapes_of(after)
    for info in after.graph.value_info:
        dims = info.type.tensor_type.shape.dim
        if info.name in sizes:
            assert tuple(d.dim_value for d in dims) == sizes[info.name], info.name
        elif info.name in found:
            assert info.type.tensor_type.elem_type == found[info.name].type.tensor_type.elem_type
            for a, b in zip(dims, found[info.name].type.tensor_type.shape.dim, strict=True):
                if a.HasField("dim_value") and b.HasField("dim_value"):
                    assert a.dim_value == b.dim_value, info.name


def test_annotations_of_the_model_stay():
    before, after = pair("annotated")
    assert (after.domain, after.model_version, after.producer_version, after.ir_version) == (
        "org.example",
        7,
        "1.2",
        10,
    )
    assert (after.doc_string, after.graph.doc_string) == ("of the model", "of the graph")
    for kind in ("node", "initializer", "input", "output", "value_info"):
        one, two = getattr(before.graph, kind), getattr(after.graph, kind)
        assert [(e.name, e.doc_string, list(e.metadata_props)) for e in one] == [
            (e.name, e.doc_string, list(e.metadata_props)) for e in two
        ]
        assert all(e.doc_string and e.metadata_props for e in two)
    assert list(after.graph.quantization_annotation) == list(before.graph.quantization_annotation)
    assert len(after.graph.quantization_annotation) == 1


def test_unused_functions_and_unknown_parts_stay():
    proto = onnx.load(MODELS / "resnet.onnx")
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    proto.functions.append(helper.make_function("local", "Twice", ["a"], ["b"], body, proto.opset_import))
    proto.opset_import.append(helper.make_opsetid("local", 1))
    proto.training_info.add().algorithm.name = "training"
    after = to_proto(api.run(load(proto, check=False), Options(), verify=False).model)
    for field in ("functions", "opset_import", "training_info"):
        assert list(getattr(after, field)) == list(getattr(proto, field))


def test_functions_are_written_out():
    before, after = pair("functions")
    assert {n.op_type for n in after.graph.node} >= {"Conv", "Sigmoid"}
    assert not {n.domain for n in after.graph.node} & {f.domain for f in before.functions}
    assert len(after.graph.initializer) == len(before.graph.initializer)


def mlp(names: Sequence[str] = ("a", "b"), width: int = 6) -> onnx.ModelProto:
    net = Net()
    x = net.input([2, width])
    for name in names:
        x = net.add("Relu", net.add("MatMul", x, net.weight(width, width, name=name)))
    net.output(x)
    return net.proto()


def test_data_of_untouched_tensors_stays_in_its_field():
    proto = mlp(["a", "b", "c"])
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).reshape(-1).tolist()
        tensor.CopyFrom(helper.make_tensor(tensor.name, TensorProto.FLOAT, tensor.dims, values))
    after = to_proto(prune(proto, keep=["c"]).model)
    fields = {t.name: (len(t.float_data) > 0, t.HasField("raw_data")) for t in after.graph.initializer}
    assert fields["c"] == (True, False)


def test_zeros_leave_annotations_alone():
    proto = to_proto(load(MODELS / "annotated.onnx"))
    bias = copied(next(t for t in proto.graph.initializer if t.name == "conv.bias"))
    proto.graph.initializer.remove(bias)
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["conv.bias"], value=bias))
    proto.graph.node[0].doc_string = "of the constant"
    zeroed = api.apply(proto, api.make_plan(proto), zero=True)
    bare = [copied(p) for p in (proto, zeroed)]
    for model in bare:
        for tensor in model.graph.initializer:
            tensor.ClearField("raw_data")
        del model.graph.node[0].attribute[:]
    assert raw(bare[0]) == raw(bare[1])


# --- IR version 3 -----------------------------------------------------------------------------------------


def assert_ir_version_3(proto: onnx.ModelProto) -> None:
    assert proto.ir_version == 3
    onnx.checker.check_model(proto, full_check=True)
    sizes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in proto.graph.input}
    assert {t.name: [*t.dims] for t in proto.graph.initializer}.items() <= sizes.items()
    assert len(sizes) == len(proto.graph.input)


@pytest.mark.parametrize("name", ["alexnet", "constant_weights"])
def test_ir_version_3_lists_its_initializers_among_the_inputs(name):
    before, after = pair(name)
    assert_ir_version_3(after)
    order = [v.name for v in before.graph.input]
    left = [v.name for v in after.graph.input if v.name in order]
    assert left == [n for n in order if n in left]
    assert all(np.isfinite(v).all() for v in run(after).values())


def test_ir_version_3_with_copies_of_a_shared_constant():
    done = prune(norms(opset=8, ir_version=3), ratios={"w1": 0.25, "w2": 0.0})
    assert_ir_version_3(to_proto(done.model))
    assert not done.rolled_back and len(set(biases(done.model.proto).values())) == 3


# --- external data ----------------------------------------------------------------------------------------


def test_external_data_stays_external_and_is_not_read(monkeypatch):
    model = load(MODELS / "external.onnx")
    groups, plan, _ = api.plan_for(model, Options())
    reads, read = [], external.read_tensor

    def listed(tensor: TensorProto, folder: Path | None) -> np.ndarray:
        reads.extend([tensor.name] if tensors.is_external(tensor) else [])
        return read(tensor, folder)

    monkeypatch.setattr(external, "read_tensor", listed)
    small = api.execute(model, plan, verify=False).model
    outside = [t for t in small.proto.graph.initializer if t.data_location == TensorProto.EXTERNAL]
    assert reads == []
    assert len(outside) == sum(tensors.is_external(t) for t in model.proto.graph.initializer) > 2
    assert not any(t.raw_data or t.float_data for t in outside)
    cut = {m.tensor for g in groups.groups for m in g.members}
    assert set(small.values) == {t.name for t in outside if t.name in cut}
    for name, make in small.values.items():
        np.testing.assert_array_equal(make(), make())
        assert make().shape == tuple(small.initializers[name].dims)


@pytest.mark.parametrize("zero", [False, True])
def test_external_data_is_written_apart(tmp_path, zero):
    model = load(MODELS / "external.onnx")
    plan = api.make_plan(model)
    small = api.execute(model, plan, zero=zero, verify=False).model
    save(small, tmp_path / "small.onnx")
    assert (tmp_path / "small.onnx.data").stat().st_size > 1000
    assert load(tmp_path / "small.onnx").external
    onnx.checker.check_model(tmp_path / "small.onnx", full_check=True)
    inline = api.apply(to_proto(model), plan, zero=zero)
    for tensor in inline.graph.initializer:
        value = load(tmp_path / "small.onnx").array(tensor.name)
        np.testing.assert_array_equal(value, numpy_helper.to_array(tensor))


# --- weights in other places --------------------------------------------------------------------------------


def test_weights_in_constant_nodes():
    before, after = pair("constant_weights")
    old, new = ({n.output[0]: n for n in p.graph.node if n.op_type == "Constant"} for p in (before, after))
    assert old.keys() == new.keys()
    for name, mask in pruned("constant_weights").plan.masks(MODELS / "constant_weights.onnx").items():
        values = [numpy_helper.to_array(n[name].attribute[0].t) for n in (old, new)]
        np.testing.assert_array_equal(values[0][mask].reshape(values[1].shape), values[1])
        assert new[name].name == old[name].name


@pytest.mark.parametrize("attribute", ["value", "value_floats"])
def test_a_bias_in_a_constant_node(attribute):
    net = Net()
    bias = np.arange(6, dtype=np.float32)
    value = numpy_helper.from_array(bias, "inner") if attribute == "value" else bias.tolist()
    x = net.add("MatMul", net.input([2, 3]), net.weight(3, 6, name="w"))
    x = net.add("Add", x, net.add("Constant", name="bias", **{attribute: value}))
    net.output(net.add("MatMul", net.add("Relu", x), net.weight(6, 2)))
    done = prune(net.proto())
    (node,) = (n for n in done.model.proto.graph.node if n.op_type == "Constant")
    kept = [i for i in range(6) if i not in done.plan.steps[0].remove]
    assert numpy_helper.to_array(node.attribute[0].t).tolist() == bias[kept].tolist()


def test_constants_that_are_shared_and_cut_differently():
    proto = norms()
    ones = copied(next(t for t in proto.graph.initializer if t.name == "ones"))
    proto.graph.initializer.remove(ones)
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["ones"], name="maker", value=ones))
    proto.graph.node[0].doc_string = "of the maker"
    done = prune(proto, ratios={"w1": 0.25, "w2": 0.0})
    producers = {n.output[0]: n for n in done.model.proto.graph.node if n.op_type == "Constant"}
    values = [producers[name].attribute[0].t for name in biases(done.model.proto).values()]
    assert not done.rolled_back
    assert [numpy_helper.to_array(t).size for t in values] == [4, 6, 8]
    assert len({n.name for n in producers.values()}) == 3
    assert {n.doc_string for n in producers.values()} == {"of the maker"}


def test_sparse_weights():
    before, after = pair("sparse")
    assert load(after).array("sparse").shape == (20, 15)
    done = prune(before)
    assert done.verdict is not None and done.verdict.ok and not done.rolled_back


def test_a_sparse_weight_that_is_not_cut_stays_sparse():
    given = onnx.load(MODELS / "sparse.onnx").graph.sparse_initializer
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input(["batch", 20]), net.weight(20, 8, name="first")))
    x = net.add("MatMul", x, net.weight(8, 40, name="second"))
    net.output(net.add("MatMul", x, "sparse"), ["batch", 30])
    proto = net.proto()
    proto.graph.sparse_initializer.extend(given)
    done = prune(proto, keep=["sparse"])
    assert shapes_of(done.model)["first"] == (20, 4)
    assert [raw(s) for s in done.model.proto.graph.sparse_initializer] == [raw(s) for s in given]
    assert done.verdict is not None and done.verdict.ok


# --- constants that are shared ----------------------------------------------------------------------------


def norms(count: int = 3, **options: int) -> onnx.ModelProto:
    """Layers of 8 channels, each a group of its own; one tensor of ones is the bias of all."""
    net = Net(**options)
    ones = net.const(np.ones(8, np.float32), "ones")
    x = net.input([4, 8])
    for i in range(count):
        x = net.add("Relu", net.add("Add", net.add("MatMul", x, net.weight(8, 8, name=f"w{i}")), ones, name=f"sum{i}"))
    net.output(net.add("MatMul", x, net.weight(8, 3, name="last")))
    return net.proto()


def biases(proto: onnx.ModelProto) -> dict[str, str]:
    return {n.output[0]: n.input[1] for n in proto.graph.node if n.op_type == "Add"}


def test_a_constant_that_is_cut_differently_is_copied():
    done = prune(norms(), ratios={"w1": 0.25, "w2": 0.0})
    after, sizes = to_proto(done.model), shapes_of(done.model)
    assert [sizes[name] for name in biases(after).values()] == [(4,), (6,), (8,)]
    assert len(set(biases(after).values())) == 3
    assert "ones" in sizes
    assert done.verdict is not None and done.verdict.ok and not done.rolled_back


@pytest.mark.parametrize("cut", ["w0", "w1", "w2"])
def test_uses_that_stay_whole_share_one_tensor(cut):
    ratios = dict.fromkeys({"w0", "w1", "w2"} - {cut}, 0.0)
    done = prune(norms(), ratios=ratios)
    used = biases(done.model.proto)
    whole = {used[f"sum{name[1]}"] for name in ratios}
    assert len(whole) == 1 and used[f"sum{cut[1]}"] not in whole
    assert len([t for t in shapes_of(done.model) if "ones" in t]) == 2
    assert not done.rolled_back


def test_uses_that_are_cut_alike_share_one_tensor():
    groups = api.trace(norms())
    removed = np.zeros(groups.classes.count, bool)
    for group in groups.groups:
        removed[group.classes[:3]] = True
    after = rewrite(groups, removed).proto
    assert set(biases(after).values()) == {"ones"}
    assert shapes_of(after)["ones"] == (5,)


def test_new_names_do_not_collide():
    proto = norms()
    proto.graph.node[-1].output[0] = proto.graph.output[0].name = "ones_pruned"
    proto.graph.node[1].name = "ones_pruned_1"
    after = to_proto(prune(proto, ratios={"w1": 0.25, "w2": 0.0}).model)
    made = [*(t.name for t in after.graph.initializer), *(o for n in after.graph.node for o in n.output)]
    assert len(made) == len(set(made))
    assert len(set(biases(after).values())) == 3


@pytest.mark.parametrize("name", ["functions", "siamese", "gpt2", "densenet", "mixer"])
def test_weights_are_not_multiplied(name):
    before, after = ({n for n, s in shapes_of(p).items() if len(s) > 1} for p in pair(name))
    assert after <= before


def test_tied_weights_stay_one_tensor():
    for name, weight, axis in (("gpt2", "wte", 1), ("siamese", "first", 0)):
        before, after = pair(name)
        assert [sum(weight in n.input for n in p.graph.node) for p in (before, after)] == [2, 2]
        assert shapes_of(after)[weight][axis] == shapes_of(before)[weight][axis] // 2
