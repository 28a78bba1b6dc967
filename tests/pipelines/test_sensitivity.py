"""Sensitivity: the changed part alone gives what the whole model gives; work that is done is never done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune.allocation import Options
from onnxprune.api import run
from onnxprune.calibration import read
from onnxprune.cli.sensitivity import METRICS
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.pipelines import sensitivity_report
from onnxprune.pipelines.sensitivity import SensitivityConfig, measure_curves
from onnxprune.rewriting import Removal
from onnxprune.rewriting.compare import agreement
from onnxprune.tracing import trace

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits.onnx")
DATA = str(MODELS / "digits_calibration.npz")
FEW = {"ratios": (0.25, 0.5), "samples": 32}


def sensitivity(data=DATA, **given):
    """Of the digits; the default criterion takes longer than all of the measurements."""
    return onnxprune.sensitivity(DIGITS, data, **{"criterion": "l2", **given})


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
    assert said[-1] == "measured 8 of 8"


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


def test_the_command_line_offers_all_metrics_but_the_users_own():
    assert {*METRICS, "value"} == set(sensitivity_report.METRICS)
