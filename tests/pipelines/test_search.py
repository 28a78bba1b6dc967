"""The smallest model that is good enough, and the trace of what was tried."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.allocation import Options
from onnxprune.cost import counts
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import load
from onnxprune.pipelines import Evaluation
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.search import search
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.search_trials import SearchConfig
from onnxprune.recovery import RecoveryOptions as Recovery
from onnxprune.runtime import Session
from tests.cli.conftest import DIGITS, MODELS, run

__all__ = ["run"]  # the fixture
DATA = str(MODELS / "digits_calibration.npz")
L2 = Options(criterion="l2")
BARE = Recovery("none")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(folder))
    return folder


def macs_left(path) -> float:
    return counts.of(load(path)).macs / whole_macs()


@functools.cache
def whole_macs() -> int:
    return counts.of(load(DIGITS)).macs


def accuracy(path) -> float:
    with np.load(MODELS / "digits_test.npz") as test, Session(load(path)) as session:
        (name,) = session.inputs
        return float((session.run({name: test["image"]})[0].argmax(axis=1) == test["label"]).mean())


@pytest.mark.parametrize("drop", [0.3, 0.62])
def test_the_smallest_good_model_is_found_to_the_last_step(drop):
    """Where the value is the MACs themselves, the best model is known."""
    settings = SearchConfig((QualityConstraint("value", drop),), Evaluation(macs_left), BARE, trials=12, verify=False)
    found = search(load(DIGITS), L2, settings)
    assert found.met and found.whole == {"value": 1.0}
    assert 1 - drop <= found.values["value"] < 1 - drop + 0.02
    good = [t for t in found.trials if t.good]
    assert found.outcome.after.macs == min(t.macs for t in good)
    assert {t.good for t in found.trials} == {True, False}


def test_accuracy_stays_within_the_drop():
    settings = SearchConfig(
        (QualityConstraint("value", 0.02, relative=True),), Evaluation(accuracy), trials=2, samples=96
    )
    found = search(load(DIGITS), L2, settings, DATA)
    assert found.met
    assert found.values["value"] >= 0.98 * accuracy(DIGITS)
    assert found.outcome.recovery is not None and found.outcome.verdict.ok
    assert found.outcome.after.macs < 0.6 * found.outcome.before.macs


def test_the_smallest_that_can_be_reached_is_found_where_all_is_good_enough(run, tmp_path):
    """The budget that it was found with was the search's own: to miss it is nobody's failure."""
    more = (*GIVEN, "--recover", "none", "--max-trials", 9, "--no-verify")
    done = run("prune", DIGITS, "-o", tmp_path / "o.onnx", "--min-sqnr", "0.01", *more, "--json")
    assert done.code == 0, done.err
    assert done.json["budgets"] == [] and done.json["search"]["met"]
    both = run("prune", DIGITS, "--dry-run", "--min-sqnr", "0.01", "--params", "1k", *more)
    assert both.code == 1 and "params: 1.0 k was asked for" in both.err and "MACs" not in both.err


def test_what_judges_is_held_out(monkeypatch):
    from onnxprune.pipelines import search_trials

    seen = []
    real = search_trials.recover
    monkeypatch.setattr(
        search_trials, "recover", lambda c, m, runs, o, **k: seen.extend(runs) or real(c, m, runs, o, **k)
    )
    fitting, judging = RunInputs(DATA, 64).parted(load(DIGITS))
    assert sum(len(r["image"]) for r in judging) == 16 and sum(len(r["image"]) for r in fitting) == 48
    rows = {r.tobytes() for run in judging for r in run["image"]}
    search(
        load(DIGITS),
        L2,
        SearchConfig((QualityConstraint("sqnr", 1),), recovery=Recovery("bias"), trials=1, samples=64),
        DATA,
    )
    assert seen and rows.isdisjoint({r.tobytes() for run in seen for r in run["image"]})


def test_several_workers_cut_the_range_into_as_many_parts():
    settings = SearchConfig((QualityConstraint("value", 0.5),), Evaluation(macs_left), BARE, trials=6, verify=False)
    with ThreadPoolExecutor(3) as threads:
        found = search(load(DIGITS), L2, settings, workers=threads)
    assert [round(t.share, 2) for t in found.trials[:3]] == [0.25, 0.5, 0.75]
    assert len(found.trials) == 6 and 0.5 <= found.values["value"] <= 0.5 + 1 / 16


def test_the_front_holds_what_nothing_else_beats():
    settings = SearchConfig((QualityConstraint("sqnr", 8.0),), recovery=BARE, trials=6, verify=False)
    found = search(load(DIGITS), L2, settings, DATA)
    for trial in found.trials:
        beaten = any(o.macs <= trial.macs and o.values["sqnr"] > trial.values["sqnr"] for o in found.trials)
        assert beaten != (trial in found.front)
    shown = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert [t["pareto"] for t in shown["trials"]] == [t in found.front for t in found.trials]


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        (QualityConstraint("value", -1.0), L2, GoalMissed, "none of 2 models is good enough; at "),
        (QualityConstraint("sqnr", 20), L2, UsageError, "no inputs to compare"),
        (QualityConstraint("value", 0.1), Options(macs="50%"), UsageError, "a target cannot both decide"),
        (QualityConstraint("value", 0.1), Options(ratio=0.5), UsageError, "a target cannot both decide"),
    ],
)
def test_what_cannot_be_found_is_said(target, options, error, message):
    settings = SearchConfig((target,), Evaluation(macs_left), BARE, trials=2, verify=False)
    with pytest.raises(error, match=message):
        search(load(DIGITS), options, settings)


def test_a_drop_needs_a_measure_and_classes_need_scores():
    with pytest.raises(UsageError, match="is a drop of your own measure, and no measure is given"):
        search(load(DIGITS), L2, SearchConfig((QualityConstraint("value", 0.1),)), DATA)
    unet = load(str(MODELS / "unet.onnx"))
    with pytest.raises(UsageError, match="metric 'kl' does not apply"):
        search(unet, L2, SearchConfig((QualityConstraint("kl", 1),), recovery=BARE, samples=8), "random")
    classes = onnx.load(DIGITS)
    (logits,) = classes.graph.output
    classes.graph.node.append(onnx.helper.make_node("ArgMax", [logits.name], ["class"], axis=1))
    classes.graph.output.append(onnx.helper.make_tensor_value_info("class", onnx.TensorProto.INT64, [None, 1]))
    classes.graph.output.remove(logits)
    # Classes as numbers are judged by the floats before them.
    found = search(load(classes), L2, SearchConfig((QualityConstraint("error", 0.5),), recovery=BARE, samples=8), DATA)
    assert found.values["error"] <= 0.5
    with pytest.raises(UsageError, match="no metric is called 'beauty'"):
        QualityConstraint("beauty", 1)


KEPT = SearchConfig((QualityConstraint("value", 0.4),), Evaluation(macs_left), BARE, trials=5, verify=False)


def test_a_criterion_of_ones_own_is_known_by_its_scores(tmp_path):
    journal = tmp_path / "c.jsonl"

    def options(sign: float) -> Options:
        return Options(criterion=lambda groups, rng: sign * np.arange(float(groups.classes.count)))

    known = [search(load(DIGITS), options(s), KEPT, cache=journal).known for s in (1.0, 1.0, -1.0)]
    assert known == [0, 5, 0]


def test_the_command_keeps_trials_as_sensitivity_does(run, tmp_path, cache):
    given = ("prune", DIGITS, "--dry-run", "--no-verify", *GIVEN, "--recover", "none", "--min-sqnr", "5dB")
    assert run(*given, "--no-cache").code == 0 and list(cache.rglob("*")) == []
    assert run(*given).code == 0
    assert [p.parent.name for p in cache.rglob("*.jsonl")] == ["search"]
    assert "2 of 2 trials were known" in run(*given).out
    assert "were known" not in run(*given, "--no-cache").out
    assert run(*given, "--no-cache", "--cache", "x").code == 2


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_loses_no_finished_trial(run, tmp_path, how):
    journal, out = tmp_path / "c.jsonl", tmp_path / "o.onnx"
    slow = "sleep 0.2; wc -c < {model}"
    command = ["prune", DIGITS, "-o", str(out), "--eval", slow, "--max-drop", "30%", "--criterion", "l2"]
    command += ["--max-trials", "4", "--cache", str(journal), "--no-verify", "--json"]
    root = str(Path(__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-m", "onnxprune", *command],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    others = 2  # the scores, and the original's value
    while not journal.exists() or journal.read_bytes().count(b"\n") < others + 2:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    assert process.wait(30) != 0
    done = journal.read_bytes().count(b"\n")
    assert others + 2 <= done < others + 4 and not out.exists()
    rest = run(*command)
    assert rest.code == 0, rest.err
    assert rest.json["search"]["known"] == done - others and len(rest.json["search"]["trials"]) == 4


GIVEN = ("--criterion", "l2", "--data", DATA, "--samples", 48, "--recover", "bias", "--max-trials", 2)


def test_trials_are_shown_drawn_and_can_be_made_again(run, tmp_path):
    pytest.importorskip("matplotlib")
    out, plans, picture = tmp_path / "o.onnx", tmp_path / "plans", tmp_path / "p.svg"
    done = run("prune", DIGITS, "-o", out, *GIVEN, "--min-sqnr", "5dB", "--trials", plans, "--picture", picture)
    assert done.code == 0, done.err
    assert "asked    sqnr of at least 5" in done.out
    files = sorted(plans.iterdir())
    assert [p.name for p in files] == ["01.plan.json", "02.plan.json"]
    ids = {e.get("id") for e in ET.parse(picture).getroot().iter()}
    assert {"trial-1", "trial-2", "line-0"} <= ids and "Pareto front" in picture.read_text()
    again = run("apply", DIGITS, files[0], "-o", tmp_path / "again.onnx", "--data", DATA, "--samples", 48)
    assert again.code == 0, again.err
    assert "repair   " in again.out and "re-fitted" in again.out
    bare = run("apply", DIGITS, files[0], "-o", tmp_path / "bare.onnx")
    assert bare.code == 0
    one, two = (onnx.load(tmp_path / f"{name}.onnx") for name in ("again", "bare"))
    assert [t.dims for t in one.graph.initializer] == [t.dims for t in two.graph.initializer]
    assert one != two


def test_the_trace_is_in_the_report(run, tmp_path):
    done = run("prune", DIGITS, "--dry-run", *GIVEN, "--recover", "none", "--max-divergence", "kl=5", "--json")
    assert done.code == 0, done.err
    trace = done.json["search"]
    assert trace["met"] and trace["targets"][0]["metric"] == "kl" and len(trace["trials"]) == 2
    assert sum(t["pareto"] for t in trace["trials"]) >= 1


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--max-drop", "1%"), 2, "--eval"),
        (("--max-drop", "much", "--eval", "wc -c < {model}"), 2, "'much' is not an amount"),
        (("--min-sqnr", "5%"), 2, "sqnr: '5%' is not an amount"),
        (("--max-divergence", "kl=2%"), 2, "kl: '2%' is not an amount"),
        (("--max-divergence", "3dB"), 2, "error: '3dB' is not an amount"),
        (("--max-drop", "3dB", "--eval", "wc -c < {model}"), 2, "value: '3dB' is not an amount"),
        (("--max-divergence", "top9=1"), 2, "no metric is called 'top9'"),
        (("--eval", "wc -c < {model}"), 2, "--eval has no effect: it belongs to a search"),
        (("--trials", "x"), 2, "--max-trials has no effect: it belongs to a search"),
        (("--min-sqnr", "5", "--ratio", "0.5"), 2, "--ratio and a target cannot both decide"),
        (("--min-sqnr", "5", "--steps", "2"), 2, "in one step"),
        (("--min-sqnr", "5", "--trials", DIGITS), 2, "is not a folder"),
        (("--min-sqnr", "5", "--trials", str(MODELS)), 2, "is not empty"),
        (("--min-sqnr", "500", "--recover", "none"), 1, "none of 2 models is good enough"),
    ],
)
def test_what_cannot_work_is_said(run, tmp_path, more, code, message):
    done = run("prune", DIGITS, "-o", tmp_path / "o.onnx", *GIVEN, *more)
    assert done.code == code, done.err
    assert message in done.err
    assert not Path(tmp_path / "o.onnx").exists()


def test_zeros_are_not_repaired(run, tmp_path):
    assert run("plan", DIGITS, "-o", tmp_path / "plan.json").code == 0
    done = run("apply", DIGITS, tmp_path / "plan.json", "-o", tmp_path / "o.onnx", "--zero", "--data", DATA)
    assert done.code == 2 and "--zero leaves nothing to re-fit" in done.err
