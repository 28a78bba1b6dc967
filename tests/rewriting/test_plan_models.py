"""Plans of the example models: as text, edited, refused where they do not fit, and as masks of what is sliced."""

from __future__ import annotations

import functools
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import load
from onnxprune.rewriting import Plan
from tests.graphs.net import Net, array_of, run, shapes_of

MODELS = Path(__file__).parents[2] / "models"
NAMES = sorted(
    {p.stem for p in MODELS.glob("*.onnx")} - {"swin", "vit", "llama", "encoder_decoder"}
)  # the longest traces


def source(name: str) -> Path:
    return MODELS / f"{name}.onnx"


@functools.cache
def text_of(name: str, ratio: float = 0.5) -> str:
    return api.make_plan(source(name), ratio).to_json()


def edited(text: str, **removes: list[int]) -> Plan:
    """The plan with other `remove` lists, by group (dots as underscores); all other groups stay whole."""
    raw = json.loads(text)
    for group in raw["groups"]:
        group["remove"] = removes.pop(group["name"].replace(".", "_"), [])
    assert not removes
    return Plan.from_json(json.dumps(raw))


def changed(text: str, path: str, value: Any) -> str:
    """The plan with another value at `path`, like "groups.0.remove"; `...` deletes it."""
    raw = at = json.loads(text)
    *parents, last = [int(p) if p.isdigit() else p for p in path.split(".")]
    for parent in parents:
        at = at[parent]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return json.dumps(raw)


def mlp(*widths: int) -> onnx.ModelProto:
    """Dense layers of these widths, with weights w0, w1, ..."""
    net = Net()
    x = net.input([2, widths[0]])
    for i, (wide, narrow) in enumerate(itertools.pairwise(widths)):
        x = net.add("Relu", net.add("MatMul", x, net.weight(wide, narrow, name=f"w{i}")))
    net.output(x)
    return net.proto()


def flattened(*, nhwc: bool) -> onnx.ModelProto:
    """A 1 x 1 convolution whose map is flattened channel by channel, or pixel by pixel."""
    net = Net()
    x = net.add("Conv", net.input([2, 3, 2, 2]), net.weight(5, 3, 1, 1, name="conv"))
    if nhwc:
        x = net.add("Transpose", x, perm=[0, 2, 3, 1])
    x = net.add("MatMul", net.add("Flatten", x), net.weight(20, 4, name="fc"))
    net.output(x)
    return net.proto()


# --- text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "resnext", "vit", "bert", "merged"])
def test_round_trip(name):
    plan = api.make_plan(source(name), 0.3)
    text = plan.to_json()
    back = Plan.from_json(text)
    assert back.to_json() == text
    assert Plan.from_json(text.encode()) == back
    for made, read in zip(plan.steps, back.steps, strict=True):
        fields = ("group", "remove", "size", "units", "kind", "exact")
        assert [getattr(made, f) for f in fields] == [getattr(read, f) for f in fields]
        assert read.scores == pytest.approx(made.scores, rel=1e-5)
    assert dict(back.options) == json.loads(json.dumps(plan.options))
    assert back.source == {"name": f"{name}.onnx", "digest": load(source(name)).digest}


@pytest.mark.parametrize("name", ["digits", "resnext", "bert"])
def test_details_are_those_of_the_trace(name):
    groups = api.trace(source(name))
    raw = json.loads(text_of(name))
    small = shapes_of(api.apply(source(name), Plan.from_json(text_of(name))))
    assert [g["name"] for g in raw["groups"]] == [g.name for g in groups.groups]
    for group, step in zip(groups.groups, raw["groups"], strict=True):
        assert [(m["tensor"], m["axis"], m["size"]) for m in step["members"]] == [
            (m.tensor, m.axis, m.size) for m in group.members
        ]
        assert (step["units"], step["size"], step["kind"]) == (group.units, len(group.classes), group.kind)
        assert len(step["scores"]) == step["size"]
        for member in step["members"]:
            rows = member["removed"] if isinstance(member["removed"][0], list) else [member["removed"]]
            assert {member["size"] - len(row) for row in rows} == {small[member["tensor"]][member["axis"]]}
    assert [b["reason"] for b in raw["barriers"]] == [b.reason for b in groups.barriers]


def test_what_goes_has_the_lowest_scores():
    for step in Plan.from_json(text_of("digits")).steps:
        removed = [step.scores[i] for i in step.remove]
        assert max(removed) <= min(s for i, s in enumerate(step.scores) if i not in step.remove)


@pytest.mark.parametrize("name", ["digits", "resnext", "bert"])
def test_lists_of_numbers_are_on_one_line(name):
    text = text_of(name)
    assert not re.search(r"(?m)^\s*[-\d.]+,?$", text)
    assert re.search(r'(?m)^ +"remove": \[\d+(, \d+)*\],$', text)
    assert text.endswith("}\n")


def test_a_tensor_named_like_a_list_of_numbers_is_kept():
    proto, name = mlp(4, 6, 3), "[\n 1,\n 2\n]"
    proto.graph.initializer[0].name = proto.graph.node[0].input[1] = name
    (step,) = Plan.from_json(api.make_plan(proto).to_json()).steps
    assert step.group == name


@pytest.mark.parametrize(
    ("path", "value", "where", "what"),
    [
        ("format", "plan", "$.format", "'onnxprune-plan'"),
        ("format", ..., "$.format", "'onnxprune-plan'"),
        ("version", 2, "$.version", "version 2 is not known"),
        ("version", ..., "$.version", "version None"),
        ("groups", {}, "$.groups", "must be a list"),
        ("source", [], "$.source", "must be an object"),
        ("options", "x", "$.options", "must be an object"),
        ("options.sizes", {"batch": 0}, "$.options.sizes", "positive integers"),
        ("options.sizes", {"batch": True}, "$.options.sizes", "positive integers"),
        ("options.sizes", [4], "$.options.sizes", "positive integers"),
        ("barriers", {}, "$.barriers", "must be a list"),
        ("groups.1", 5, "$.groups[1]", "must be an object"),
        ("groups.0.name", ..., "$.groups[0].name", "must be a text"),
        ("groups.3.size", 0, "$.groups[3].size", "positive integer"),
        ("groups.3.size", "96", "$.groups[3].size", "positive integer"),
        ("groups.2.units", ..., "$.groups[2].units", "positive integer"),
        ("groups.0.layout", 1.5, "$.groups[0].layout", "must be an integer"),
        ("groups.1.remove", 3, "$.groups[1].remove", "must be a list of integers"),
        ("groups.1.remove", [1, 2.0], "$.groups[1].remove", "must be a list of integers"),
        ("groups.1.remove", [1, True], "$.groups[1].remove", "must be a list of integers"),
        ("groups.1.remove", [1, None], "$.groups[1].remove", "must be a list of integers"),
        ("groups.2.scores", ["high"], "$.groups[2].scores", "must be a list of numbers"),
        ("groups.2.members", {"tensor": "w"}, "$.groups[2].members", "must be objects"),
        ("groups.2.members", ["w"], "$.groups[2].members", "must be objects"),
    ],
)
def test_schema_errors_name_the_place(path, value, where, what):
    with pytest.raises(UsageError) as error:
        Plan.from_json(changed(text_of("digits"), path, value))
    assert what in error.value.message
    assert error.value.message.endswith(f"@ {where}")


@pytest.mark.parametrize("text", ["", "{", "[1, 2", b"\xff\xfe\xfa", "[" * 100_000, "9" * 5000])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(UsageError, match="the plan is not JSON"):
        Plan.from_json(text)


def test_a_plan_with_the_required_fields_only_is_enough():
    groups = [{"name": "fc.weight", "units": 96, "size": 96, "remove": [0, 1]}]
    text = json.dumps({"format": "onnxprune-plan", "version": 1, "groups": groups})
    assert shapes_of(api.apply(source("digits"), Plan.from_json(text)))["fc.weight"] == (94, 256)


# --- plans that do not fit --------------------------------------------------------------------------------


def refused(model: Any, plan: Plan, *parts: str) -> None:
    for act in (api.apply, lambda m, p: p.masks(m), lambda m, p: api.verify(m, m, p)):
        with pytest.raises(UsageError) as error:
            act(model, plan)
        assert error.value.message.startswith("the plan does not fit: ")
        assert [part for part in parts if part not in str(error.value)] == []


def test_missing_group():
    refused(source("resnet"), Plan.from_json(text_of("bert")), "the model has no group 'word_embeddings'")


def test_the_first_mismatch_is_named_where_a_layer_has_another_size():
    plan = Plan.from_json(api.make_plan(mlp(4, 6, 8, 3)).to_json())
    refused(mlp(4, 6, 10, 3), plan, "group 'w1' has size 10 in the model, 8 in the plan")
    refused(mlp(4, 5, 8, 3), plan, "group 'w0' has size 5 in the model, 6 in the plan")


def test_another_tensor_is_named():
    plan = Plan.from_json(changed(api.make_plan(mlp(4, 6, 3)).to_json(), "groups.0.members.1.tensor", "v1"))
    refused(mlp(4, 6, 3), plan, "group 'w0' has tensor 'w1' in the model, 'v1' in the plan")


def test_another_number_of_parts_is_named():
    text = changed(api.make_plan(mlp(4, 6, 3)).to_json(), "groups.0.members", [])
    plan = Plan.from_json(changed(text, "groups.0.size", 7))
    refused(mlp(4, 6, 3), plan, "group 'w0' has 6 parts in the model, 7 in the plan")


@pytest.mark.parametrize("written", [True, False], ids=["written", "never_written"])
def test_other_positions_behind_the_same_sizes(written):
    plan = api.make_plan(flattened(nhwc=False))
    if written:
        plan = Plan.from_json(plan.to_json())
    api.apply(flattened(nhwc=False), plan)
    refused(flattened(nhwc=True), plan, "group 'conv' lies on other positions of the weights than in the plan")


@pytest.mark.parametrize(
    ("remove", "what"), [([96], "removes 96 to 96"), ([-1, 4], "removes -1 to 4"), ([10**30], "removes")]
)
def test_parts_that_do_not_exist(remove, what):
    refused(source("digits"), edited(text_of("digits"), fc_weight=remove), "has parts 0 to 95", what)


def test_removing_all_is_refused():
    plan = edited(text_of("digits"), residual_conv_weight=list(range(64)))
    refused(source("digits"), plan, "'residual.conv.weight' would lose all of its 64 parts", "leave at least one")


@pytest.mark.parametrize(
    ("remove", "counts"),
    [
        ([0], "[1, 0, 0, 0]"),
        ([0, 8, 16, 24, 25], "[1, 1, 1, 2]"),
        ([0, 1, 8, 9, 16, 17], "[2, 2, 2, 0]"),
        ([*range(8)], "[8, 0, 0, 0]"),
    ],
)
def test_unbalanced_rows_are_refused(remove, counts):
    plan = edited(text_of("resnext"), block_conv_weight=remove)
    refused(source("resnext"), plan, "must lose the same share of each of its 4 rows", "parts 0 to 7", counts)


def test_balanced_rows_are_obeyed():
    original, plan = source("resnext"), edited(text_of("resnext"), block_conv_weight=[0, 9, 18, 27])
    small = api.apply(original, plan)
    assert shapes_of(small)["block.conv.weight"][0] == 28
    assert shapes_of(small)["block.conv_1.weight"][1] == 7
    assert api.verify(original, small, plan).ok


# --- edited by hand, and applied to other exports -----------------------------------------------------------


def test_edited_remove_gives_these_widths():
    plan = edited(text_of("digits"), conv_weight=[31, 3, 3], fc_weight=[0, 1, 2, 3, 95])
    small = api.apply(source("digits"), plan)
    shapes = shapes_of(small)
    assert shapes["conv.weight"] == (30, 1, 3, 3)
    assert shapes["conv_1.weight"] == (64, 30, 3, 3)
    assert shapes["fc.weight"] == (91, 256)
    assert shapes["fc_1.weight"] == (10, 91)
    assert shapes["residual.conv.weight"] == (64, 64, 3, 3)
    before = array_of(onnx.load(source("digits")), "conv.weight")
    np.testing.assert_array_equal(array_of(small, "conv.weight"), np.delete(before, [3, 31], 0))
    assert api.verify(source("digits"), small, plan).ok


def test_an_empty_plan_changes_nothing():
    small = api.apply(source("digits"), edited(text_of("digits")))
    assert small.SerializeToString() == onnx.load(source("digits")).SerializeToString()


def half_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A float16 copy."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in [*copy.graph.input, *copy.graph.output, *copy.graph.value_info]:
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return copy


def with_sizes(proto: onnx.ModelProto, **sizes: int) -> onnx.ModelProto:
    """A copy with numbers for symbolic dims."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    for value in [*copy.graph.input, *copy.graph.output]:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    return copy


@pytest.mark.parametrize("name", ["digits", "mlp", "unet"])
def test_a_plan_applies_to_a_float16_copy(name):
    original, plan = onnx.load(source(name)), Plan.from_json(text_of(name))
    half = half_of(original)
    small = api.apply(half, plan)
    assert shapes_of(small) == shapes_of(api.apply(original, plan))
    assert TensorProto.FLOAT not in {t.data_type for t in small.graph.initializer}
    verdict = api.verify(half, small, plan)
    assert verdict.ok, verdict.problem
    assert verdict.tolerance > 1e-3


@pytest.mark.parametrize("name", ["digits", "resnext", "bert"])
def test_a_plan_applies_to_another_static_batch(name):
    original, plan = onnx.load(source(name)), Plan.from_json(text_of(name))
    static = with_sizes(original, batch=5)
    small = api.apply(static, plan)
    weights = {n for n, shape in shapes_of(original).items() if len(shape) > 1}
    expected = shapes_of(api.apply(original, plan))
    assert {n: s for n, s in shapes_of(small).items() if n in weights} == {n: expected[n] for n in weights}
    verdict = api.verify(static, small, plan)
    assert verdict.ok, verdict.problem


def test_sizes_in_the_plan_are_used_again():
    groups, plan, _ = api.plan_for(load(source("bert")), Options(), sizes={"batch": 3, "sequence": 7})
    assert dict(groups.static.sizes) == {"batch": 3, "sequence": 7}
    back = Plan.from_json(plan.to_json())
    assert back.options["sizes"] == {"batch": 3, "sequence": 7}
    assert dict(back.trace(load(source("bert"))).static.sizes) == {"batch": 3, "sequence": 7}
    assert dict(Plan.from_json(text_of("bert")).trace(load(source("bert"))).static.sizes)["batch"] != 3


@pytest.mark.parametrize("options", [{"head_dims": True}, {"heads": False}], ids=["head dims", "no heads"])
def test_how_the_model_was_traced_is_used_again(options):
    plan = Plan.from_json(api.make_plan(source("bert"), **options).to_json())
    small = api.apply(source("bert"), plan)
    assert api.verify(source("bert"), small, plan).ok
    assert {step.kind for step in plan.steps} == ({"channel", "head dim"} if "head_dims" in options else {"channel"})


# --- masks ------------------------------------------------------------------------------------------------


def values_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Every stored weight of the main graph: initializers, sparse ones and constants."""
    model = load(proto, check=False)
    names = [*model.initializers, *(s.values.name for s in proto.graph.sparse_initializer)]
    found = {name: model.array(name) for name in names}
    for node in proto.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Constant" and node.attribute[0].name in ("value_floats", "value_ints"):
            found[node.output[0]] = np.array(helper.get_attribute_value(node.attribute[0]))
    return found


def named_in(proto: onnx.ModelProto, key: str) -> str:
    """The weight that a key of `masks` is about: a name, or the use `name@output:slot`."""
    *_, use = key.partition("@")
    if not use:
        return key
    output, slot = use.rsplit(":", 1)
    return next(n.input[int(slot)] for n in proto.graph.node if output in n.output)


@pytest.mark.parametrize("name", NAMES)
def test_masks_say_what_is_sliced(name):
    try:
        plan = api.make_plan(source(name), 0.5)
    except GoalMissed:
        pytest.skip("nothing can be pruned")
    small = api.apply(source(name), plan, verify=False)  # some do not run
    masks, before, after = plan.masks(source(name)), values_of(onnx.load(source(name))), values_of(small)
    assert masks
    for key, mask in masks.items():
        old, new = before[key.partition("@")[0]], after[named_in(small, key)]
        assert mask.dtype == bool and mask.shape == old.shape
        assert not mask.all()
        np.testing.assert_array_equal(old[mask].reshape(new.shape), new, err_msg=key)
    masked = {key.partition("@")[0] for key in masks}
    for key in before.keys() & after.keys() - masked:
        if before[key].dtype.kind == "f":
            np.testing.assert_array_equal(before[key], after[key], err_msg=key)


@pytest.mark.parametrize(
    "name", ["digits", "resnext", "bert", "merged", "constant_weights", "sparse", "external", "siamese"]
)
def test_zeros_are_exactly_what_is_masked(name):
    plan = Plan.from_json(text_of(name))
    zeroed = api.apply(source(name), plan, zero=True)
    masks, before, after = plan.masks(source(name)), values_of(onnx.load(source(name))), values_of(zeroed)
    assert before.keys() == after.keys()
    for key, old in before.items():
        mask = np.logical_or.reduce([m for k, m in masks.items() if k.partition("@")[0] == key] or [True])
        np.testing.assert_array_equal(after[key], np.where(mask, old, 0), err_msg=key)
        assert after[key].dtype == old.dtype


@pytest.mark.parametrize("name", ["digits", "resnext", "bert", "einsum", "constant_weights", "siamese"])
def test_zeros_give_what_the_smaller_model_gives(name):
    # Norms are left alone: over more positions they give other values.
    plan = api.make_plan(source(name), exact_only=True)
    small, zeroed = (run(api.apply(source(name), plan, zero=zero)) for zero in (False, True))
    for output, value in small.items():
        np.testing.assert_allclose(zeroed[output], value, rtol=1e-3, atol=1e-5 * np.abs(value).max())


def two_norms() -> onnx.ModelProto:
    """Two groups of 8; one tensor of ones is the scale of the batch norms of both."""
    net = Net()
    ones = net.const(np.ones(8, np.float32), "ones")
    x = net.input([4, 5])
    for i, wide in enumerate((5, 8)):
        x = net.add("MatMul", x, net.weight(wide, 8, name=f"w{i}"))
        variance = net.const(net.rng.random(8).astype(np.float32) + 0.5)
        x = net.add("BatchNormalization", x, ones, net.weight(8), net.weight(8), variance)
        x = net.add("Relu", x)
    net.output(net.add("MatMul", x, net.weight(8, 3, name="w2")))
    return net.proto()


def test_masks_of_a_shared_constant_that_one_use_cuts():
    """It goes with one group and stays with the other: masks and zeros must not touch the other."""
    plan = api.make_plan(two_norms(), ratios={"w1": 0.0})
    assert [len(s.remove) for s in plan.steps] == [4, 0]
    (key,) = (k for k in plan.masks(two_norms()) if k.startswith("ones"))
    assert key.startswith("ones@")  # by its bare name, it would be said of the other use as well


def test_zeros_of_a_shared_constant_that_one_use_cuts():
    plan = api.make_plan(two_norms(), ratios={"w1": 0.0})
    small, zeroed = (run(api.apply(two_norms(), plan, zero=zero)) for zero in (False, True))
    for output, value in small.items():
        np.testing.assert_allclose(zeroed[output], value, rtol=1e-4, atol=1e-6)


def test_masks_of_a_shared_constant_that_two_uses_cut_differently():
    plan = api.make_plan(two_norms())
    one, two = (set(s.remove) for s in plan.steps)
    assert one != two
    masks = {k: set(np.flatnonzero(~m)) for k, m in plan.masks(two_norms()).items() if k.startswith("ones@")}
    assert len(masks) == 2
    assert sorted(map(sorted, masks.values())) == sorted(map(sorted, [one, two]))
