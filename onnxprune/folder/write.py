"""Write a folder for the smaller model: it appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.folder.configuration import new_ids
from onnxprune.folder.contents import TOKENIZER, TOKENIZER_CONFIG, Folder
from onnxprune.folder.layers import Stack, without_layers
from onnxprune.folder.tokenizer import renumbered, renumbered_config
from onnxprune.model import Model, Width, save
from onnxprune.system import write_failure

# Weights that are not those of the graphs: they would be the original's.
_OTHER_WEIGHTS = frozenset((".safetensors", ".bin", ".h5", ".msgpack", ".gguf", ".pt", ".pth"))
# Files with the numbers of tokens that cannot be written anew; tokenizer.json says all that they say.
_OLD_TOKENIZERS = frozenset(
    ("vocab.json", "merges.txt", "vocab.txt", "added_tokens.json", "tokenizer.model", "spiece.model")
)


@dataclass(frozen=True)
class Smaller:
    """What became of the model of a folder.

    Attributes:
        model: the smaller model of all graphs.
        left: width -> units that are left, of those that shrank.
        kept: size of a vocabulary -> the old ids of the tokens that are left; empty where all are.
        stacks: the layers of every graph, if some went.
    """

    model: Model
    left: Mapping[Width, int] = field(default_factory=dict)
    kept: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    stacks: tuple[Stack, ...] = ()


def check_folder_target(source: Path, target: Path, *, force: bool) -> None:
    """Refuse, before any work, a place where the folder cannot be written.

    Args:
        source: the folder that is read.
        target: where the new one is to be.
        force: a folder that is there, with a model in it, may be replaced.

    Raises:
        UsageError: it exists, is part of the source or holds it, or cannot be written.
    """
    one, other = source.resolve(), target.resolve()
    if one == other or one in other.parents or other in one.parents:
        raise UsageError(f"{target} and the folder that is read are not apart", hint="choose another output")
    if target.exists() or target.is_symlink():
        if not force:
            raise UsageError(f"{target} exists", hint="replace it with --force, or choose another output")
        if not target.is_dir() or target.is_symlink() or (any(target.iterdir()) and not any(target.rglob("*.onnx"))):
            raise UsageError(f"{target} is no folder with a model, and is not replaced", hint="choose another output")
    parent = target.absolute().parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write {target}: {parent} is not a folder that can be written", hint="create it first")


def write_folder(folder: Folder, smaller: Smaller, target: Path, *, force: bool = False) -> None:
    """Write the smaller model with its configuration and tokenizer, and copy the other files.

    Args:
        folder: the original.
        smaller: what became of its model.
        target: the new folder.
        force: a folder that is there may be replaced.

    Raises:
        UsageError: it cannot be written, or a token that the configuration names is gone.
        RunError: the disk is full.
    """
    check_folder_target(folder.path, target, force=force)
    token = os.urandom(4).hex()
    made, old = (target.absolute().with_name(f".{target.name}.{token}.{end}") for end in ("tmp", "old"))
    try:
        _write(folder, smaller, made)
        if target.exists():
            target.rename(old)
        made.rename(target)
    except OSError as error:
        if old.exists() and not target.exists():
            old.rename(target)
        raise write_failure(target, error) from error
    finally:
        for path in (made, old):
            shutil.rmtree(path, ignore_errors=True)


def _write(folder: Folder, smaller: Smaller, target: Path) -> None:
    for name, model in folder.joined.split(smaller.model).items():
        path = target / folder.graphs[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        save(model, path, external=_data_name(folder.joined.files[name]))
    written = texts(folder, smaller)
    for name, content in written.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        indent = _indent(folder.path / name)
        (target / name).write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
    for file in _copied(folder, smaller, written):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.path / file, target / file)


def texts(folder: Folder, smaller: Smaller) -> dict[str, Any]:
    """File -> its new content, where it has another: the configuration and, where tokens went, the tokenizer.

    Args:
        folder: the original.
        smaller: what became of its model.
    """
    before = folder.configuration.files
    after = without_layers(folder.configuration.after(smaller.left, smaller.kept), smaller.stacks)
    made = {name: content for name, content in after.items() if content != before[name]}
    if smaller.kept and folder.tokenizer is not None:
        new = new_ids(smaller.kept)
        made[TOKENIZER] = renumbered(folder.tokenizer, new)
        if folder.tokenizer_config is not None:
            made[TOKENIZER_CONFIG] = renumbered_config(folder.tokenizer_config, new)
    return made


def _copied(folder: Folder, smaller: Smaller, written: Collection[str]) -> list[Path]:
    """The files that stay as they are, beside those that are written."""
    return [
        file
        for file in (*folder.others, *map(Path, folder.configuration.files))
        if file.as_posix() not in written
        and file.suffix not in _OTHER_WEIGHTS
        and not (smaller.kept and file.name in _OLD_TOKENIZERS)
    ]


def _indent(path: Path) -> int | None:
    """By how much the lines of a JSON file are indented; None for a file of one line."""
    content = path.read_bytes()
    lines = content.decode(json.detect_encoding(content)).splitlines()[1:2]
    return len(lines[0]) - len(lines[0].lstrip()) if lines else None


def _data_name(model: Model) -> str | None:
    """What the file with the weights was called, if there was one."""
    places = {e.value for tensor in model.externals for e in tensor.external_data if e.key == "location"}
    return Path(places.pop()).name if len(places) == 1 else None
