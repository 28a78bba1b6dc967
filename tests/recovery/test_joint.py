"""Branches that are fitted together: as good as what is known to be best, and only where they are branches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.layers import Parameters
from onnxprune.model import load, to_proto
from onnxprune.recovery import RecoveryOptions, closed_form, joint
from onnxprune.rewriting import Removal
from onnxprune.runtime.random_inputs import random_feeds
from tests.recovery.test_closed_form import net, outputs

MODELS = Path(__file__).parents[2] / "models"


def pair(between: list[onnx.NodeProto], *, added: bool = False) -> tuple[onnx.ModelProto, np.ndarray]:
    """x W V, with other nodes from `h` to `z` in between, and samples; the product has a few strong directions."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.standard_normal((12, 16)), "g": rng.standard_normal((12, 16))}
    weights["v"] = rng.standard_normal((16, 12)) / 4
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), *between]
    nodes.append(helper.make_node("MatMul", ["z", "v"], ["s" if added else "y"]))
    nodes += [helper.make_node("Add", ["s", "x"], ["y"])] if added else []
    used = {name for node in nodes for name in node.input}
    strength = np.geomspace(1, 0.05, 12)
    data = (rng.standard_normal((512, 12)) * strength).astype(np.float32)
    return net(nodes, {k: v for k, v in weights.items() if k in used}, ["n", 12]), data


def errors(model: onnx.ModelProto, data: np.ndarray, *methods: str) -> list[float]:
    """Squared errors on the samples that calibrate, per method; half of the units go."""
    runs, found = [{"x": part} for part in np.split(data, 16)], []
    for method in methods:
        small = onnxprune.prune(model, 0.5, data=runs, recovery=method).model
        found.append(float(np.square(outputs(small, {"x": data}) - outputs(model, {"x": data})).sum()))
    return found


def test_two_linear_layers_come_close_to_the_best_of_their_rank() -> None:
    """The best is known: the singular values of all outputs beyond the width that is left (Eckart and Young)."""
    model, data = pair([helper.make_node("Identity", ["h"], ["z"])])
    alone, together = errors(model, data, "least-squares", "joint")
    best = float(np.square(np.linalg.svd(outputs(model, {"x": data}), compute_uv=False)[8:]).sum())
    assert best < together < 2 * best
    assert alone > 8 * best


@pytest.mark.parametrize("added", [False, True])
def test_a_gated_branch_loses_less(added: bool) -> None:
    gate = [helper.make_node("MatMul", ["x", "g"], ["a"]), helper.make_node("Sigmoid", ["a"], ["b"])]
    model, data = pair([*gate, helper.make_node("Mul", ["h", "b"], ["z"])], added=added)
    alone, together = errors(model, data, "least-squares", "joint")
    assert together < 0.7 * alone


@pytest.mark.parametrize(("harmful", "method"), [(True, "least-squares"), (False, "joint")])
def test_the_better_of_both_is_kept(monkeypatch: pytest.MonkeyPatch, harmful: bool, method: str) -> None:
    if harmful:
        monkeypatch.setattr(joint, "_fitted", lambda branch, runs, error: (0 * branch.start, 0.0))
    model, data = pair([helper.make_node("Identity", ["h"], ["z"])])
    runs = [{"x": part} for part in np.split(data, 16)]
    assert onnxprune.prune(model, 0.5, data=runs, recovery="joint").report.recovery.method == method


def ends(name: str) -> list[tuple[str, int]]:
    """The operator at the end of every branch of a model that lost units, and how many weights its layers have."""
    source = load(str(MODELS / f"{name}.onnx"))
    outcome = api.run(source, Options(ratio=0.5), sizes=dict(api.trace_model(source).static.sizes))
    removal, parameters = Removal(outcome.groups, outcome.plan.removed(outcome.groups)), Parameters(outcome.model)
    options = RecoveryOptions("joint")
    found = closed_form.ready(list(closed_form.targets(removal, parameters, options)), options, parameters)
    made = {o: node.op_type for node in parameters.proto.graph.node for o in node.output}
    flow = joint._Flow(removal, parameters)
    branches = [t for t in joint.with_branches(removal, parameters, found) if isinstance(t, joint.JointTarget)]
    return [(made[b.end], flow.layers(b.steps)) for b in branches]


def test_branches_end_where_the_stream_goes_on() -> None:
    """Attentions with four weights, or packed in two, feed-forward layers and residual blocks with two."""
    assert ends("bert")[:4] == [("Add", 4), ("Add", 2)] * 2
    assert ends("vit")[:3] == [("Add", 2)] * 3
    assert ends("resnet")[:2] == [("Relu", 2)] * 2


@pytest.mark.parametrize("name", ["vit", "bert", "resnet"])
def test_the_result_is_valid_and_no_worse(name: str) -> None:
    source = load(str(MODELS / f"{name}.onnx"))
    groups = api.trace_model(source)
    runs = [random_feeds(source, groups.static, np.random.default_rng(i)) for i in range(6)]
    given = {"data": runs, "sizes": dict(groups.static.sizes), "recovery": RecoveryOptions("joint")}
    outcome = api.run(source, Options(ratio=0.3), **given)
    removal, cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups)), outcome.recovery
    small = api.run(source, Options(ratio=0.3), **{**given, "recovery": RecoveryOptions("none")}).model
    assert outcome.verdict.ok and any(fit.kept and fit.after < fit.before for fit in cut.fits)
    assert (
        closed_form.agreement(removal, outcome.model, runs).error <= closed_form.agreement(removal, small, runs).error
    )
    onnx.checker.check_model(to_proto(outcome.model), full_check=True)
