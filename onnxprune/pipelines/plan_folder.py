"""Plan what `prune_folder` would carry out: one plan for all graphs of a folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Unpack

from onnxprune.allocation import Options
from onnxprune.folder import read_folder
from onnxprune.keywords import FolderChoiceKeywords, accepts_synonyms, check_keywords
from onnxprune.pipelines.prune import plan_for
from onnxprune.pipelines.prune_folder import folder_options
from onnxprune.progress import Progress, shown
from onnxprune.rewriting import Plan


@accepts_synonyms(FolderChoiceKeywords)
def plan_folder(
    source: str | os.PathLike[str],
    ratio: float | None = None,
    *,
    progress: Progress | bool = False,
    **options: Unpack[FolderChoiceKeywords],
) -> Plan:
    """Plan what `prune_folder` would carry out, without carrying it out.

    Args:
        source: a folder with graphs and their configuration, as for `prune_folder`.
        ratio: fraction of every group's units to remove.
        progress: True shows a bar; a function is told every stage.
        options: the other arguments of `make_plan` and fields of `Options`; of several graphs, an input of the data is
            called file/input.

    Returns:
        One plan for all graphs, which `apply_folder` carries out on this folder.

    Raises:
        UsageError: the folder cannot be read, or an option is out of range.
        ModelError: a graph is invalid.

    Example:
        >>> import onnxprune
        >>> plan = onnxprune.plan_folder("models", 0.25)
        >>> len(plan.steps)
        4
    """
    check_keywords(options, FolderChoiceKeywords, "ratio")
    folder, asked = read_folder(Path(source)), dict[str, Any](options)
    given = {name: asked.pop(name) for name in ("data", "samples") if name in asked}
    sizes = {**folder.sizes, **(asked.pop("sizes", None) or {})}
    chosen = folder_options(folder, Options(ratio=ratio, **asked))
    with shown(progress) as told:
        return plan_for(folder.model(rows=bool(chosen.rows)), chosen, sizes=sizes, progress=told, **given)[1]
