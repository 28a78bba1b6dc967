"""Budgets on time, on a machine that is simulated: what is aimed at, what is corrected, and what is said."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from onnxprune import api
from onnxprune.bench import Place
from onnxprune.interleave import Ratio
from onnxprune.latency.tables import Table, plan
from onnxprune.latency.timer import Timed, Timer
from onnxprune.model import load
from onnxprune.options import Options
from onnxprune.report import text
from onnxprune.runtime import Setting
from tests.test_cli import run  # noqa: F401 - a fixture

MODELS = Path(__file__).parents[1] / "models"
DIGITS = str(MODELS / "digits.onnx")
ONE = Place(Setting(threads=1))


def channels(model):
    """Output channels of the convolutions and linear layers of `digits`."""
    return [t.dims[0] for t in model.proto.graph.initializer if len(t.dims) > 1]


class Machine:
    """A machine whose kernels work in blocks: what tables say of it, and what it does."""

    block, slow, off, overhead = 8, 1.0, 1.0, 0.0

    def tables(self, operators, *_):
        return [Table(o.letters, {n: self.kernel(n) for n in plan(o)}) for o in operators]

    def kernel(self, lengths):
        filled = [-(-n // self.block) * self.block for n in lengths]
        return float(np.prod(filled)) * (self.slow if any(n % 4 for n in lengths) else 1.0)

    def seconds(self, model):
        """A run; `off` and `overhead` are what tables do not know."""
        return (self.overhead + sum(self.nodes(model).values()) ** self.off) * 1e-9

    def nodes(self, model):
        """What the convolutions and linear layers take, by their outputs."""
        nodes = [n for n in model.proto.graph.node if n.op_type in ("Conv", "Gemm")]
        pairs = itertools.pairwise([1, *channels(model)])
        return {n.output[0]: self.kernel(pair) for n, pair in zip(nodes, pairs, strict=True)}


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr("onnxprune.latency.prediction.tables", made.tables)
    monkeypatch.setattr("onnxprune.latency.timer.profile", lambda model, feeds, setting: made.nodes(model))
    monkeypatch.setattr(Timer, "before", property(lambda self: made.seconds(self.model)))

    def compare(self, small):
        ratio = made.seconds(small) / made.seconds(self.model)
        return Ratio(ratio, ratio * 0.99, ratio * 1.01)

    monkeypatch.setattr(Timer, "_compare", compare)
    return made


@pytest.mark.parametrize("share", [0.75, 0.5, 0.3])
@pytest.mark.parametrize(("off", "overhead"), [(1.0, 0.0), (1.1, 0.0), (0.9, 0.0), (1.0, 300.0)])
def test_a_budget_is_reached_though_tables_are_off(machine, share, off, overhead):
    machine.off, machine.overhead = off, overhead
    machine.block = 1
    outcome = api.run(load(DIGITS), Options(latency=f"{100 * share:g}%", round_to=1), verify=False, place=ONE)
    (goal,) = outcome.goals
    assert goal.met and goal.most == pytest.approx(share * machine.seconds(load(DIGITS)))
    assert goal.reached == pytest.approx(machine.seconds(outcome.model))
    assert goal.reached >= 0.93 * goal.most


def test_seconds_are_a_budget_too(machine):
    most = 0.5 * machine.seconds(load(DIGITS))
    outcome = api.run(load(DIGITS), Options(latency=most), verify=False, place=ONE)
    assert outcome.goals[0].most == most and machine.seconds(outcome.model) <= most


def test_a_budget_rounds_to_the_blocks_of_the_machine(machine):
    machine.slow = 1.5
    outcome = api.run(load(DIGITS), Options(latency="50%"), verify=False, place=ONE)
    changed = [n for n, was in zip(channels(outcome.model), channels(load(DIGITS)), strict=True) if n != was]
    assert changed and not any(n % 4 for n in changed)


def test_rounding_to_blocks_is_never_slower(machine):
    machine.slow = 1.5
    whole = load(DIGITS)
    plain, rounded = [], []
    for ratio in np.arange(1, 10) / 10:
        for how, found in ((1, plain), ("auto", rounded)):
            small = api.run(whole, Options(ratio=float(ratio), round_to=how), verify=False, place=ONE).model
            found.append(machine.seconds(small) / machine.seconds(whole))
    assert max(plain) > 1.05 and max(rounded) <= 1
    assert rounded == sorted(rounded, reverse=True)


def test_what_cannot_be_reached_is_missed_and_said(machine):
    machine.overhead = 1e9
    outcome = api.run(load(DIGITS), Options(latency="20%"), verify=False, place=ONE)
    (goal,) = outcome.goals
    assert not goal.met and goal.reached > 0.9 * goal.before
    assert "the fastest that was found" in text.missed(goal)


def test_what_is_timed_is_reported(machine):
    outcome = api.run(load(DIGITS), Options(ratio=0.5, round_to="auto"), verify=False, place=ONE)
    timed = outcome.timed
    assert timed is not None and not timed.is_slower and timed.before == machine.seconds(load(DIGITS))
    assert timed.after == pytest.approx(machine.seconds(outcome.model)) and timed.predicted < 0.7
    assert any(line.startswith("time ") and "expected" in line for line in text.outcome(outcome))
    assert api.run(load(DIGITS), Options(ratio=0.5), verify=False).timed is None


def test_slower_is_said():
    timed = Timed(0.01, Ratio(1.2, 1.15, 1.25), 1.1, ONE)
    assert timed.is_slower and text.timed(timed) == (
        "10.00 ms -> 12.00 ms (SLOWER, 1.200 (1.150 to 1.250), 1.100 expected; CPU, 1 thread)"
    )
    same = Timed(0.01, Ratio(1.01, 0.98, 1.04), None, ONE)
    assert not same.is_slower and "(no difference measured (within 4.0 %); CPU" in text.timed(same)


# --- the command ------------------------------------------------------------------------------------------


def test_command(run, machine, tmp_path):  # noqa: F811
    small = tmp_path / "small.onnx"
    ran = run("prune", DIGITS, "-o", small, "--latency", "50%", "--threads", 1, "--json")
    assert ran.code == 0 and ran.json["budgets"][0]["met"] and ran.json["time"]["threads"] == 1
    assert ran.json["time"]["after"] <= 0.5 * ran.json["time"]["before"]
    ran = run("prune", DIGITS, "--dry-run", "--ratio", 0.5, "--round-to", "auto")
    assert ran.code == 0 and "\ntime " in ran.out


def test_command_says_what_it_cannot_reach(run, machine, tmp_path):  # noqa: F811
    machine.overhead = 1e9
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--latency", "1us")
    assert ran.code == 1 and "latency: 1.000 us was asked for" in ran.err
    assert "the fastest that was found" in ran.err and "inspect --time" in ran.err


def test_command_warns_of_what_is_slower(run, machine, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(Timer, "_compare", lambda self, small: Ratio(1.1, 1.05, 1.15))
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--round-to", "auto")
    assert ran.code == 0 and "slower than the original" in ran.err and "SLOWER" in ran.out


def test_command_times_any_result(run, machine, tmp_path):  # noqa: F811
    ran = run("prune", DIGITS, "--dry-run", "--ratio", 0.5, "--time", "--json")
    assert ran.code == 0 and ran.json["time"]["ratio"]["value"] < 1 and ran.json["time"]["predicted"] is None
    assert run("prune", DIGITS, "--dry-run", "--ratio", 0.5, "--json").json["time"] is None


def test_what_a_search_found_can_be_timed(run, machine, tmp_path):  # noqa: F811
    data = ["--data", MODELS / "digits_calibration.npz", "--min-sqnr", "1dB", "--max-trials", 1]
    data += ["--no-cache", "--samples", 8, "--criterion", "l2", "--recover", "none"]
    ran = run("prune", DIGITS, "--dry-run", *data, "--time", "--json")
    assert ran.code == 0 and ran.json["time"]["after"] < ran.json["time"]["before"]
    assert run("prune", DIGITS, "--dry-run", *data, "--json").json["time"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--latency", "50%", "--data", "random", "--min-sqnr", "20dB"], "are not measured while a target"),
        (["--round-to", "0"], "not a positive number, nor auto"),
        (["--latency", "fast"], "latency: 'fast' is not an amount"),
        (["--latency", "12MB"], "latency: '12MB' is not an amount"),
        (["--latency", "50%", "--provider", "TPU"], "no provider 'TPU' here"),
    ],
)
def test_bad_usage(run, arguments, said):  # noqa: F811
    ran = run("prune", DIGITS, "--dry-run", *arguments)
    assert ran.code == 2 and said in ran.err


def test_inspect_says_what_to_round_to(run, machine):  # noqa: F811
    machine.slow, machine.block = 1.5, 1
    ran = run("inspect", DIGITS, "--time", "--threads", 1, "--json")
    assert {g["time"]["multiple"] for g in ran.json["groups"]} <= {4, 8}
    for group in ran.json["groups"]:
        assert 0 < group["time"]["saved"] < group["time"]["seconds"] < machine.seconds(load(DIGITS))
    shown = run("inspect", DIGITS, "--time").out
    assert "half saves  round to" in shown
    assert "round to" not in run("inspect", DIGITS).out


def test_providers_that_do_not_say_what_kernels_take(machine, monkeypatch):
    """Time is in proportion to MACs then, corrected by measurements of the whole."""
    other = Setting("Azure", 1)  # runs nothing of its own
    monkeypatch.setattr("onnxprune.latency.stopwatch.measure", None)
    machine.block, machine.off = 1, 0.9
    outcome = api.run(load(DIGITS), Options(latency="50%", criterion="lamp"), verify=False, place=Place(other))
    assert outcome.goals[0].met and outcome.goals[0].reached > 0.93 * outcome.goals[0].most


def test_on_this_machine(tmp_path, monkeypatch):
    """Everything for real, once: a small network, half its time; busy machines may need more than half."""
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("onnxprune.latency.timer.SECONDS", 0.1)
    monkeypatch.setattr("onnxprune.latency.stopwatch.SECONDS", 0.1)
    outcome = api.run(load(DIGITS), Options(latency="70%"), place=ONE)
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.timed is not None
    assert outcome.timed.ratio.value < 0.95
    assert len(list((tmp_path / "latency").iterdir())) >= 3
