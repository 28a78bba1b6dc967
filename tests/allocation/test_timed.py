"""Budgets on time, on a machine that is simulated: what is aimed at, what is corrected, and what is said."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.cost.latency.tables import Table, plan
from onnxprune.cost.latency.timer import Timed, Timer
from onnxprune.model import load
from onnxprune.report import data, text
from onnxprune.runtime import Setting
from onnxprune.runtime.bench import Place
from onnxprune.runtime.paired_timing import TimeRatio
from tests.cli.conftest import run  # noqa: F401 - a fixture

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits.onnx")
ONE = Place(Setting(threads=1))


def channels(model):
    """Output channels of the convolutions and linear layers of `digits`."""
    return [t.dims[0] for t in model.proto.graph.initializer if len(t.dims) > 1]


class Machine:
    """A machine whose kernels work in blocks: what tables say of it, and what it does."""

    block, slow, off, overhead = 8, 1.0, 1.0, 0.0

    def __init__(self):
        # Number of a layer -> its true share of the whole time, given the share that its table tells.
        self.truth = {}

    def tables(self, operators, *_):
        return [Table(o.letters, {n: self.kernel(n) for n in plan(o)}) for o in operators]

    def kernel(self, lengths):
        filled = [-(-n // self.block) * self.block for n in lengths]
        return float(np.prod(filled)) * (self.slow if any(n % 4 for n in lengths) else 1.0)

    def seconds(self, model):
        """A run; `off` and `overhead` are what tables do not know."""
        return (self.overhead + sum(self.nodes(model).values()) ** self.off) * 1e-9

    def profile(self, model):
        return {name: units * 1e-9 for name, units in self.nodes(model).items()}

    def nodes(self, model):
        """What the convolutions and linear layers take, by their outputs."""
        nodes = [n for n in model.proto.graph.node if n.op_type in ("Conv", "Gemm")]
        pairs, full = (itertools.pairwise([1, *channels(m)]) for m in (model, load(DIGITS)))
        return {n.output[0]: self.layer(*about) for n, *about in zip(nodes, itertools.count(), pairs, full)}

    def layer(self, number, lengths, full):
        whole = self.kernel(full)
        return whole * self.truth.get(number, lambda share: share)(self.kernel(lengths) / whole)


@pytest.fixture
def machine(monkeypatch):
    made = Machine()
    monkeypatch.setattr("onnxprune.cost.latency.prediction.tables", made.tables)
    monkeypatch.setattr("onnxprune.cost.latency.timer.profile", lambda model, feeds, setting: made.profile(model))
    monkeypatch.setattr(Timer, "before", property(lambda self: made.seconds(self.model)))

    def compare(self, small):
        ratio = made.seconds(small) / made.seconds(self.model)
        return TimeRatio(ratio, ratio * 0.99, ratio * 1.01)

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


SLOWER = {0.7: lambda share: 0.7 + 0.3 * share, 5: lambda share: min(1.0, 5 * share)}


@pytest.mark.parametrize("layer", range(4))
@pytest.mark.parametrize("true", [*SLOWER.values(), lambda share: share / 5 if share < 1 else 1.0])
def test_a_table_that_is_off_is_corrected_by_what_its_operator_takes(machine, layer, true):
    """One operator takes five times what its table says of narrow ones, a fifth of it, or hardly less than whole."""
    machine.block, machine.truth = 1, {layer: true}
    whole = load(DIGITS)
    nodes = machine.nodes(whole)
    target = max(0.5, 1 - 0.5 * (1 - list(nodes.values())[layer] / sum(nodes.values())))
    outcome = api.run(whole, Options(latency=f"{100 * target:.0f}%", round_to=1), verify=False, place=ONE)
    (goal,) = outcome.goals
    assert 0.95 * goal.most <= goal.reached <= goal.most and not goal.why
    assert goal.reached == pytest.approx(machine.seconds(outcome.model))
    assert outcome.timed.predicted * goal.before == pytest.approx(goal.reached, rel=0.05)
    for small, full in zip(channels(outcome.model), channels(whole), strict=True):
        assert small >= full / 4


def test_overhead_and_what_no_group_changes_are_no_reason_to_empty_a_model(machine):
    """Nine tenths of a run are overhead: half of the time is out of reach, and what goes saves what can be saved."""
    machine.block = 1
    machine.overhead = 9 * sum(machine.nodes(load(DIGITS)).values())
    outcome = api.run(load(DIGITS), Options(latency="50%", round_to=1), verify=False, place=ONE)
    (goal,) = outcome.goals
    assert not goal.met and "as much goes as the options allow" in goal.why
    assert outcome.after.params > 0.05 * outcome.before.params
    assert goal.reached < 0.93 * goal.before


def test_more_than_three_quarters_of_a_group_go_only_where_it_must(machine):
    machine.block = 1
    lost = {}
    for share in (0.5, 0.05):
        outcome = api.run(load(DIGITS), Options(latency=f"{100 * share:g}%", round_to=1), verify=False, place=ONE)
        assert outcome.goals[0].met
        pairs = zip(channels(outcome.model), channels(load(DIGITS)), strict=True)
        lost[share] = max(1 - small / full for small, full in pairs)
    assert lost[0.5] <= 0.75 < lost[0.05]
    capped = api.run(load(DIGITS), Options(latency="5%", round_to=1, max_ratio=0.3), verify=False, place=ONE)
    assert not capped.goals[0].met and "as the options allow" in capped.goals[0].why


def test_what_is_missed_by_steps_is_said(machine):
    machine.block = 1
    outcome = api.run(load(DIGITS), Options(latency="60%", round_to=16), verify=False, place=ONE)
    (goal,) = outcome.goals
    assert goal.met and (goal.reached >= 0.95 * goal.most or "widths go in steps" in goal.why)


def test_expected_damage_is_beside_the_time(machine):
    found = [
        api.run(load(DIGITS), Options(latency=f"{percent}%", round_to=1), verify=False, place=ONE)
        for percent in (80, 50, 20)
    ]
    damage = [outcome.timed.damage for outcome in found]
    assert 0 < damage[0] < damage[1] < damage[2] < 1
    assert data.timed_json(found[0].timed)["predicted_damage"] == damage[0]
    assert f"{damage[0]:.1%} of the importance expected to be lost" in text.timed(found[0].timed)


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
    timed = Timed(0.01, TimeRatio(1.2, 1.15, 1.25), 1.1, ONE)
    assert timed.is_slower and text.timed(timed) == (
        "10.00 ms -> 12.00 ms (SLOWER, 1.200 (1.150 to 1.250), 1.100 expected; CPU, 1 thread)"
    )
    same = Timed(0.01, TimeRatio(1.01, 0.98, 1.04), None, ONE)
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
    monkeypatch.setattr(Timer, "_compare", lambda self, small: TimeRatio(1.1, 1.05, 1.15))
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--round-to", "auto")
    assert ran.code == 0 and "slower than the original" in ran.err and "SLOWER" in ran.out


@pytest.mark.parametrize(("ratio", "code"), [((1.1, 1.05, 1.15), 1), ((0.99, 0.97, 1.01), 1), ((0.9, 0.85, 0.95), 0)])
def test_command_writes_only_what_is_faster(run, machine, tmp_path, monkeypatch, ratio, code):  # noqa: F811
    monkeypatch.setattr(Timer, "_compare", lambda self, small: TimeRatio(*ratio))
    small, plan = tmp_path / "small.onnx", tmp_path / "plan.json"
    ran = run("prune", DIGITS, "-o", small, "--plan-out", plan, "--ratio", 0.5, "--only-if-faster")
    assert ran.code == code and ("nothing was written" in ran.err) == (code == 1)
    assert small.exists() == plan.exists() == (code == 0)


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
        (["--latency", "50%", "--data", "random", "--min-sqnr", "20dB"], "a search for a target measures no time"),
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
    monkeypatch.setattr("onnxprune.cost.latency.profiler.measure_operators", None)
    machine.block, machine.off = 1, 0.9
    outcome = api.run(load(DIGITS), Options(latency="50%", criterion="lamp"), verify=False, place=Place(other))
    assert outcome.goals[0].met and outcome.goals[0].reached > 0.93 * outcome.goals[0].most


def test_on_this_machine(tmp_path, monkeypatch):
    """Everything for real, once: a small network, half its time; busy machines may need more than half."""
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    monkeypatch.setattr("onnxprune.cost.latency.timer.SECONDS", 0.1)
    monkeypatch.setattr("onnxprune.cost.latency.profiler.SECONDS", 0.1)
    outcome = api.run(load(DIGITS), Options(latency="70%"), place=ONE)
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.timed is not None
    assert outcome.timed.ratio.value < 0.95
    assert len(list((tmp_path / "latency").iterdir())) >= 3
