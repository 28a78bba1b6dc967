"""Carry a plan out on the folder that it was made for, and write the folder that comes of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Unpack

from onnxprune.errors import UsageError
from onnxprune.folder import Folder, Smaller, check_folder_target, read_folder, write_folder
from onnxprune.keywords import ApplyKeywords, accepts_synonyms, check_keywords
from onnxprune.model import Model
from onnxprune.pipelines.apply import Executed, execute
from onnxprune.pipelines.drop_folder import shorter_folder
from onnxprune.pipelines.prune import check_proven
from onnxprune.pipelines.prune_folder import smaller_folder
from onnxprune.progress import Progress, shown
from onnxprune.recovery import RecoveryOptions
from onnxprune.rewriting import Plan


@accepts_synonyms(ApplyKeywords)
def apply_folder(
    source: str | os.PathLike[str],
    plan: Plan,
    output: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress | bool = False,
    **options: Unpack[ApplyKeywords],
) -> Executed:
    """Carry a plan out on a folder, and write it with a configuration and a tokenizer that fit.

    Args:
        source: the folder that the plan was made for, or a copy of it.
        plan: of `plan_folder`, or of what `prune_folder` or `drop_folder` did.
        output: the folder to write; it appears whole or not at all.
        force: replace a folder that is there.
        progress: True shows a bar; a function is told every stage.
        options: the other arguments of `apply`; of several graphs, an input of the data is called file/input.

    Returns:
        What carrying the plan out gave; `model` holds all graphs side by side.

    Raises:
        UsageError: the folder cannot be read or written, or the plan was made for other graphs.
        ModelError: a graph is invalid.
        GoalMissed: the result is not proven, or the configuration cannot say it.

    Example:
        >>> import onnxprune
        >>> done = onnxprune.apply_folder("models", onnxprune.plan_folder("models", 0.5), "smaller")
        >>> done.verdict.ok
        True
    """
    check_keywords(options, ApplyKeywords, "force")
    check_folder_target(Path(source), Path(output), force=force)
    given = dict[str, Any](options)
    recovery = RecoveryOptions(given.pop("recovery", "least-squares"))
    folder = read_folder(Path(source))
    model = planned_model(folder, plan)
    with shown(progress) as told:
        done = execute(model, plan, recovery=recovery, progress=told, **given)
    check_proven(done.groups, done.verdict)
    write_folder(folder, planned_folder(folder, plan, done), Path(output), force=force)
    return done


def planned_model(folder: Folder, plan: Plan) -> Model:
    """The graphs of a folder as the one model that a plan was made for.

    Args:
        folder: the folder.
        plan: made for it.

    Raises:
        UsageError: the plan was made for other graphs, or takes out layers and units at once.
    """
    if not plan.is_made_for(folder.joined.model):
        raise UsageError(
            f"the plan was made for other graphs than those in {folder.path}: {_difference(folder, plan)}",
            hint=f"make one for this folder: onnxprune plan {folder.path}",
        )
    if plan.bypasses and any(step.remove for step in plan.steps):
        raise UsageError("the plan takes layers and units out of a folder at once", hint="make a plan for each")
    return folder.model(rows=bool(plan.options.get("rows")))


def _difference(folder: Folder, plan: Plan) -> str:
    """Which graphs of a folder are not those that a plan was made for."""
    known, graphs = plan.made_for.get("files", {}), folder.joined.files
    changed = [name for name, model in graphs.items() if name in known and known[name] != model.digest]
    said = [f"{folder.graphs[name]} was changed" for name in changed]
    said += [f"{folder.graphs[name]} is not one of them" for name in graphs if known and name not in known]
    said += [f"{name}.onnx is missing" for name in known if name not in graphs]
    if not known and len(graphs) == 1:
        said = [f"{path} is another one, or was changed" for path in folder.graphs.values()]
    return ", ".join(said) or "for another folder, for a single file, or before a graph was changed"


def planned_folder(folder: Folder, plan: Plan, done: Executed) -> Smaller:
    """What became of the model of a folder, as its configuration wants to know it.

    Args:
        folder: the folder.
        plan: the plan.
        done: what carrying it out gave.

    Raises:
        GoalMissed: the configuration cannot say it.
    """
    if done.dropped is not None:
        return shorter_folder(folder, done.dropped)
    return Smaller(done.model) if done.zeroed else smaller_folder(folder, plan, done)
