"""Models as other libraries hold them: onnx_ir, and objects with a message such as torch's exporter returns."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import foreign, load, same_kind, save
from tests.graphs.net import run

MODELS = Path(__file__).parents[2] / "models"
ir = pytest.importorskip("onnx_ir")


@dataclass(frozen=True)
class Program:
    """What an exporter returns."""

    model_proto: object


def test_a_model_of_onnx_ir_in_and_out():
    path = MODELS / "digits.onnx"
    original, given = load(path), ir.load(path)
    model = load(given)
    assert model.path is None and [n.op_type for n in model.proto.graph.node] == [
        n.op_type for n in original.proto.graph.node
    ]
    assert {name: value.tobytes() for name, value in run(model).items()} == {
        name: value.tobytes() for name, value in run(original).items()
    }
    back = same_kind(model, given)
    assert isinstance(back, ir.Model) and load(back).proto == model.proto


def test_pruning_gives_what_pruning_the_file_gives():
    path = MODELS / "digits.onnx"
    from_file = onnxprune.prune(str(path), ratio=0.5).model
    from_ir = onnxprune.prune(ir.load(path), ratio=0.5).model
    assert isinstance(from_file, onnx.ModelProto) and isinstance(from_ir, ir.Model)
    one, other = (load(source) for source in (from_file, from_ir))
    assert one.initializers.keys() == other.initializers.keys()
    assert all(np.array_equal(one.array(name), other.array(name)) for name in one.initializers)


def test_external_data_of_onnx_ir_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save(load(MODELS / "digits.onnx"), tmp_path / "big.onnx", external="big.bin")
    given = ir.load(tmp_path / "big.onnx")
    monkeypatch.chdir("/")
    model = load(given)
    assert model.external and model.folder == tmp_path
    assert np.array_equal(model.array("conv.weight"), load(MODELS / "digits.onnx").array("conv.weight"))
    report = onnxprune.prune(given, ratio=0.5).report
    assert report.after.params < report.before.params
    (tmp_path / "big.bin").unlink()
    with pytest.raises((ModelError, UsageError), match=r"big\.bin"):
        load(given)


def test_folders_of_onnx_ir_that_differ_are_none(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(load(MODELS / "digits.onnx"), tmp_path / name / "m.onnx", external="m.bin")
    first, second = (ir.load(tmp_path / name / "m.onnx") for name in ("a", "b"))
    assert foreign.folder_of(first) == tmp_path / "a"
    first.graph.initializers["fc.weight"].const_value = second.graph.initializers["fc.weight"].const_value
    assert foreign.folder_of(first) is None


def test_what_an_exporter_returns():
    proto = onnx.load(MODELS / "digits.onnx")
    assert load(Program(proto)).digest == load(proto).digest
    assert isinstance(onnxprune.prune(Program(proto), ratio=0.5).model, onnx.ModelProto)
    for other in (Program("text"), Program(None), ir):
        with pytest.raises(UsageError, match="cannot load a model from") as refused:
            load(other)
        assert "what torch.onnx.export returns" in refused.value.hint


def test_no_library_is_imported_for_a_file():
    code = (
        "import sys, onnxprune; onnxprune.prune(sys.argv[1], ratio=0.5); "
        "print([name for name in ('onnx_ir', 'onnx_graphsurgeon', 'torch') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(MODELS / "digits.onnx")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
