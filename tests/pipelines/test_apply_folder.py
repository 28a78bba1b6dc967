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
    path = next(folder.glob("*.onnx"))
    proto = onnx.load(path)
    weight = proto.graph.initializer[0]
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) + np.float32(1), weight.name))
    onnx.save(proto, path)


def no_encoder(folder: Path) -> None:
    (folder / "encoder_model.onnx").unlink()


def other_name(folder: Path) -> None:
    (folder / "encoder_model.onnx").rename(folder / "encoder.onnx")


@pytest.mark.parametrize("change", [other_weights, no_encoder, other_name])
def test_other_graphs_are_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    source = write_pair(tmp_path / "whole", Family(layers=1))
    plan = read_again(onnxprune.plan_folder(source, 0.5))
    change(source)
    with pytest.raises(UsageError, match="the plan was made for other graphs than those in"):
        onnxprune.apply_folder(source, plan, tmp_path / "small")
    assert not (tmp_path / "small").exists()


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
