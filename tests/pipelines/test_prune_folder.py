"""Folders of graphs: one plan for all, caches and configuration that fit, the tokens of the masked original."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import OnnxPruneError, UsageError
from onnxprune.folder import Smaller, read_folder, write_folder
from onnxprune.pipelines.apply import execute
from onnxprune.pipelines.prune import Outcome
from tests.graphs.folders import (
    KINDS,
    Family,
    answered,
    generated,
    ran,
    session,
    translated,
    write_decoder,
    write_handing,
    write_pair,
)

TEXT = [5, 17, 3, 31, 22]


def config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def masked(source: Path, outcome: Outcome, target: Path) -> Path:
    """The folder with zeros for all that went, in its original size."""
    folder = read_folder(source)
    zeros = execute(folder.model(rows=bool(outcome.rows)), outcome.plan, zero=True).model
    write_folder(folder, Smaller(zeros), target)
    return target


def test_heads_and_widths_of_a_decoder(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole")
    outcome = onnxprune.prune_folder(source, tmp_path / "small", 0.5)
    assert outcome.verdict is not None and outcome.verdict.ok
    before, after = config(source), config(tmp_path / "small")
    halved = {"hidden_size": 4, "intermediate_size": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
    assert after == before | halved
    ids, cache = generated(tmp_path / "small", TEXT, 20)
    wanted, whole = generated(masked(source, outcome, tmp_path / "masked"), TEXT, 20)
    assert ids == wanted and cache == whole // 2
    assert len({*ids[5:]}) > 1 or ids[5] != TEXT[-1]
    assert ids != generated(source, TEXT, 20)[0], "the cut is seen"


def test_every_layer_chooses_its_own_heads(tmp_path: Path) -> None:
    """Budgets, too, take as many heads of each layer, and not the same ones."""
    source = write_decoder(tmp_path / "whole", Family(layers=4, key_heads=8))
    outcome = onnxprune.prune_folder(source, tmp_path / "small", params="60%")
    widths = {v.name: v.type.tensor_type.shape.dim[1].dim_value for v in outcome.model.proto.graph.input[1:]}
    assert len({*widths.values()}) == 1 and config(tmp_path / "small")["num_key_value_heads"] in widths.values()
    removal = outcome.plan.masks(read_folder(source).model(rows=False))
    kept = {tuple(removal[f"layers.{layer}.key"].any(axis=0)) for layer in range(4) if f"layers.{layer}.key" in removal}
    assert len(kept) > 1


def test_without_a_size_of_heads_they_go_in_proportion_to_the_stream(tmp_path: Path) -> None:
    family = Family(stream=16, heads=8, key_heads=8, size=2)
    source = write_decoder(tmp_path / "whole", family, head_dim="")
    outcome = onnxprune.prune_folder(source, tmp_path / "small", 0.25)
    after = config(tmp_path / "small")
    assert (after["hidden_size"], after["num_attention_heads"], after["intermediate_size"]) == (12, 6, 9)
    ids, cache = generated(tmp_path / "small", TEXT, 20)
    wanted, whole = generated(masked(source, outcome, tmp_path / "masked"), TEXT, 20)
    assert ids == wanted and cache == whole * 3 // 4


@pytest.mark.parametrize("apart", [False, True])
def test_encoder_and_decoders_are_cut_alike(tmp_path: Path, apart: bool) -> None:
    """With weights in files of their own, too, which keep their names."""
    source = write_pair(tmp_path / "whole")
    for path in [*source.glob("*.onnx")] if apart else ():
        how = {"save_as_external_data": True, "size_threshold": 100, "location": f"{path.name}_data"}
        onnx.save(onnx.load(path), path, **how)
    outcome = onnxprune.prune_folder(source, tmp_path / "small", 0.5)
    assert outcome.verdict is not None and outcome.verdict.ok
    assert config(tmp_path / "small")["num_key_value_heads"] == 2
    assert {p.name for p in (tmp_path / "small").iterdir()} == {p.name for p in source.iterdir()}
    ids, cache = translated(tmp_path / "small", TEXT, 12)
    wanted, whole = translated(masked(source, outcome, tmp_path / "masked"), TEXT, 12)
    assert ids == wanted and cache == whole // 2
    assert ids != translated(source, TEXT, 12)[0]


def test_caches_that_the_encoder_hands_out(tmp_path: Path) -> None:
    source = write_handing(tmp_path / "whole")
    outcome = onnxprune.prune_folder(source, tmp_path / "small", 0.5)
    assert outcome.verdict is not None and outcome.verdict.ok
    before, after = (json.loads((p / "genai_config.json").read_text())["model"] for p in (source, tmp_path / "small"))
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    assert after == before | {name: before[name] | heads for name in ("decoder", "encoder")}
    ids, cache = answered(tmp_path / "small", TEXT, 20)
    wanted, whole = answered(masked(source, outcome, tmp_path / "masked"), TEXT, 20)
    assert ids == wanted != answered(source, TEXT, 20)[0] and cache == whole // 2


def test_equal_weights_are_one_whatever_they_are_called(tmp_path: Path) -> None:
    source = write_pair(tmp_path / "whole")
    path = source / "decoder_with_past_model.onnx"
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("layers.0"):
            for node in proto.graph.node:
                node.input[:] = [f"other.{i}" if i == tensor.name else i for i in node.input]
            tensor.name = f"other.{tensor.name}"
    onnx.save(proto, path)
    outcome = onnxprune.prune_folder(source, tmp_path / "small", 0.5)
    names = {t.name for t in onnx.load(tmp_path / "small" / path.name).graph.initializer}
    assert {"other.layers.0.up", "layers.1.up"} <= names
    assert translated(tmp_path / "small", TEXT, 8)[0] == translated(masked(source, outcome, tmp_path / "m"), TEXT, 8)[0]


@pytest.mark.parametrize("tied", [True, False])
def test_the_vocabulary_is_cut_by_name_alone(tmp_path: Path, tied: bool) -> None:
    """Even where every output may shrink; then wherever it is."""
    source = write_decoder(tmp_path / "whole", Family(tied=tied))
    onnxprune.prune_folder(source, tmp_path / "small", 0.5, allow_io_changes=True)
    assert config(tmp_path / "small")["vocab_size"] == 40
    outcome = onnxprune.prune_folder(source, tmp_path / "words", 0.0, rows={"vocab_size": [*TEXT, 9]})
    after = config(tmp_path / "words")
    kept = sorted({*TEXT, 9, 1, 2})
    assert (after["vocab_size"], after["bos_token_id"], after["eos_token_id"]) == (len(kept), 0, [1])
    assert {table.kept for table in outcome.rows} == {tuple(kept)}
    before, ids = (session(tmp_path / name / "model.onnx") for name in ("whole", "words"))
    empty = {f"past_key_values.{i}.{kind}": np.zeros((1, 4, 0, 2), np.float32) for i in (0, 1) for kind in KINDS}
    old = ran(before, empty | {"input_ids": np.array([[*TEXT]])})["logits"][..., kept]
    new = ran(ids, empty | {"input_ids": np.array([[kept.index(i) for i in TEXT]])})["logits"]
    np.testing.assert_allclose(new, old, atol=1e-5)


def test_a_width_stays_where_an_output_has_it(tmp_path: Path) -> None:
    """An output of the stream that no graph of the folder is given: its size is that of the configuration."""
    source = write_pair(tmp_path / "whole")
    proto = onnx.load(source / "encoder_model.onnx")
    proto.graph.node.add(op_type="Identity", input=["last_hidden_state"], output=["hidden_states"])
    shape = proto.graph.output[0].type
    proto.graph.output.add(name="hidden_states").type.CopyFrom(shape)
    onnx.save(proto, source / "encoder_model.onnx")
    outcome = onnxprune.prune_folder(source, tmp_path / "small", 0.5)
    after = config(tmp_path / "small")
    assert (after["hidden_size"], after["num_key_value_heads"], after["intermediate_size"]) == (8, 2, 6)
    assert "graph output 'encoder_model/hidden_states'" in {barrier.reason for barrier in outcome.groups.barriers}


def test_genai_configuration(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole")
    (source / "config.json").unlink()
    inner = {"head_size": 2, "hidden_size": 8, "num_attention_heads": 8, "num_key_value_heads": 4}
    told = {"model": {"decoder": inner | {"filename": "model.onnx"}, "eos_token_id": 2, "vocab_size": 40}, "search": {}}
    (source / "genai_config.json").write_text(json.dumps(told, indent=4))
    onnxprune.prune_folder(source, tmp_path / "small", 0.5)
    after = json.loads((tmp_path / "small" / "genai_config.json").read_text())
    halved = {"hidden_size": 4, "num_attention_heads": 4, "num_key_value_heads": 2}
    assert after == told | {"model": told["model"] | {"decoder": inner | halved | {"filename": "model.onnx"}}}
    assert '\n    "model"' in (tmp_path / "small" / "genai_config.json").read_text(), "indented as it was"


def no_graph(folder: Path) -> None:
    (folder / "model.onnx").unlink()


def no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def list_of_json(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def link_out(folder: Path) -> None:
    (folder.parent / "secret").write_text("x")
    (folder / "tokenizer.model").symlink_to(folder.parent / "secret")


def there(folder: Path) -> None:
    (folder.parent / "small").mkdir()


def other_opset(folder: Path) -> None:
    proto = onnx.load(folder / "model.onnx")
    proto.opset_import[0].version = 16
    onnx.save(proto, folder / "other.onnx")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (no_graph, "no graph in"),
        (no_json, "config.json is not JSON"),
        (list_of_json, "not a JSON object"),
        (link_out, "is a link out of its folder"),
        (there, "small exists"),
        (other_opset, "version"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_written(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    source = write_decoder(tmp_path / "whole")
    spoil(source)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(OnnxPruneError, match=said):
        onnxprune.prune_folder(source, tmp_path / "small", 0.5)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_unknown_glob(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no input or output is called 'nothing'"):
        onnxprune.prune_folder(write_decoder(tmp_path / "whole"), tmp_path / "small", allow_io_changes=["nothing"])
