"""One place for each new thing: what the page for contributors adds works, with no change to the package.

The examples are taken from the page itself and loaded as modules of a temporary folder.
"""

from __future__ import annotations

import importlib.util
import itertools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune import api, criteria
from onnxprune.allocation import KINDS, blocking_options
from onnxprune.allocation.strategies import STRATEGIES
from onnxprune.cli import main
from onnxprune.criteria.magnitude import accumulate
from onnxprune.errors import UsageError
from onnxprune.model import load, traits
from onnxprune.model.protos import MICROSOFT
from onnxprune.model.shapes import contrib
from onnxprune.recovery import METHODS
from onnxprune.report import text
from onnxprune.tracing.rules import registry
from tests.criteria.nets import convolutions
from tests.graphs.net import Net, group_of, reasons_for
from tests.structure.test_floors import FLOORS, GROUND
from tests.structure.tree import PACKAGES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "CONTRIBUTING.md").read_text(encoding="utf-8")
DIGITS = str(ROOT / "models" / "digits.onnx")
NUMBERS = itertools.count()
TOY = (MICROSOFT, "GridSample")


def examples(heading: str) -> list[str]:
    """The Python blocks of a section."""
    (section,) = re.findall(rf"(?ms)^## {heading}\n(.*?)(?=^## )", PAGE)
    return [textwrap.dedent(block) for block in re.findall(r"(?ms)^ *```python\n(.*?)^ *```", section)]


def loaded(source: str, folder: Path) -> ModuleType:
    """A temporary module with this source."""
    path = folder / f"toy_{next(NUMBERS)}.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a toy registers is gone afterwards; a toy that has become real starts from nothing."""
    rules = {key: list(known) for key, known in registry._RULES.items() if key != TOY}
    monkeypatch.setattr(registry, "_RULES", rules)
    monkeypatch.delitem(traits.TRAITS, TOY, raising=False)
    registries: tuple[dict[str, Any], ...] = (criteria.KNOWN, STRATEGIES, METHODS, KINDS)
    known = [dict(registered) for registered in registries]
    yield
    for registered, before in zip(registries, known, strict=True):
        registered.clear()
        registered.update(before)


# --- an operator -----------------------------------------------------------------------------------------


def sampler() -> Net:
    """A convolution, an image sampled at constant places, a sum over the channels."""
    net = Net()
    made = net.add("Conv", net.input((1, 3, 5, 5)), net.weight(8, 3, 1, 1, name="w_in"))
    places = net.const(net.rng.uniform(-0.9, 0.9, (1, 3, 3, 2)).astype(np.float32))
    sampled = net.add("GridSample", made, places, domain=MICROSOFT)
    net.output(net.add("ReduceSum", sampled, net.ints(1)), (1, 1, 3, 3))
    return net


def add_sizes(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (sizes,) = (block for block in examples("An operator") if "_Given" in block)
    typed = "from __future__ import annotations\n" + sizes
    monkeypatch.setitem(contrib._SIZES, TOY, loaded(typed, folder)._grid_sample)


def test_without_a_rule_the_toy_operator_is_a_barrier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_sizes(monkeypatch, tmp_path)
    groups = api.trace(sampler().proto())
    assert any("GridSample" in reason for reason in reasons_for(groups, "w_in", 0))


def test_an_operator_is_a_rule_and_a_row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    add_sizes(monkeypatch, tmp_path)
    (rule,) = (block for block in examples("An operator") if "@rule" in block)
    loaded(rule, tmp_path)
    model = sampler().proto()
    before = group_of(api.trace(model), "w_in", 0)
    assert before is not None and before.units == 8 and not before.exact
    monkeypatch.setitem(traits.TRAITS, TOY, traits.Traits(zero=traits.Zero(parts=(0,))))
    after = group_of(api.trace(model), "w_in", 0)
    assert after is not None and after.units == 8 and after.exact
    pruned = onnxprune.prune(model, 0.5)
    assert pruned.report.verdict is not None and pruned.report.verdict.ok
    assert [len(step.remove) for step in pruned.plan.steps] == [4]


# --- a criterion -----------------------------------------------------------------------------------------


def test_a_criterion_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, test = examples("A criterion")
    loaded(source, tmp_path)
    loaded(test, tmp_path).test_cubes(convolutions())
    groups = api.trace(ROOT / "models" / "digits.onnx")
    scores = criteria.score(groups, "cubes")
    wanted = accumulate(groups, lambda weight: np.abs(weight) ** 3)
    np.testing.assert_allclose(scores[groups.group_of >= 0], wanted[groups.group_of >= 0])
    model = str(ROOT / "models" / "digits.onnx")
    for name in ("cubes", "ensemble:l2,cubes"):
        assert main(["prune", model, "--dry-run", "--criterion", name]) == 0
    capsys.readouterr()
    assert main(["criteria"]) == 0
    assert "Sum of absolute cubes over all weights of a unit" in capsys.readouterr().out


# --- a strategy, a recovery method, a kind of budget -----------------------------------------------------


def test_a_strategy_is_a_function(tmp_path: Path) -> None:
    (source,) = examples("An allocation strategy")
    loaded(source, tmp_path)
    result = onnxprune.prune(DIGITS, macs="95%", criterion="l2", allocation="backwards")
    assert result.report.verdict is not None and result.report.verdict.ok
    (goal,) = result.report.goals
    assert goal.met and goal.reached > 0.8 * goal.most
    order = [group.name for group in result.report.groups.groups]
    cut = [order.index(step.group) for step in result.plan.steps]
    assert cut and cut == list(range(min(cut), len(order))), "the last groups, without a gap"
    with pytest.raises(UsageError, match="no allocation is called 'forwards'"):
        onnxprune.prune(DIGITS, macs="95%", allocation="forwards")


def test_a_recovery_method_is_a_function(tmp_path: Path) -> None:
    (source,) = examples("A recovery method")
    loaded(source, tmp_path)
    asked = {"criterion": "l2", "data": str(ROOT / "models" / "digits_calibration.npz"), "samples": 48}
    repair = onnxprune.prune(DIGITS, 0.5, recovery="gain", **asked).report.recovery
    assert repair is not None and repair.method == "gain" and repair.kept
    assert all(fit.after < fit.before for fit in repair.fits if fit.kept) and any(fit.kept for fit in repair.fits)
    assert onnxprune.prune(DIGITS, 0.5, recovery="gain", criterion="l2").report.recovery is None, "it needs data"
    with pytest.raises(UsageError, match="no way to recover is called 'loss'"):
        onnxprune.prune(DIGITS, 0.5, recovery="loss", **asked)


def test_a_kind_of_budget_is_a_record_and_a_field(tmp_path: Path) -> None:
    (source,) = examples("A kind of budget")
    toy = loaded(source, tmp_path)
    KINDS["channels"] = toy.CHANNELS
    options = toy.WithChannels(channels="60%", criterion="l2")
    outcome = api.run(load(DIGITS), options)
    total = sum(group.units for group in outcome.groups.groups)
    removed = sum(len(step.remove) for step in outcome.plan.steps)
    (goal,) = outcome.goals
    assert (goal.kind, goal.before, goal.reached) == ("channels", total, total - removed)
    assert goal.met and goal.reached > goal.most - 1
    (line,) = text.budgets(outcome.goals)
    assert f"channels: {total - removed} of at most" in line
    assert blocking_options(outcome.groups, replace(options, round_to=8), "channels")
    with pytest.raises(UsageError, match="channels: 'few' is not an amount"):
        toy.WithChannels(channels="few")


# --- the page of packages --------------------------------------------------------------------------------


def test_the_table_of_packages_is_the_tree() -> None:
    page = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    told = {name: int(floor) for floor, name in re.findall(r"(?m)^\| (\d) \| `(\w+)` \|", page)}
    there = {package.split(".")[1] for package in PACKAGES} | {"api", "olive_pass"}
    assert told == {name: i for i, floor in enumerate(FLOORS) for name in floor if name in there and name not in GROUND}
