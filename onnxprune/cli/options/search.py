"""Options of `onnxprune prune` that say how good the smaller model must be, and what becomes of the trials."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import paths
from onnxprune.cli.options.data import evaluation
from onnxprune.cli.options.group import SEARCH, Option, group, titled
from onnxprune.cli.types import FOLDER

if TYPE_CHECKING:
    from onnxprune.pipelines.search import Found
    from onnxprune.pipelines.search_targets import QualityConstraint
    from onnxprune.pipelines.search_trials import SearchConfig

_TARGETS: tuple[Option, ...] = (
    click.option(
        "--max-drop",
        metavar="AMOUNT",
        help="Find the smallest model whose --eval value drops by no more: 1% of the original's, or a number.",
    ),
    click.option(
        "--min-sqnr",
        metavar="DB",
        help="Find the smallest model whose outputs keep this signal to noise on inputs of --data that are held out.",
    ),
    click.option(
        "--max-divergence",
        metavar="[METRIC=]AMOUNT",
        help="Find the smallest model whose outputs differ by no more there: error (squared, relative; the default) or "
        "kl (of classes).",
    ),
    evaluation,
    click.option(
        "--search",
        type=click.Choice(["macs", "params", "size"]),
        default="macs",
        show_default=True,
        help="What a smallest model has least of.",
    ),
    click.option(
        "--max-trials",
        metavar="N",
        type=click.IntRange(1),
        default=8,
        show_default=True,
        help="Most models that a search tries.",
    ),
    click.option("--trials", type=FOLDER, help="Write the plan of every model that a search tries; `apply` makes it."),
)


@dataclass(frozen=True)
class SearchRequest:
    """What a search is to find, and where its trace goes."""

    max_drop: str | None
    min_sqnr: str | None
    max_divergence: str | None
    evaluate: str | None
    search_by: str
    max_trials: int
    trials: str | None

    def check(self, *, force: bool) -> None:
        """Refuse, before any work, what cannot be written."""
        if self.trials is not None:
            paths.check_folder("--trials", self.trials, force=force)

    def settings(self, **given: Any) -> SearchConfig:
        """How to search; the arguments are the other fields of `SearchConfig`."""
        from onnxprune.pipelines import Evaluation
        from onnxprune.pipelines.search_trials import SearchConfig

        evaluation = None if self.evaluate is None else Evaluation(self.evaluate)
        return SearchConfig(tuple(self._targets()), evaluation, cost=self.search_by, trials=self.max_trials, **given)

    def _targets(self) -> list[QualityConstraint]:
        from onnxprune.pipelines.search_targets import divergence_constraint, drop_constraint, sqnr_constraint

        given = (
            (drop_constraint, self.max_drop),
            (sqnr_constraint, self.min_sqnr),
            (divergence_constraint, self.max_divergence),
        )
        return [read(text) for read, text in given if text is not None]

    def texts(self, found: Found) -> dict[str, str]:
        """The plans of all trials, by file."""
        texts: dict[str, str] = {}
        if self.trials is not None:
            Path(self.trials).mkdir(parents=True, exist_ok=True)
            for number, trial in enumerate(found.trials, 1):
                texts[str(Path(self.trials) / f"{number:02}.plan.json")] = trial.plan
        return texts


def _wanted(search: str, **given: Any) -> SearchRequest | None:
    wanted = SearchRequest(search_by=search, **given)
    limits = (wanted.max_drop, wanted.min_sqnr, wanted.max_divergence)
    return wanted if any(limit is not None for limit in limits) else None


# What a search looks for; the command gets `wanted`, None without a target.
targets = group("wanted", _wanted, titled(SEARCH, *_TARGETS))


# Options of a search's command that the command of one of its models has not, beside those of the search itself.
_OWN = ("output", "report", "picture", "as_json", "plan_out", "dry_run", "force", "quiet", "verbose")


def trial_commands(command: Sequence[str], found: Found) -> list[str]:
    """Write the command that makes the model of each trial: that of the search, with a budget in place of its targets.

    Args:
        command: the arguments of the program.
        found: what the search found.
    """
    context = click.get_current_context()
    options = [p for p in context.command.params if isinstance(p, click.Option)]
    cost = f"--{found.settings.cost}"
    left_out = [p for p in options if getattr(p, "title", "") == SEARCH or p.name in _OWN or cost in p.opts]
    flags = {opt: p.is_flag or p.count for p in left_out for opt in (*p.opts, *p.secondary_opts)}
    kept, rest = list[str](), iter(command)
    for word in rest:
        name, given, _ = word.partition("=")
        if name not in flags:
            kept.append(word)
        elif not flags[name] and not given:
            next(rest, None)
    shares = [f"{100 * trial.share:.6f}%" for trial in found.trials]
    return [shlex.join(["onnxprune", *kept, "-o", f"trial-{n}.onnx", cost, s]) for n, s in enumerate(shares, 1)]
