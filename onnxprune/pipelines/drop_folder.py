"""Drop layers of the model of a folder: of all graphs that have them, with a configuration that counts what is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Unpack

from onnxprune.errors import GoalMissed
from onnxprune.folder import (
    DECODER,
    ENCODER,
    Folder,
    Smaller,
    Stack,
    check_counted,
    check_folder_target,
    read_folder,
    write_folder,
)
from onnxprune.keywords import LayerKeywords, accepts_synonyms, check_keywords
from onnxprune.model.block_regions import BLOCK
from onnxprune.pipelines.drop import drop_blocks
from onnxprune.pipelines.drop_source import check_dropped, drop_options
from onnxprune.pipelines.dropped import Dropped
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress, shown


@accepts_synonyms(LayerKeywords)
def drop_folder(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    force: bool = False,
    progress: Progress | bool = False,
    **options: Unpack[LayerKeywords],
) -> Dropped:
    """Take whole layers out of all graphs of a folder, and write them with a configuration that fits.

    A layer that several graphs have, as a decoder's with and without its cache, goes from all of them.

    Args:
        source: a folder with graphs and their configuration, as for `prune_folder`.
        output: the folder to write; it appears whole or not at all.
        force: replace a folder that is there.
        progress: True shows a bar; a function is told every stage.
        options: the other arguments of `drop`; of several graphs, an input of the data is called file/input. Caches of
            layers that go are gone without more words.

    Returns:
        What dropping gave; `model` holds all graphs side by side.

    Raises:
        UsageError: the folder cannot be read or written, an option is out of range, or a name is that of no block.
        ModelError: a graph is invalid.
        GoalMissed: no layer may go, a budget cannot be met, the configuration cannot say what is left, or the result is
            not proven.

    Example:
        >>> import onnxprune
        >>> done = onnxprune.drop_folder("models", "shallow", count=1)
        >>> [scored.block.name for scored in done.dropped]
        ['residual']
    """
    check_keywords(options, LayerKeywords, "force")
    check_folder_target(Path(source), Path(output), force=force)
    asked = dict[str, Any](options)
    given = {name: asked.pop(name) for name in ("data", "samples") if name in asked}
    sizes, verify = asked.pop("sizes", None) or {}, asked.pop("verify", True)
    chosen = drop_options({**asked, "allow_io_changes": True})
    folder = read_folder(Path(source))
    inputs = RunInputs(**given, sizes={**folder.sizes, **sizes})
    with shown(progress) as told:
        done = drop_blocks(folder.model(rows=False), chosen, inputs, verify=verify, progress=told)
    check_dropped(done)
    write_folder(folder, shorter_folder(folder, done), Path(output), force=force)
    return done


def shorter_folder(folder: Folder, done: Dropped) -> Smaller:
    """What became of the model of a folder, as its configuration wants to know it.

    Args:
        folder: the folder.
        done: what dropping layers of its model gave.

    Raises:
        GoalMissed: the configuration cannot say it.
    """
    part = next((one.block for one in done.dropped if one.block.kind != BLOCK and one.block.changes_io), None)
    if part is not None and folder.configuration.files:
        raise GoalMissed(
            f"{part.name} would go with its cache, and the configuration counts a cache for every layer",
            hint="drop whole layers: --units blocks",
        )
    stacks = tuple(_stack(folder, done, name) for name in folder.graphs)
    check_counted(folder.configuration.files, stacks)
    return Smaller(done.model, stacks=stacks)


def _stack(folder: Folder, done: Dropped, file: str) -> Stack:
    """The layers of a graph."""
    beginning = folder.joined.beginning(file)
    layers = [one for one in done.blocks if one.block.kind == BLOCK and one.block.exit.startswith(beginning)]
    gone = tuple(place for place, one in enumerate(layers) if one.dropped)
    is_decoder = any(name.startswith(beginning) for name in folder.renewed)
    return Stack(DECODER if is_decoder else ENCODER, len(layers), gone)
