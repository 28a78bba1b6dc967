"""The pass of Olive: with a stand-in of what it needs of Olive, and in a workflow of Olive itself where that is."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import keywords
from onnxprune.api import PruneResult
from onnxprune.model import load
from onnxprune.runtime import Session

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "pipelines.md"
DIGITS, DATA = (str(ROOT / "models" / name) for name in ("digits.onnx", "digits_calibration.npz"))
EXTERNAL = {"save_as_external_data": False}


# --- a stand-in -------------------------------------------------------------------------------------------


@dataclasses.dataclass
class PassConfigParam:
    """As Olive 0.13 has it: the fields that are given, and no others."""

    type_: Any
    default_value: Any = None
    required: bool = False
    description: str | None = None


class Pass:
    """What Olive 0.13 does with a pass: a class per JSON, with a value for every parameter, and none else."""

    def __init__(self, accelerator_spec: Any, config: Any, host_device: Any = None) -> None:
        self.config = config

    @classmethod
    def from_json(cls, **given: Any) -> Pass:
        known = cls._default_config(None)  # type: ignore[attr-defined]
        assert set(given) <= set(known), "Olive refuses what is no parameter"
        values = {name: given.get(name, param.default_value) for name, param in known.items()}
        return cls(None, types.SimpleNamespace(model_dump=lambda: dict(values), **values))

    def run(self, model: Any, output_model_path: str) -> Any:
        return self._run_for_config(model, self.config, output_model_path)  # type: ignore[attr-defined]


@dataclasses.dataclass
class Handler:
    model_path: str


def written(proto: onnx.ModelProto, path: str, external: Any) -> Handler:
    assert external.model_dump()["save_as_external_data"] is False
    onnx.save(proto, path)
    return Handler(path)


def stand_ins(packages: Path) -> dict[str, dict[str, Any]]:
    config = types.SimpleNamespace(get_default_config_path=lambda: str(packages))
    external = {name: PassConfigParam(bool, value) for name, value in EXTERNAL.items()}
    return {
        "olive": {},
        "olive.model": {"ONNXModelHandler": Handler},
        "olive.model.utils": {"resolve_onnx_path": lambda path: f"{path}/model.onnx"},
        "olive.package_config": {"OlivePackageConfig": config},
        "olive.passes": {"Pass": Pass},
        "olive.passes.onnx": {},
        "olive.passes.onnx.common": {
            "get_external_data_config": lambda: external,
            "model_proto_to_olive_model": written,
        },
        "olive.passes.pass_config": {"BasePassConfig": object, "PassConfigParam": PassConfigParam},
    }


@pytest.fixture
def olive_pass(monkeypatch, tmp_path):
    """The module, on the stand-in."""
    packages = tmp_path / "olive_config.json"
    packages.write_text(json.dumps({"passes": {"Other": {"module_path": "a.Other"}}, "extra_dependencies": {}}))
    for name, content in stand_ins(packages).items():
        module = types.ModuleType(name)
        module.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "onnxprune.olive_pass", raising=False)
    yield importlib.import_module("onnxprune.olive_pass")
    sys.modules.pop("onnxprune.olive_pass", None)


def test_parameters_are_those_of_prune(olive_pass):
    """Each that a JSON can hold, with the type, the default and the meaning that it has there."""
    own = inspect.signature(onnxprune.prune).parameters
    parameters = {p.name: p for p in olive_pass.prune_parameters()}
    listed = get_type_hints(keywords.UnitKeywords)
    assert set(parameters) == (set(own) | set(listed)) - set(olive_pass.OBJECTS)
    assert parameters["keep"].kind == listed["keep"] and parameters["data"].kind is str
    assert parameters["samples"].default == own["samples"].default and parameters["heads"].default is True
    fields = {field.name for field in dataclasses.fields(onnxprune.Options)}
    assert set(listed) <= fields and all(p.description for p in parameters.values())
    assert parameters["macs"].description.startswith("budget on multiply-accumulates")
    assert parameters["recovery"].description in " ".join(str(onnxprune.prune.__doc__).split())
    known = olive_pass.OnnxPrune._default_config(None)
    assert set(known) == {*parameters, *EXTERNAL} and known["max_ratio"].default_value == 0.9


def test_it_prunes_as_prune_does(olive_pass, tmp_path, caplog):
    given = {"macs": "50%", "data": DATA, "keep": ["fc*"], "samples": 64}
    with caplog.at_level("INFO", "olive.onnxprune"):
        (tmp_path / "out").mkdir()
        made = olive_pass.OnnxPrune.from_json(**given).run(Handler(DIGITS), str(tmp_path / "out"))
    wanted: PruneResult = onnxprune.prune(DIGITS, **given)
    assert made.model_path.endswith("out/model.onnx")
    assert onnx.load(made.model_path).SerializeToString() == wanted.model.SerializeToString()
    assert "equal to the masked original" in caplog.text and "budget" in caplog.text


def test_a_missed_budget_is_warned_about(olive_pass, tmp_path, caplog):
    (tmp_path / "out").mkdir()
    olive_pass.OnnxPrune.from_json(params="1%", criterion="l2").run(Handler(DIGITS), str(tmp_path / "out"))
    assert "the budget on params is missed" in caplog.text


def test_a_wrong_option_is_an_error(olive_pass, tmp_path):
    with pytest.raises(onnxprune.errors.UsageError, match=r"ratio is 1\.5"):
        olive_pass.OnnxPrune.from_json(ratio=1.5).run(Handler(DIGITS), str(tmp_path))


def test_the_list_of_passes(olive_pass):
    packages = olive_pass.package_config()
    assert packages["passes"]["Other"] == {"module_path": "a.Other"} and "extra_dependencies" in packages
    path, _, name = packages["passes"]["OnnxPrune"]["module_path"].rpartition(".")
    assert getattr(importlib.import_module(path), name) is olive_pass.OnnxPrune


def test_without_olive_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "olive", None)
    monkeypatch.setitem(sys.modules, "olive.model", None)
    monkeypatch.delitem(sys.modules, "onnxprune.olive_pass", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'onnxprune\[olive\]'"):
        importlib.import_module("onnxprune.olive_pass")


# --- Olive itself -----------------------------------------------------------------------------------------


def block(language: str, holding: str) -> str:
    """The one block of the page with a text in it."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (text,) = [text for text in found if holding in text]
    return text


def test_a_workflow_of_olive(tmp_path):
    """The workflow of the page: pruned by this pass, then quantised by Olive's own."""
    pytest.importorskip("olive.package_config", reason="olive-ai is not installed")
    (tmp_path / "workflow.json").write_text(block("json", "OnnxPrune"), encoding="utf-8")
    (tmp_path / "digits_data.py").write_text(block("python", "register_dataset"), encoding="utf-8")
    for name in (DIGITS, DATA):
        shutil.copy(name, tmp_path)
    for command in (
        ["-m", "onnxprune.olive_pass", "packages.json"],
        ["-m", "olive", "run", "--config", "workflow.json", "--package-config", "packages.json", "--disable_telemetry"],
    ):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    made = tmp_path / "pruned_and_quantised" / "model.onnx"
    assert "equal to the masked original" in done.stdout + done.stderr
    assert any(node.op_type == "QuantizeLinear" for node in onnx.load(made).graph.node)
    assert made.stat().st_size < 0.2 * Path(DIGITS).stat().st_size
    with np.load(str(ROOT / "models" / "digits_test.npz")) as test, Session(load(str(made))) as session:
        (logits,) = session.run({"image": test["image"]})
        assert float(np.mean(np.argmax(logits, -1) == test["label"])) > 0.97
