"""What a folder holds, and how its graphs hang together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import onnx
import pytest

from onnxprune.errors import UsageError
from onnxprune.folder import read_folder
from tests.graphs.folders import Family, encoder, write_decoder, write_handing, write_pair


def test_states_of_one_graph_and_of_several(tmp_path: Path) -> None:
    one = read_folder(write_decoder(tmp_path / "one"))
    kinds = [f"{layer}.{kind}" for layer in range(2) for kind in ("key", "value")]
    assert one.states == tuple((f"present.{kind}", f"past_key_values.{kind}") for kind in kinds)
    pair = read_folder(write_pair(tmp_path / "pair"))
    assert ("encoder_model/last_hidden_state", "decoder_model/encoder_hidden_states") in pair.states
    made = {name for name, _ in pair.states}
    assert {f"decoder_model/present.0.{of}.key" for of in ("decoder", "encoder")} < made
    assert "decoder_model/logits" not in made


def test_caches_that_grow_are_those_of_decoders(tmp_path: Path) -> None:
    """A cache that an encoder hands out stays as it is."""
    one, pair = read_folder(write_decoder(tmp_path / "one")), read_folder(write_pair(tmp_path / "pair"))
    handing = read_folder(write_handing(tmp_path / "handing"))
    assert one.renewed == one.caches == {name for names in one.states for name in names}
    found = {folder.joined.owner(name) for folder in (pair, handing) for name in folder.renewed}
    assert found == {"decoder_model", "decoder_with_past_model", "decoder"}
    assert {name for name in handing.caches - handing.renewed if name.startswith("encoder/")} == {
        f"encoder/present.{layer}.encoder.{kind}" for layer in range(2) for kind in ("key", "value")
    }


def test_the_vocabulary_is_wherever_it_is(tmp_path: Path) -> None:
    folder = read_folder(write_pair(tmp_path / "pair"))
    places = {"decoder_model/embed.weight", "decoder_model/logits", "decoder_with_past_model/logits"}
    assert {*folder.vocabulary("vocab_size")} == places == {*folder.vocabulary("decoder_model/logits")}
    assert folder.vocabulary("encoder.0.up") == ()


def test_needed_tokens_without_a_tokenizer(tmp_path: Path) -> None:
    assert read_folder(write_decoder(tmp_path / "one")).needed([9, 3]) == (1, 2, 3, 9)


def test_graphs_of_one_name_are_called_by_their_folders(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "whole")
    (folder / "onnx").mkdir()
    encoder(Family()).save(folder / "onnx" / "model.onnx")
    encoder(Family()).save(folder / "onnx" / "encoder.onnx")
    read = read_folder(folder)
    assert {name: path.as_posix() for name, path in read.graphs.items()} == {
        "model": "model.onnx",
        "encoder": "onnx/encoder.onnx",
        "onnx.model": "onnx/model.onnx",
    }


def test_numbers_of_symbolic_caches(tmp_path: Path) -> None:
    """The builder of onnxruntime-genai leaves the size of a head open."""
    folder = write_decoder(tmp_path / "whole")
    proto = onnx.load(folder / "model.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        if "." in value.name:
            value.type.tensor_type.shape.dim[3].dim_param = "size_of_a_head"
    onnx.save(proto, folder / "model.onnx")
    assert read_folder(folder).sizes == {"size_of_a_head": 2}


def test_files_that_are_only_copied(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "whole")
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {}}}))
    (folder / "README.md").write_text("words")
    read = read_folder(folder)
    assert [path.name for path in read.others] == ["README.md", "tokenizer.json"] and read.tokenizer is not None


@pytest.mark.parametrize("text", ["{", "[1]", "\x00", '"a"'])
def test_a_tokenizer_that_is_no_json(tmp_path: Path, text: str) -> None:
    folder = write_decoder(tmp_path / "whole")
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(UsageError, match=r"not JSON|not a JSON object"):
        read_folder(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_folder(tmp_path / "none")


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize(("left", "right"), ["[]", ('{"a":', "}")])
def test_json_that_is_nested_deep_is_refused(tmp_path: Path, file: str, left: str, right: str) -> None:
    folder = write_decoder(tmp_path / "in")
    (folder / file).write_text('{"a": ' + left * 600 + "1" + right * 600 + "}")
    with pytest.raises(UsageError, match="nested deeper"):
        read_folder(folder)


def test_ids_of_tokens_that_no_table_has_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no id of a token"):
        read_folder(write_decoder(tmp_path / "in", eos_token_id=10**30)).needed([0])


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "in")
    (folder / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="cannot read"):
        read_folder(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes that have names")
def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A configuration that cannot be read would leave one out that the caches no longer fit."""
    folder = write_decoder(tmp_path / "in")
    (folder / "config.json").unlink()
    os.mkfifo(folder / "config.json")
    with pytest.raises(UsageError, match="no regular file"):
        read_folder(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").mkdir()
    with pytest.raises(UsageError, match="no regular file"):
        read_folder(folder)


def test_a_configuration_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    folder = write_decoder(tmp_path / "in")
    with (folder / "config.json").open("r+b") as file:
        file.truncate(1 << 30)
    with pytest.raises(UsageError, match="larger than 256 MiB"):
        read_folder(folder)
