"""What `auto` tried, chose and could not tell, as text and as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from onnxprune.report import data as plain
from onnxprune.report import numbers, text
from onnxprune.report.sparsify import agreement_data, agreement_text, speed_data, speed_text

if TYPE_CHECKING:
    from onnxprune.pipelines.auto_recipes import VerbStep
    from onnxprune.pipelines.auto_search import AutoOutcome
    from onnxprune.pipelines.auto_trials import AutoTrial

# Kind of cost -> its column, and how its amounts are written.
COLUMNS = {
    "size": ("file", numbers.bytes_text),
    "macs": ("MACs", numbers.count),
    "params": ("params", numbers.count),
    "latency": ("time", numbers.duration),
}
# Why a trial has no place among the good ones.
MISSED, WORSE = "over the budget", "not good enough"


def auto_lines(of: AutoOutcome) -> list[str]:
    """The account of a search: the front and the best of every other recipe, and what was chosen.

    Args:
        of: what the search gave.

    Returns:
        Lines of text.
    """
    kinds = [kind for kind in COLUMNS if kind != "latency" or of.goal.cost == "latency"]
    names = [COLUMNS[kind][0] for kind in kinds]
    header = ("recipe", *names, of.goal.metric or "quality", "")
    rows = [("original", *(COLUMNS[kind][1](of.whole[kind]) for kind in kinds), _own(of), "")]
    rows += [_row(trial, of, kinds) for trial in _telling(of)]
    lines = text.table(header, rows, header[1:-1])
    lines += ["", text.entry("asked", asked(of)), text.entry("chosen", recipe_line(of.chosen.steps))]
    if of.judged is not None:
        lines.append(text.entry("outputs", f"{agreement_text(of.judged)} on held-out samples"))
    lines.append(text.entry("speed", speed_text(of.speed)))
    failed = len(of.trials) - len(of.made)
    tried = f"{numbers.plural(len(of.made), 'model')} in {numbers.seconds(of.seconds)}"
    lines.append(text.entry("tried", tried + (f"; {numbers.plural(failed, 'trial')} gave none" if failed else "")))
    if of.resumed:
        lines.append(text.entry("resumed", f"{numbers.plural(of.resumed, 'trial')} had been finished before"))
    if of.interrupted:
        lines.append(text.entry("ended", "before its time, with the best so far"))
    return [*lines, *(text.entry("unknown", what) for what in of.unknown)]


def failed_lines(of: AutoOutcome) -> list[str]:
    """Say of every trial without a model why it has none."""
    return [f"no model: {trial.recipe}: {trial.problem}" for trial in of.trials if trial.problem]


def asked(of: AutoOutcome) -> str:
    """What was to be reached."""
    goal, said = of.goal, list[str]()
    if goal.most is not None:
        name, written = COLUMNS[goal.cost]
        said.append(f"{name} of at most {written(goal.most * of.whole[goal.cost])} ({numbers.percent(goal.most)})")
    if goal.floor is not None:
        said.append(f"{goal.floor.metric} of at least {goal.floor.bound(of.whole):.5g}")
    if goal.most is None:
        said.append(f"as little of the {COLUMNS[goal.cost][0]} as goes")
    return ", ".join(said)


def recipe_line(steps: tuple[VerbStep, ...]) -> str:
    """Steps as they are typed: `prune --size 40%, quantize --weights int8`."""
    return ", then ".join(" ".join([step.verb, *_options(step.options)]) for step in steps) or "the model as it is"


def _options(options: Mapping[str, Any]) -> list[str]:
    return [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in options.items()]


def _telling(of: AutoOutcome) -> list[AutoTrial]:
    """The front and the best trial of every recipe, the smallest first."""
    shown = {id(trial): trial for trial in [*of.front, of.chosen]}
    for name in dict.fromkeys(trial.recipe for trial in of.made):
        best = min((trial for trial in of.made if trial.recipe == name), key=of.goal.rank)
        shown[id(best)] = best
    return sorted(shown.values(), key=of.goal.cost_of)


def _row(trial: AutoTrial, of: AutoOutcome, kinds: list[str]) -> tuple[str, ...]:
    costs = (COLUMNS[kind][1](trial.costs[kind]) for kind in kinds)
    quality = trial.values.get(of.goal.metric)
    marks = ["chosen"] if trial is of.chosen else []
    marks += ["*"] if of.goal.metric and any(trial is point for point in of.front) else []
    marks += [] if of.goal.fits(trial) else [MISSED]
    marks += [] if of.goal.keeps(trial) else [WORSE]
    return (trial.recipe, *costs, "?" if quality is None else f"{quality:.4g}", ", ".join(marks))


def _own(of: AutoOutcome) -> str:
    return f"{of.whole['value']:.4g}" if of.goal.metric == "value" else ""


def auto_data(of: AutoOutcome) -> dict[str, Any]:
    """The account of a search as plain data: what `--json` prints.

    Args:
        of: what the search gave.

    Returns:
        The goal, the chosen recipe, all trials with their front, and what could not be told.
    """
    goal, front = of.goal, {id(trial) for trial in of.front}
    trials = [
        _trial_data(trial, of) | {"pareto": id(trial) in front, "chosen": trial is of.chosen} for trial in of.made
    ]
    floor = None if goal.floor is None else asdict(goal.floor) | {"bound": goal.floor.bound(of.whole)}
    targets = [floor or {"metric": goal.metric or "none", "bound": None}]
    return {
        "goal": {"cost": goal.cost, "most": goal.most, "floor": floor},
        "original": dict(of.whole),
        **{place: _counted(of.whole if place == "before" else of.chosen.costs) for place in ("before", "after")},
        "chosen": _trial_data(of.chosen, of),
        "search": {"cost": goal.cost, "targets": targets, "trials": trials, "known": of.resumed},
        "failed": [{"recipe": t.recipe, "problem": t.problem} for t in of.trials if t.problem],
        "outputs": agreement_data(of.judged),
        "damage": plain.ruin(of.judged),
        "speed": speed_data(of.speed),
        "unknown": list(of.unknown),
        "interrupted": of.interrupted,
        "took": round(of.seconds, 3),
    }


def _counted(amounts: Mapping[str, float]) -> dict[str, int]:
    return {"params": int(amounts["params"]), "macs": int(amounts["macs"]), "file": int(amounts["size"])}


def _trial_data(trial: AutoTrial, of: AutoOutcome) -> dict[str, Any]:
    costs = {kind: trial.costs.get(kind) for kind in ("params", "macs", "size")}
    return {
        "recipe": trial.recipe,
        "steps": [{"run": step.verb, **step.options} for step in trial.steps],
        "samples": trial.samples,
        "training": trial.training,
        "reached": of.goal.cost_of(trial),
        **costs,
        "latency": trial.costs.get("latency"),
        "values": dict(trial.values),
        "good": of.goal.fits(trial) and of.goal.keeps(trial),
        "trial_seconds": round(trial.seconds, 3),
    }
