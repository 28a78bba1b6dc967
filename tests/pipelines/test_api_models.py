"""The library on an example model: kinds in and out, the proof, what is refused, and what users can register."""

from __future__ import annotations

import logging
import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxprune
from onnxprune import Options, api, criteria
from onnxprune.criteria.magnitude import accumulate
from onnxprune.errors import GoalMissed, ModelError, OnnxPruneError, RunError, UsageError
from onnxprune.model import Model, load, to_graph
from onnxprune.rewriting import Plan
from onnxprune.tracing import NodeView, through
from onnxprune.tracing.rules import registry
from tests.graphs.net import Net, array_of, run, shapes_of, with_arrays

MODELS = Path(__file__).parents[2] / "models"
RESNET = MODELS / "resnet.onnx"


@pytest.fixture
def registries(monkeypatch):
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_RULES", {key: list(rules) for key, rules in registry._RULES.items()})
    monkeypatch.setattr(criteria, "KNOWN", dict(criteria.KNOWN))


def mlp() -> onnx.ModelProto:
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input(["batch", 4]), net.weight(4, 8, name="first")))
    net.output(net.add("MatMul", x, net.weight(8, 3, name="second")), ["batch", 3])
    return net.proto()


# --- kinds ------------------------------------------------------------------------------------------------

KINDS = {
    "path": onnx.ModelProto,
    "text": onnx.ModelProto,
    "bytes": onnx.ModelProto,
    "proto": onnx.ModelProto,
    "graph": gs.Graph,
    "model": Model,
}


def as_kind(kind: str):
    proto = onnx.load(RESNET)
    return {
        "path": RESNET,
        "text": str(RESNET),
        "bytes": proto.SerializeToString(),
        "proto": proto,
        "graph": to_graph(load(RESNET)),
        "model": load(RESNET),
    }[kind]


def frozen(source) -> object:
    """What must not change in a source."""
    if isinstance(source, gs.Graph):
        return gs.export_onnx(source).SerializeToString(deterministic=True)
    if isinstance(source, Model):
        return source.proto.SerializeToString(deterministic=True)
    if isinstance(source, onnx.ModelProto):
        return source.SerializeToString(deterministic=True)
    if isinstance(source, bytes):
        return bytes(source)
    return Path(source).read_bytes(), Path(source).stat().st_mtime_ns


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_that_was_given_comes_back_and_the_source_is_not_changed(kind):
    source = as_kind(kind)
    before = frozen(source)
    result = onnxprune.prune(source, 0.5)
    assert type(result.model) is KINDS[kind]
    assert frozen(source) == before
    plan = onnxprune.make_plan(source, 0.5)
    assert [s.remove for s in plan.steps] == [s.remove for s in result.plan.steps]
    for zero in (False, True):
        applied = onnxprune.apply(source, plan, zero=zero)
        assert type(applied) is KINDS[kind]
        assert applied is not source
    assert onnxprune.verify(source, result.model, plan).ok
    assert plan.masks(source).keys()
    assert onnxprune.trace(source).groups
    assert frozen(source) == before
    expected = onnxprune.prune(RESNET, 0.5, verify=False).model
    assert shapes_of(load(result.model)) == shapes_of(expected)
    np.testing.assert_allclose(run(load(result.model))["logits"], run(expected)["logits"], atol=1e-5)


def test_what_comes_back_shares_nothing_with_the_source():
    proto = onnx.load(RESNET)
    before = proto.SerializeToString()
    small = onnxprune.prune(proto).model
    del small.graph.node[:]
    for tensor in small.graph.initializer:
        tensor.raw_data = b""
    assert proto.SerializeToString() == before


def test_external_data_comes_back_in_memory(tmp_path):
    small = onnxprune.prune(MODELS / "external.onnx").model
    assert all(t.data_location != TensorProto.EXTERNAL for t in small.graph.initializer)
    (tmp_path / "small.onnx").write_bytes(small.SerializeToString())
    onnx.checker.check_model(tmp_path / "small.onnx", full_check=True)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("none.onnx", UsageError),
        (b"", ModelError),
        (b"no model", ModelError),
        (3, UsageError),
        (onnx.ModelProto(), ModelError),
    ],
)
def test_what_is_no_model_is_refused_by_every_function(source, error):
    plan = Plan(())
    functions = (onnxprune.prune, onnxprune.trace, onnxprune.make_plan, plan.masks, lambda s: onnxprune.apply(s, plan))
    for function in functions:
        with pytest.raises(error):
            function(source)


# --- results ----------------------------------------------------------------------------------------------


def test_report_and_plan_say_what_was_done():
    result = onnxprune.prune(RESNET, 0.5)
    report = result.report
    assert report.verdict.ok and report.verdict.error < report.verdict.tolerance == 1e-4
    assert report.rolled_back == ()
    assert report.plan is result.plan
    assert report.before.params == sum(np.prod(s) for s in shapes_of(onnx.load(RESNET)).values())
    assert report.after.params == sum(np.prod(s) for s in shapes_of(result.model).values())
    assert report.after.macs < 0.4 * report.before.macs
    assert {"tracing", "scoring", "rewriting", "proving", "counting"} <= set(report.seconds)
    assert all(len(s.remove) == s.units // 2 for s in result.plan.steps)


def test_the_same_calls_step_by_step():
    result = onnxprune.prune(RESNET, 0.3, "l1", allocation="global")
    plan = onnxprune.make_plan(RESNET, 0.3, criterion="l1", allocation="global")
    assert plan.to_json() == result.plan.to_json()
    assert onnxprune.apply(RESNET, plan).SerializeToString() == result.model.SerializeToString()


def test_tolerance_is_that_of_the_type():
    proto = mlp()
    for tensor in proto.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for value in [*proto.graph.input, *proto.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    assert onnxprune.prune(proto).report.verdict.tolerance == 1e-9


def test_ratio_zero_gives_the_model_back():
    result = onnxprune.prune(RESNET, 0.0)
    assert result.model.SerializeToString() == onnx.load(RESNET).SerializeToString()
    assert not any(s.remove for s in result.plan.steps)


@pytest.mark.parametrize("model", ["resnet", "resnext", "bert"])
def test_runs_are_equal_to_the_byte(model):
    one, two = (onnxprune.prune(MODELS / f"{model}.onnx", 0.4, verify=False) for _ in range(2))
    assert one.model.SerializeToString() == two.model.SerializeToString()
    assert one.plan.to_json() == two.plan.to_json()


def test_the_seed_decides_what_a_random_criterion_removes():
    plans = [onnxprune.make_plan(RESNET, criterion="random", seed=seed) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert [s.remove for s in plans[0].steps] != [s.remove for s in plans[2].steps]


def test_nothing_is_printed(capfd, caplog):
    """Not by the runtime either, whatever it has to complain about."""
    caplog.set_level(logging.DEBUG, "onnxprune")
    result = onnxprune.prune(RESNET, 0.5)
    onnxprune.apply(RESNET, result.plan, zero=True)
    onnxprune.verify(RESNET, result.model, result.plan)
    with pytest.raises(OnnxPruneError):
        onnxprune.prune(RESNET, keep=["*"])
    onnxprune.verify(RESNET, broken(result.model), result.plan)
    assert tuple(capfd.readouterr()) == ("", "")
    assert {record.name.partition(".")[0] for record in caplog.records} == {"onnxprune"}


# --- the proof --------------------------------------------------------------------------------------------


def broken(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which a bias is where a weight was."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.node[0].input[1] = copy.graph.node[0].input[2]
    return copy


def test_the_right_model_is_accepted():
    result = onnxprune.prune(RESNET, 0.5, verify=False)
    assert result.report.verdict is None
    verdict = onnxprune.verify(RESNET, result.model, Plan.from_json(result.plan.to_json()))
    assert verdict.ok and verdict.problem == "" and 0 <= verdict.error < 1e-5
    assert verdict.outputs.keys() == {"logits"}
    assert verdict.checks[-1] == "equal to the masked original"


@pytest.mark.parametrize("name", [t.name for t in onnx.load(RESNET).graph.initializer])
def test_a_changed_weight_is_rejected(name):
    result = onnxprune.prune(RESNET, 0.5, verify=False)
    value = array_of(result.model, name).copy()
    value.reshape(-1)[value.size // 2] += 1
    verdict = onnxprune.verify(RESNET, with_arrays(result.model, {name: value}), result.plan)
    if verdict.ok:  # a neuron whose Relu is shut on all inputs says nothing
        verdict = onnxprune.verify(RESNET, with_arrays(result.model, {name: value + 1}), result.plan)
    assert not verdict.ok and verdict.runnable
    assert verdict.error > verdict.tolerance
    assert "differs from the masked original" in verdict.problem or f"weight {name!r}" in verdict.problem


def test_what_another_plan_made_is_rejected():
    other = onnxprune.prune(RESNET, 0.5, "random", verify=False).model
    verdict = onnxprune.verify(RESNET, other, onnxprune.make_plan(RESNET, 0.5))
    assert not verdict.ok and "differs from the masked original" in verdict.problem


def test_an_invalid_model_is_rejected():
    result = onnxprune.prune(RESNET, 0.5, verify=False)
    verdict = onnxprune.verify(RESNET, broken(result.model), result.plan)
    assert not verdict.ok and math.isnan(verdict.error) and verdict.problem


@pytest.mark.parametrize("kind", ["input", "output"])
def test_a_changed_interface_is_rejected(kind):
    result = onnxprune.prune(RESNET, 0.5, verify=False)
    getattr(result.model.graph, kind)[0].type.tensor_type.shape.dim[0].dim_param = "n"
    verdict = onnxprune.verify(RESNET, result.model, result.plan)
    assert not verdict.ok and verdict.problem == f"the graph {kind}s changed"


def test_a_model_that_cannot_run_is_told_from_one_that_fails():
    result = api.run(load(MODELS / "custom_op.onnx"), Options())
    verdict = result.verdict
    assert not verdict.ok and not verdict.runnable
    assert verdict.problem.startswith("the original does not run either")
    assert any(s.remove for s in result.plan.steps) and not result.rolled_back


def pointwise(view: NodeView):
    """Wrong for Softmax: the other positions do change."""
    return through(view, [("n", "c")], [("n", "c")])


def softmaxed() -> onnx.ModelProto:
    """A group behind a Softmax over its own axis, and one that has nothing to do with it."""
    net = Net()
    x = net.add("MatMul", net.input([5, 4]), net.weight(4, 8, name="first"))
    x = net.add("MatMul", net.add("Softmax", x, axis=-1), net.weight(8, 6, name="second"))
    net.output(net.add("MatMul", net.add("Tanh", x), net.weight(6, 3, name="third")))
    return net.proto()


@pytest.mark.usefixtures("registries")
def test_a_group_whose_proof_fails_is_left_whole(caplog):
    registry.rule("Softmax")(pointwise)
    result = onnxprune.prune(softmaxed())
    (rolled,) = result.report.rolled_back
    assert rolled.group == "first" and "differs from the masked original" in rolled.problem
    assert result.report.verdict.ok
    assert shapes_of(result.model) == {"first": (4, 8), "second": (8, 3), "third": (3, 3)}
    assert {s.group: len(s.remove) for s in result.plan.steps} == {"first": 0, "second": 3}
    assert "group first is left whole" in caplog.text
    assert onnxprune.verify(softmaxed(), result.model, result.plan).ok


@pytest.mark.usefixtures("registries")
def test_goal_missed_where_every_proof_fails():
    registry.rule("Softmax")(pointwise)
    with pytest.raises(GoalMissed, match="nothing was pruned, every group failed its proof"):
        onnxprune.prune(softmaxed(), only=["first"])


# --- what is refused --------------------------------------------------------------------------------------


def test_goal_missed_where_no_group_is_removable():
    lone = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[2, 2] x) => (float[2, 2] y) '
        "<float[2, 2] w = {1, 2, 3, 4}> { y = MatMul(x, w) }"
    )
    with pytest.raises(GoalMissed, match="no removable group was found") as error:
        onnxprune.prune(lone)
    assert "onnxprune inspect" in error.value.hint and error.value.exit_code == 1


def test_goal_missed_where_the_options_leave_nothing():
    with pytest.raises(GoalMissed, match="the options leave no group"):
        onnxprune.prune(RESNET, keep=["*"])
    net = Net()
    x = net.add("MatMul", net.input([4, 5]), net.weight(5, 6, name="w"))
    net.output(net.add("MatMul", net.add("ReduceMean", x, axes=[-1], keepdims=1), net.weight(1, 2)))
    with pytest.raises(GoalMissed, match="the options leave no group"):
        onnxprune.prune(net.proto(), exact_only=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ratio": "50%"}, "ratio is '50%', but a ratio is the fraction to remove"),
        ({"ratios": {"*": [0.5]}}, "but a ratio is the fraction to remove"),
        ({"seed": "a"}, "seed is 'a', but must be a whole number"),
        ({"steps": 1.5}, "steps is 1.5, but must be a whole number"),
        ({"sizes": {"rows": 3}}, "sizes: no symbolic axis of the model is called 'rows'"),
        ({"sizes": {"batch": 0}}, "sizes: batch is 0, but must be a whole number of at least 1"),
        ({"sizes": {"batch": "4"}}, "sizes: batch is '4', but must be a whole number of at least 1"),
    ],
)
def test_values_of_another_type_are_named(given, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        onnxprune.prune(str(MODELS / "digits.onnx"), **given)


@pytest.mark.parametrize("plan", [None, {"steps": []}, "plan.json"])
def test_what_is_no_plan_is_refused(plan):
    digits = str(MODELS / "digits.onnx")
    for call in (lambda: onnxprune.apply(digits, plan), lambda: onnxprune.verify(digits, digits, plan)):
        with pytest.raises(UsageError, match="the plan is a ") as caught:
            call()
        assert "Plan.from_json" in caught.value.hint


@pytest.mark.parametrize("ratio", [1, 1.0, -0.1, 50, math.nan, math.inf])
def test_ratios_out_of_range(ratio):
    for options in ({"ratio": ratio}, {"max_ratio": ratio}, {"ratios": {"conv*": ratio}}):
        with pytest.raises(UsageError, match="a ratio is the fraction to remove, at least 0 and below 1") as error:
            onnxprune.prune(RESNET, **options)
        assert str(ratio) in error.value.message and error.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"round_to": 0}, "round_to is 0"),
        ({"allocation": "local"}, "no allocation is called 'local'"),
        ({"criterion": "l7"}, "no criterion is called 'l7'"),
        ({"keep": ["nothing*"]}, "keep: 'nothing*' matches no group"),
        ({"only": ["nothing*"]}, "only: 'nothing*' matches no group"),
        ({"ratios": {"nothing*": 0.5}}, "ratios: 'nothing*' matches no group"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UsageError) as error:
        onnxprune.prune(RESNET, **options)
    assert error.value.message.startswith(message)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused_by_their_group(value):
    proto = onnx.load(RESNET)
    groups = sorted(s.group for s in onnxprune.make_plan(proto).steps)
    weight = array_of(proto, groups[0]).copy()
    weight.reshape(-1)[0] = value
    with pytest.raises(UsageError) as error:
        onnxprune.prune(with_arrays(proto, {groups[0]: weight}))
    assert any(f"the scores of group {group!r} are not finite" in error.value.message for group in groups)
    assert "NaN or infinity" in error.value.message


def test_every_failure_is_one_of_the_family():
    for error, code in ((GoalMissed, 1), (UsageError, 2), (ModelError, 3), (RunError, 4)):
        assert issubclass(error, OnnxPruneError)
        caught = error("what", hint="do this")
        assert (caught.message, caught.hint, str(caught), caught.exit_code) == (
            "what",
            "do this",
            "what\ndo this",
            code,
        )


# --- what users register ----------------------------------------------------------------------------------


def gated() -> onnx.ModelProto:
    """An image branch whose channels are scaled by a gate, through an operator that nobody knows."""
    net = Net()
    image = net.input(["batch", 3, 6, 6])
    x = net.add("Conv", image, net.weight(8, 3, 3, 3, name="conv_in"), pads=[1, 1, 1, 1])
    pooled = net.add("Flatten", net.add("GlobalAveragePool", image))
    gate = net.add("Sigmoid", net.add("MatMul", pooled, net.weight(3, 8, name="gate")))
    x = net.add("Gate", x, gate, domain="com.example", name="gated")
    x = net.add("Conv", x, net.weight(4, 8, 1, 1, name="conv_out"))
    net.output(x, ["batch", 4, 6, 6], TensorProto.FLOAT)
    proto = net.proto()
    proto.graph.value_info.append(helper.make_tensor_value_info("gated", TensorProto.FLOAT, ["batch", 8, 6, 6]))
    return proto


def test_an_operator_without_a_rule_is_a_barrier():
    groups = onnxprune.trace(gated())
    assert not groups.groups
    assert {b.reason for b in groups.barriers} >= {"no rule for operator Gate of domain com.example"}
    with pytest.raises(GoalMissed):
        onnxprune.prune(gated(), verify=False)


@pytest.mark.usefixtures("registries")
def test_your_own_operator():
    @onnxprune.register_rule("Gate", domain="com.example")
    def gate(view: NodeView):
        """Each channel with its gate."""
        return through(view, [("n", "c", "h", "w"), ("n", "c")], [("n", "c", "h", "w")])

    result = onnxprune.prune(gated(), 0.5, verify=False)
    (group,) = result.report.groups.groups
    assert {(m.tensor, m.axis) for m in group.members} == {("conv_in", 0), ("gate", 1), ("conv_out", 1)}
    assert shapes_of(result.model) == {"conv_in": (4, 3, 3, 3), "gate": (3, 4), "conv_out": (4, 4, 1, 1)}
    (info,) = result.model.graph.value_info
    assert [d.dim_value or d.dim_param for d in info.type.tensor_type.shape.dim] == ["batch", 4, 6, 6]
    found = next(r for r in registry.all_rules() if r.op == "Gate")
    assert (found.domain, found.summary) == ("com.example", "Each channel with its gate")
    with pytest.raises(GoalMissed, match="not proven: the original does not run"):
        onnxprune.prune(gated(), 0.5)


def fourth_power(groups, rng):
    """Large weights count for more."""
    return accumulate(groups, lambda weight: np.square(np.square(weight)))


@pytest.mark.usefixtures("registries")
def test_your_own_criterion():
    onnxprune.register_criterion("l4", fourth_power)
    result = onnxprune.prune(mlp(), 0.25, criterion="l4")
    (step,) = result.plan.steps
    first, second = (array_of(mlp(), name).astype(np.float64) ** 4 for name in ("first", "second"))
    np.testing.assert_allclose(step.scores, first.sum(0) + second.sum(1), rtol=1e-5)
    assert step.remove == tuple(sorted(np.argsort(step.scores)[:2].tolist()))
    assert result.plan.options["criterion"] == "l4"
    assert "l4" in criteria.names()


def test_a_function_as_a_criterion():
    result = onnxprune.prune(mlp(), 0.25, criterion=fourth_power)
    assert result.plan.options["criterion"] == "fourth_power"
    assert Plan.from_json(result.plan.to_json()).options["criterion"] == "fourth_power"


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda g: np.zeros(g.classes.count + 1), "the criterion returned shape"),
        (lambda g: 0.0, "the criterion returned shape ()"),
        (lambda g: np.zeros((g.classes.count, 1)), "the criterion returned shape"),
        (lambda g: np.full(g.classes.count, math.nan), "the scores of group 'first' are not finite"),
    ],
)
def test_a_criterion_that_returns_something_else(returned, message):
    with pytest.raises(UsageError) as error:
        onnxprune.prune(mlp(), criterion=lambda groups, rng: returned(groups))
    assert message in error.value.message


def test_a_criterion_gets_a_generator_of_the_seed():
    drawn = []

    def criterion(groups, rng):
        drawn.append(rng.random())
        return np.arange(groups.classes.count)

    for seed in (3, 3, 4):
        onnxprune.make_plan(mlp(), criterion=criterion, seed=seed)
    assert drawn[0] == drawn[1] != drawn[2]


# --- the package ------------------------------------------------------------------------------------------


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, onnxprune; onnxprune.__version__;"
        "heavy = {m.partition('.')[0] for m in sys.modules} & {'onnx', 'numpy', 'onnxruntime', 'google', 'click'};"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_public_names_are_there():
    assert set(onnxprune.__all__) == {*onnxprune._HOMES, "register_rule"}
    for name in onnxprune.__all__:
        assert getattr(onnxprune, name) is not None
    assert onnxprune.prune is api.prune
    assert onnxprune.register_rule is registry.rule
    with pytest.raises(AttributeError, match="module 'onnxprune' has no attribute 'nonsense'"):
        onnxprune.nonsense  # noqa: B018


@pytest.mark.parametrize("blocked", [[], ["Gemm"], ["Relu", "MaxPool"]])
def test_what_a_converter_to_half_precision_writes(blocked: list[str], caplog: pytest.LogCaptureFixture) -> None:
    """Operators left in float32 are islands between Casts; nodes that come in no order are sorted, and that is said."""
    from onnxruntime.transformers import float16

    with caplog.at_level(logging.ERROR):
        proto = float16.convert_float_to_float16(
            onnx.load(MODELS / "digits.onnx"), keep_io_types=True, op_block_list=blocked
        )
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    small = onnxprune.prune(proto, 0.5)
    assert small.report.verdict is not None and small.report.verdict.ok and len(small.report.plan.steps) == 4
    assert any("not in the order" in said for said in small.report.groups.model.mended)
    casts = [sum(node.op_type == "Cast" for node in graph.node) for graph in (proto.graph, small.model.graph)]
    assert casts[0] == casts[1] >= 2
