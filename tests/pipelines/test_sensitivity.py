"""Sensitivity: the changed part alone gives what the whole model gives; work that is done is never done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

import onnxprune
from onnxprune.allocation import Options
from onnxprune.api import run
from onnxprune.calibration import read
from onnxprune.cli.sensitivity import METRICS
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.pipelines import Curve, Point, Sensitivity, sensitivity_report
from onnxprune.pipelines.sensitivity import SensitivityConfig, measure_curves
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.compare import agreement
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import trace
from tests.graphs.net import Net

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits.onnx")
DATA = str(MODELS / "digits_calibration.npz")
FEW = {"ratios": (0.25, 0.5), "samples": 32}


def sensitivity(data=DATA, **given):
    """Of the digits; the default criterion takes longer than all of the measurements."""
    return onnxprune.sensitivity(DIGITS, data, **{"criterion": "l2", **given})


def values(of: Sensitivity):
    return {(c.group, p.removed): dict(p.values) for c in of.curves for p in c.points}


@pytest.mark.parametrize("name", ["resnet", "inception", "vit", "llama", "control_flow", "lstm", "quantized"])
def test_the_changed_part_gives_what_the_whole_model_gives(name):
    model, settings = load(str(MODELS / f"{name}.onnx")), SensitivityConfig(ratios=(0.3, 0.6), samples=4)
    part, whole = (
        values(measure_curves(model, Options(), replace(settings, whole=w), "random")) for w in (False, True)
    )
    assert part.keys() == whole.keys()
    for key, found in part.items():
        assert found["error"] > 0, key
        assert found == pytest.approx(whole[key], rel=1e-4), key


def test_the_changed_part_is_all_that_runs(monkeypatch):
    """Behind the last group of digits only its two layers are left of the whole graph."""
    from onnxprune.pipelines import probe
    from onnxprune.runtime import activations, subgraph

    ran = []
    real = probe.Session
    for module in (probe, activations, subgraph):
        monkeypatch.setattr(module, "Session", lambda m, **k: ran.append(len(m.proto.graph.node)) or real(m, **k))
    model = load(DIGITS)
    last = trace(model).groups[-1].name
    measure_curves(model, Options(only=[last], criterion="l2"), SensitivityConfig(ratios=(0.5,), samples=8), DATA)
    assert max(ran) == len(model.proto.graph.node)
    assert len(ran) == 3 and ran[-1] <= 4  # all of the original once, what is in front of the group, and what is behind


def test_a_value_is_the_agreement_of_the_model_that_prune_makes():
    model = load(DIGITS)
    found = measure_curves(model, Options(criterion="l2"), SensitivityConfig(**FEW), DATA)
    runs = read(DATA, model, samples=32)
    for curve in found.curves:
        outcome = run(model, Options(ratio=0.5, criterion="l2", only=[curve.group]), verify=False)
        cut = Removal(outcome.groups, outcome.plan.removed(outcome.groups))
        wanted = agreement(cut, outcome.model, runs)
        point = curve.at(0.5)
        assert point.values["error"] == pytest.approx(wanted.error, rel=1e-4)
        assert point.values["kl"] == pytest.approx(wanted.kl, rel=1e-4)
        assert point.values["top1"] == wanted.top1


def test_groups_whose_inputs_and_outputs_shrink_are_measured_on_what_remains():
    model = load(str(MODELS / "autoencoder.onnx"))
    found = measure_curves(model, Options(allow_io_changes=True), SensitivityConfig(ratios=(0.5,), samples=4), "random")
    shut = measure_curves(model, Options(), SensitivityConfig(ratios=(0.5,), samples=4), "random")
    assert len(found.curves) > len(shut.curves)
    groups = trace(model, allow_io_changes=True)
    assert all(g.name in values_by_group(found) for g in groups.groups if g.units > 1)


def values_by_group(of: Sensitivity):
    return {c.group: c for c in of.curves}


def test_more_removed_is_more_damage_where_nothing_is_left_to_chance():
    """A group of equal, interchangeable units: what remains of the sum falls unit by unit."""
    found = sensitivity(ratios=(0.2, 0.5, 0.9), samples=64)
    for ratios, damage in found.curves_of().values():
        assert ratios[0] == damage[0] == 0
        assert ratios == sorted(ratios)
        assert damage[-1] > damage[1] > 0


def test_ratios_that_remove_the_same_are_measured_once():
    found = sensitivity(ratios=(0.5, 0.5001, 0.501), samples=16)
    assert all(len(c.points) == 1 for c in found.curves)
    assert found.measured == len(found.curves)


def test_a_metric_of_ones_own():
    found = sensitivity(ratios=(0.5,), samples=16, evaluate=parameters)
    assert found.metric == "value"
    assert found.whole["value"] == parameters(DIGITS)
    assert all(0 < found.damage(p) < found.whole["value"] for c in found.curves for p in c.points)


def parameters(path):
    return float(sum(np.prod(t.dims) for t in load(path).proto.graph.initializer))


def test_repair_before_the_measurement_lowers_the_damage():
    only = [trace(load(DIGITS)).groups[-1].name]
    bare, mended = (sensitivity(ratios=(0.5,), recovery=how, only=only) for how in ("none", "least-squares"))
    errors = [sum(p.values["error"] for c in s.curves for p in c.points) for s in (bare, mended)]
    assert errors[1] < 0.7 * errors[0]


@pytest.mark.parametrize("metric", ["error", "sqnr", "cosine", "kl", "top1"])
def test_damage_is_nought_for_no_change_and_grows(metric):
    found = sensitivity(metric=metric, ratios=(0.1, 0.9), samples=64)
    assert all(found.damage(c.points[1]) >= found.damage(c.points[0]) >= 0 for c in found.curves)
    assert max(found.damage(c.points[1]) for c in found.curves) > 0.05


def test_a_report_can_be_read_again():
    found = sensitivity(**FEW)
    again = Sensitivity.from_json(json.dumps(found.as_json(), allow_nan=False))
    assert again.curves == found.curves and again.curves_of("kl") == found.curves_of("kl")
    for text in ("{}", "[]", "no", '{"format": "onnxprune-sensitivity", "version": 1}'):
        with pytest.raises(UsageError, match="not a sensitivity report"):
            Sensitivity.from_json(text)


def test_damage_by_units_goes_through_the_measurements_and_never_falls():
    points = tuple(Point(n, n / 8, {"error": e}) for n, e in ((2, 1.0), (4, 0.5), (6, 3.0)))
    found = Sensitivity((Curve("g", "channel", True, 8, points),), "error", (0.25, 0.5, 0.75))
    (damage,) = found.damage_by_units().values()
    assert damage.tolist() == pytest.approx([0, 0.5, 1, 1, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ratios": ()}, "ratios are"),
        ({"ratios": (0.5, 1.0)}, "must be above 0 and below 1"),
        ({"metric": "beauty"}, "no metric is called 'beauty'"),
        ({"metric": "value"}, "no metric is called 'value'"),
        ({"data": None}, "no inputs to compare outputs on"),
        ({"ratios": (0.001,)}, "no group has enough units"),
    ],
)
def test_what_cannot_work_is_said(given, message):
    with pytest.raises(UsageError, match=message):
        sensitivity(**{"samples": 8, **given})


def test_class_metrics_are_for_class_scores():
    with pytest.raises(UsageError, match=r"metric 'kl' is for outputs \[samples, classes\]"):
        onnxprune.sensitivity(str(MODELS / "unet.onnx"), "random", metric="kl", samples=2, ratios=(0.5,))


# --- cache, workers --------------------------------------------------------------------------------------------


def test_finished_measurements_are_not_made_again(tmp_path):
    cache = tmp_path / "c.jsonl"
    first = sensitivity(cache=cache, ratios=(0.25,), samples=32)
    more = sensitivity(cache=cache, **FEW)
    again = sensitivity(cache=cache, **FEW)
    assert (first.measured, more.measured, again.measured) == (4, 4, 0)
    assert more.curves == again.curves


@pytest.mark.parametrize("result", [7, [], {}, {"error": None}, {"error": "small"}])
def test_a_result_that_is_none_is_measured_again(tmp_path, result):
    cache, given = tmp_path / "c.jsonl", {"ratios": (0.5,), "samples": 32}
    first = sensitivity(cache=cache, **given)
    kept = [json.loads(line) | {"result": result} for line in cache.read_text().splitlines()]
    cache.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
    again = sensitivity(cache=cache, **given)
    assert (again.measured, again.curves) == (first.measured, first.curves)


@pytest.mark.parametrize(
    "change", [{"samples": 16}, {"recovery": "bias"}, {"data": "random"}, {"evaluate": "wc -c < {model}"}]
)
def test_what_a_measurement_depends_on_is_in_its_key(tmp_path, change):
    cache, given = tmp_path / "c.jsonl", {"ratios": (0.5,), "samples": 32}
    sensitivity(cache=cache, **given)
    assert sensitivity(cache=cache, **given | change).measured >= 4


def test_workers_give_the_same_to_the_last_bit():
    with ThreadPoolExecutor(3) as threads:
        found = [sensitivity(executor=e, **FEW).curves for e in (1, 2, threads)]
    assert found[0] == found[1] == found[2]


def test_progress_says_how_far_it_is():
    said = []
    sensitivity(progress=said.append, **FEW)
    assert "measuring 8 cuts" in said
    assert said[-1] == "measured 8 of 8, 0:00 left"


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_loses_no_finished_measurement(tmp_path, how):
    cache, ratios = tmp_path / "c.jsonl", tuple(i / 10 for i in range(1, 10))
    code = f"from tests.pipelines.test_sensitivity import *; sensitivity(cache={str(cache)!r}, ratios={ratios})"
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": root}, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while lines(cache) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    assert process.wait(30) != 0
    done = lines(cache)
    rest = sensitivity(cache=cache, ratios=ratios)
    total = sum(len(c.points) for c in rest.curves)
    assert 5 <= done < total
    assert rest.measured == total - done
    assert rest.curves == sensitivity(ratios=ratios).curves


@pytest.mark.long
def test_a_dask_cluster_gives_the_same_though_a_worker_is_killed():
    distributed = pytest.importorskip("distributed")
    ratios = tuple(i / 20 for i in range(1, 20))
    local = sensitivity(ratios=ratios)
    killed = []

    def kill(said: str) -> None:
        if said.startswith("measured 5 "):
            killed.append(next(iter(cluster.workers.values())).process.pid)
            os.kill(killed[0], signal.SIGKILL)

    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        found = sensitivity(ratios=ratios, executor=client, progress=kill)
    assert killed
    assert found.curves == local.curves
    assert found.measured == local.measured


@pytest.mark.long
def test_commands_find_a_cluster_by_its_address():
    """What was measured by two local processes, and what was searched here, is what a cluster gives."""
    distributed = pytest.importorskip("distributed")
    found, given = [], ["--data", DATA, "--criterion", "l2", "--samples", "32", "--json"]
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
    with cluster:
        for where in (["--dask", cluster.scheduler_address], ["--jobs", "2"]):
            for command in (
                ["sensitivity", "--no-cache"],
                ["prune", "--no-cache", "--dry-run", "--min-sqnr", "5", "--recover", "none"],
            ):
                call = [sys.executable, "-m", "onnxprune", command[0], DIGITS, *command[1:], *given, *where]
                root = str(Path(__file__).parents[2])
                done = subprocess.run(call, env=os.environ | {"PYTHONPATH": root}, capture_output=True, check=True)
                found.append(json.loads(done.stdout))
    assert found[0]["curves"] == found[2]["curves"]
    tried = [[(t["share"], t["values"]) for t in found[i]["search"]["trials"]] for i in (1, 3)]
    assert tried[0] == tried[1] and len(tried[0]) > 2


def test_fronts_are_in_front_of_what_changes():
    """Every tensor that is kept is the original's, and with them the outputs can be computed from the smaller graph."""
    from onnxprune.model.run_order import Course
    from onnxprune.pipelines.probe import frontier

    groups = trace(load(str(MODELS / "resnet.onnx")))
    for group in groups.groups:
        front = frontier(groups, group)
        away = removed_classes(groups, {group.name: np.arange(len(group.classes) // 2)})
        small, cut = rewrite(groups, away), Removal(groups, away)
        assert front and cut.behind.isdisjoint(front)
        nodes = Course(small, {}).ancestors([o.name for o in small.proto.graph.output], front)
        assert {o for i in nodes for o in small.proto.graph.node[i].output}.isdisjoint(front)


@pytest.mark.parametrize("kind", ["sequence", "bfloat16"])
def test_a_front_that_cannot_be_held_is_none(kind):
    """Then the whole model runs."""
    net = Net()
    x = net.input(["N", 6])
    y = net.add("MatMul", net.add("Relu", net.add("MatMul", x, net.weight(6, 16))), net.weight(16, 6))
    if kind == "sequence":
        rows = net.add("SequenceInsert", net.add("SplitToSequence", x, axis=1), y)
        net.output(net.add("ConcatFromSequence", rows, axis=1), ["N", 12])
    else:
        both = [net.cast(tensor, TensorProto.BFLOAT16) for tensor in (x, y)]
        net.output(net.cast(net.add("Concat", *both, axis=1), TensorProto.FLOAT), ["N", 12])
    data = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    model, settings = net.model(), SensitivityConfig(ratios=(0.5,))
    part, whole = (
        measure_curves(model, Options(criterion="l2"), replace(settings, whole=w), data) for w in (False, True)
    )
    assert values(part) == values(whole) and len(part.curves) == 1


def test_the_command_line_offers_all_metrics_but_the_users_own():
    assert {*METRICS, "value"} == set(sensitivity_report.METRICS)
