"""Prune the model of a folder: several graphs, their configuration and their tokenizer."""

from __future__ import annotations

import glob
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from onnxprune.allocation import Options
from onnxprune.errors import GoalMissed
from onnxprune.folder import Folder, Smaller, check_folder_target, read_folder, write_folder
from onnxprune.keywords import FolderKeywords, accepts_synonyms, check_keywords
from onnxprune.model import Model, Width
from onnxprune.pipelines.prune import Outcome, check_proven, run
from onnxprune.progress import Progress, shown
from onnxprune.recovery import RecoveryOptions
from onnxprune.rewriting import Plan
from onnxprune.tracing import Groups

if TYPE_CHECKING:
    from onnxprune.pipelines.apply import Executed


@accepts_synonyms(FolderKeywords)
def prune_folder(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    ratio: float | None = None,
    *,
    force: bool = False,
    progress: Progress | bool = False,
    **options: Unpack[FolderKeywords],
) -> Outcome:
    """Prune all graphs of a folder together, and write them with a configuration and a tokenizer that fit.

    Args:
        source: a folder with graphs and their configuration, as optimum, transformers.js and onnxruntime-genai have it.
        output: the folder to write; it appears whole or not at all.
        ratio: fraction of every group's units to remove, as for `prune`.
        force: replace a folder that is there.
        progress: True shows a bar; a function is told every stage.
        options: the other arguments of `prune` and fields of `Options`; of several graphs, an input of the data is
            called file/input. `rows` may name "vocab_size". Caches may shrink without more words.

    Returns:
        What pruning gave; `model` holds all graphs side by side.

    Raises:
        UsageError: the folder cannot be read or written, or an option is out of range.
        ModelError: a graph is invalid.
        GoalMissed: there is nothing to prune, or the result is not proven.

    Example:
        >>> import onnxprune
        >>> done = onnxprune.prune_folder("models", "smaller", 0.5)
        >>> done.before.params, done.after.params
        (118314, 29978)
    """
    check_keywords(options, FolderKeywords, "ratio", "force")
    check_folder_target(Path(source), Path(output), force=force)
    folder, asked = read_folder(Path(source)), dict[str, Any](options)
    given = {name: asked.pop(name) for name in ("verify", "data", "samples") if name in asked}
    sizes, recovery = {**folder.sizes, **(asked.pop("sizes", None) or {})}, asked.pop("recovery", "least-squares")
    chosen = folder_options(folder, Options(ratio=ratio, **asked))
    with shown(progress) as told:
        how: dict[str, Any] = {"sizes": sizes, "recovery": RecoveryOptions(recovery), "progress": told}
        outcome = run(folder.model(rows=bool(chosen.rows)), chosen, **how, **given)
    check_proven(outcome.groups, outcome.verdict)
    write_folder(folder, smaller_folder(folder, outcome.plan, outcome), Path(output), force=force)
    return outcome


def folder_options(folder: Folder, options: Options) -> Options:
    """The options for the model of a folder: states may shrink, and a vocabulary is cut wherever it is.

    Args:
        folder: the folder.
        options: as they are asked for. `rows` may name "vocab_size", for all tables and outputs of that size.

    Returns:
        The options for `folder.model`.
    """
    rows: dict[str, Sequence[int]] = {}
    for name, ids in options.rows.items():
        tables = folder.vocabulary(name)
        rows |= dict.fromkeys(tables, folder.needed(ids)) if tables else {name: ids}
    if options.allow_io_changes is True:
        return replace(options, rows=rows)
    outputs = [value.name for value in folder.joined.model.proto.graph.output if value.name in rows]
    states = dict.fromkeys(name for pair in folder.states for name in pair)
    opened = [*(options.allow_io_changes or ()), *map(glob.escape, (*states, *outputs))]
    return replace(options, rows=rows, allow_io_changes=tuple(opened) or False)


def smaller_folder(folder: Folder, plan: Plan, done: Outcome | Executed) -> Smaller:
    """What became of the model of a folder, as its configuration wants to know it.

    Args:
        folder: the folder.
        plan: what went.
        done: what pruning its model gave, or carrying out the plan.

    Raises:
        GoalMissed: caches of different layers have different numbers of heads, or two vocabularies lose other tokens.
    """
    _check_caches(folder, done.model)
    kept = {table.size: table.kept for table in done.rows if table.size in folder.configuration.vocabulary}
    kept = {size: ids for size, ids in kept.items() if len(ids) < size}
    if len(set(kept.values())) > 1:
        raise GoalMissed(
            "two vocabularies would keep other tokens, and the configuration's ids are of both",
            hint="name all of them at once: --rows vocab_size=FILE",
        )
    return Smaller(done.model, _left(plan, done.groups), kept)


def _left(plan: Plan, groups: Groups) -> Mapping[Width, int]:
    """Width -> the units that are left of it, of those that shrank."""
    removed = {step.group: len(step.remove) for step in plan.steps}
    found: dict[Width, int] = {}
    for held, classes in groups.held.items():
        group = groups.group_of[classes[0]]
        if group >= 0:
            name, parts = groups.groups[group].name, len(groups.groups[group].classes)
            found |= {width: width[1] * (parts - removed.get(name, 0)) // parts for width in held.widths}
    return {width: left for width, left in found.items() if left < width[1]}


def _check_caches(folder: Folder, model: Model) -> None:
    """Refuse caches of different numbers of heads where the configuration has one number."""
    states = dict.fromkeys(name for pair in folder.states for name in pair)
    before, after = _declared(folder.joined.model), _declared(model)
    first: dict[tuple[int, int, int], str] = {}
    for name in states:
        for axis, size in enumerate(before[name]):
            if axis and size:
                known = first.setdefault((len(before[name]), axis, size), name)
                if after[known][axis] != after[name][axis]:
                    raise GoalMissed(
                        f"the configuration has one number for {known!r} and {name!r}, which would differ",
                        hint=f"leave both as they are: --keep {name!r}",
                    )


def _declared(model: Model) -> dict[str, list[int]]:
    """Input or output -> the sizes that it is declared with; 0 for an axis without."""
    graph = model.proto.graph
    return {v.name: [dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in (*graph.input, *graph.output)}
