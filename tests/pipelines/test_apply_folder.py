"""Plans carried out on folders: the folder that pruning or dropping writes, or a refusal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxprune
from onnxprune.errors import UsageError
from tests.graphs.folders import Family, generated, write_decoder, write_pair

TEXT = [5, 17, 3, 31, 22]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def read_again(plan: onnxprune.Plan) -> onnxprune.Plan:
    return onnxprune.Plan.from_json(plan.to_json())


@pytest.mark.parametrize("write", [write_decoder, write_pair])
def test_a_plan_gives_what_pruning_gives(tmp_path: Path, write: Callable[[Path, Family], Path]) -> None:
    """On a copy of the folder, too, and from the text of the plan."""
    source = write(tmp_path / "whole", Family(layers=1))
    plan = onnxprune.prune_folder(source, tmp_path / "small", 0.5).plan
    done = onnxprune.apply_folder(shutil.copytree(source, tmp_path / "copy"), read_again(plan), tmp_path / "again")
    assert done.verdict is not None and done.verdict.ok
    assert contents(tmp_path / "again") == contents(tmp_path / "small")
    onnxprune.apply_folder(source, onnxprune.plan_folder(source, 0.5), tmp_path / "small", verify=False, force=True)
    assert contents(tmp_path / "again") == contents(tmp_path / "small")


def test_words_go_by_a_plan(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole")
    asked = {"ratio": 0.0, "rows": {"vocab_size": [*TEXT, 9]}}
    onnxprune.prune_folder(source, tmp_path / "small", **asked)
    onnxprune.apply_folder(source, read_again(onnxprune.plan_folder(source, **asked)), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "small")
    assert json.loads((tmp_path / "again" / "config.json").read_text())["vocab_size"] == len({*TEXT, 9, 1, 2})


def test_layers_go_by_a_plan(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole", Family(layers=3))
    plan = read_again(onnxprune.drop_folder(source, tmp_path / "small", blocks=("layers.1",)).plan)
    onnxprune.apply_folder(source, plan, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "small")


def test_zeros_keep_the_configuration(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole")
    plan = read_again(onnxprune.plan_folder(source, 0.5))
    onnxprune.apply_folder(source, plan, tmp_path / "zeros", zero=True)
    onnxprune.apply_folder(source, plan, tmp_path / "small")
    assert (tmp_path / "zeros" / "config.json").read_bytes() == (source / "config.json").read_bytes()
    assert generated(tmp_path / "zeros", TEXT, 20)[0] == generated(tmp_path / "small", TEXT, 20)[0]


def other_weights(folder: Path) -> None:
    """Of one graph; another has a weight of the same name."""
    path = folder / "decoder_model.onnx"
    proto = onnx.load(path)
    weight = proto.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(1), weight.name))
    onnx.save(proto, path)


def no_encoder(folder: Path) -> None:
    (folder / "encoder_model.onnx").unlink()


def other_name(folder: Path) -> None:
    (folder / "encoder_model.onnx").rename(folder / "encoder.onnx")


OTHER_GRAPHS = "the plan was made for other graphs than those in {}: {}"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (other_weights, "decoder_model.onnx was changed"),
        (no_encoder, "encoder_model.onnx is missing"),
        (other_name, "encoder.onnx is not one of them, encoder_model.onnx is missing"),
    ],
)
def test_other_graphs_are_refused(tmp_path: Path, change: Callable[[Path], None], said: str) -> None:
    """By the names of the files, whether the plan was just made or read."""
    source = write_pair(tmp_path / "whole", Family(layers=1))
    plan = onnxprune.plan_folder(source, 0.5)
    change(shutil.copytree(source, tmp_path / "other"))
    for one in (plan, read_again(plan)):
        with pytest.raises(UsageError) as refused:
            onnxprune.apply_folder(tmp_path / "other", one, tmp_path / "small")
        assert refused.value.message == OTHER_GRAPHS.format(tmp_path / "other", said)
    assert not (tmp_path / "small").exists()


def test_one_graph_that_is_another_is_named(tmp_path: Path) -> None:
    source, other = write_decoder(tmp_path / "whole"), write_decoder(tmp_path / "other", Family(layers=1))
    with pytest.raises(UsageError) as refused:
        onnxprune.apply_folder(other, onnxprune.plan_folder(source, 0.5), tmp_path / "small")
    assert refused.value.message == OTHER_GRAPHS.format(other, "model.onnx is another one, or was changed")


def test_a_plan_that_does_not_name_its_files(tmp_path: Path) -> None:
    """As those were that were written before the plan had them."""
    source = write_pair(tmp_path / "whole", Family(layers=1))
    content = json.loads(onnxprune.plan_folder(source, 0.5).to_json())
    assert content["source"].pop("files").keys() == {"decoder_model", "decoder_with_past_model", "encoder_model"}
    plan = onnxprune.Plan.from_json(json.dumps(content))
    onnxprune.apply_folder(source, plan, tmp_path / "small")
    other_weights(source)
    with pytest.raises(UsageError, match="or before a graph was changed"):
        onnxprune.apply_folder(source, plan, tmp_path / "again")


def test_another_configuration_is_refused(tmp_path: Path) -> None:
    """One by which other groups are cut alike."""
    source = write_decoder(tmp_path / "whole")
    plan = read_again(onnxprune.plan_folder(source, 0.5))
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"intermediate_size": 1000}))
    with pytest.raises(UsageError, match="the plan does not fit"):
        onnxprune.apply_folder(source, plan, tmp_path / "small")


def test_a_plan_of_a_file_is_refused(tmp_path: Path) -> None:
    source = write_pair(tmp_path / "whole", Family(layers=1))
    plan = onnxprune.make_plan(source / "encoder_model.onnx", 0.5)
    with pytest.raises(UsageError, match="for a single file"):
        onnxprune.apply_folder(source, plan, tmp_path / "small")
