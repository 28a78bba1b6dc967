"""Folders appear whole or not at all."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.folder import Smaller, check_folder_target, read_folder, write, write_folder
from tests.graphs.folders import write_decoder, write_pair


def whole(folder: Path) -> tuple[Any, Smaller]:
    read = read_folder(folder)
    return read, Smaller(read.model(rows=False))


def test_a_folder_without_a_cut_is_the_same(tmp_path: Path) -> None:
    source = write_pair(tmp_path / "whole")
    (source / "config.json").write_text('{"vocab_size":   40}\n\n')
    (source / "model.safetensors").write_text("weights of the original")
    write_folder(*whole(source), tmp_path / "copy")
    names = {path.name for path in source.iterdir()} - {"model.safetensors"}
    assert {path.name for path in (tmp_path / "copy").iterdir()} == names
    assert (tmp_path / "copy" / "config.json").read_text() == '{"vocab_size":   40}\n\n', "byte for byte"
    for path in source.glob("*.onnx"):
        onnx.checker.check_model(tmp_path / "copy" / path.name, full_check=True)


def test_tokens_that_went(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole")
    tokens = {"model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2}}, "added_tokens": []}
    (source / "tokenizer.json").write_text(json.dumps(tokens))
    (source / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"1": {}, "0": {}}}))
    (source / "vocab.txt").write_text("old numbers")
    read, smaller = whole(source)
    write_folder(read, Smaller(smaller.model, kept={40: (1, 2)}), tmp_path / "small")
    made = {path.name: path.read_text() for path in (tmp_path / "small").glob("*.json")}
    assert json.loads(made["tokenizer.json"])["model"]["vocab"] == {"b": 0, "c": 1}
    assert json.loads(made["tokenizer_config.json"]) == {"added_tokens_decoder": {"0": {}}}
    assert json.loads(made["config.json"])["vocab_size"] == 2
    assert not (tmp_path / "small" / "vocab.txt").exists()


@pytest.mark.parametrize("there", [False, True])
def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """And what was there before stays."""
    source, target = write_decoder(tmp_path / "whole"), tmp_path / "small"
    (source / "README.md").write_text("words")
    if there:
        write_decoder(target)
    before = sorted(tmp_path.rglob("*"))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(write.shutil, "copyfile", full)
    with pytest.raises(RunError, match="disk full"):
        write_folder(*whole(source), target, force=there)
    assert sorted(tmp_path.rglob("*")) == before


def test_replacing_a_folder(tmp_path: Path) -> None:
    source, target = write_decoder(tmp_path / "whole"), write_decoder(tmp_path / "small")
    (target / "old.txt").write_text("old")
    with pytest.raises(UsageError, match="exists"):
        write_folder(*whole(source), target)
    write_folder(*whole(source), target, force=True)
    assert not (target / "old.txt").exists() and {p.name for p in tmp_path.iterdir()} == {"whole", "small"}


def test_places_that_are_refused(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole")
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("no model")
    for target, said in (
        (source, "not apart"),
        (source / "inside", "not apart"),
        (tmp_path, "not apart"),
        (tmp_path / "letters", "is no folder with a model"),
        (tmp_path / "none" / "small", "cannot write"),
    ):
        with pytest.raises(UsageError, match=said):
            check_folder_target(source, target, force=True)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_configuration_in_any_encoding_of_json(tmp_path: Path, encoding: str) -> None:
    source = write_decoder(tmp_path / "in")
    content = (source / "config.json").read_text()
    (source / "config.json").write_text(content, encoding=encoding)
    folder = read_folder(source)
    smaller = Smaller(folder.model(rows=False), {("channel", 12): 6})
    write_folder(folder, smaller, tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text() == content.replace('size": 12', 'size": 6') + "\n"
