"""Absurd options, files and modules: each one clear error, never exit code 70, and never half of the outputs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxprune
from onnxprune import api
from onnxprune.allocation import Options
from onnxprune.calibration import script
from onnxprune.calibration.preprocess import preprocess_of
from onnxprune.cli import main, paths
from onnxprune.errors import ModelError, RunError, Terminated, UsageError
from onnxprune.model import load
from onnxprune.pipelines import Sensitivity
from onnxprune.recovery import RecoveryOptions as Recovery
from tests.graphs.net import Net, prune

DEEP = 20_000


@pytest.fixture
def mlp() -> onnx.ModelProto:
    net = Net()
    hidden = net.add("Relu", net.add("MatMul", net.input(["batch", 6], "x"), net.weight(6, 8, name="w1")))
    net.output(net.add("MatMul", hidden, net.weight(8, 4, name="w2"), name="y"), ["batch", 4])
    return net.proto()


@pytest.fixture
def folder(tmp_path: Path, mlp: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder, with a model, inputs for it and a plan."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    onnx.save(mlp, "m.onnx")
    np.savez("d.npz", x=np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32))
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        if name.startswith("users_"):
            del sys.modules[name]


def refused(code: int, text: str, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
    """The command ends with `code` and one error, and writes no model."""
    capsys.readouterr()
    assert main(arguments) == code
    said = capsys.readouterr().err
    assert text in said
    assert sum(line.startswith("error: ") for line in said.splitlines()) == 1
    assert not Path("o.onnx").exists()


PRUNE = ("prune", "m.onnx", "-o", "o.onnx")


# --- options ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--seed", "-1"), "--seed"),
        (("--round-to", "99999999999999999999"), "round_to is 99999999999999999999"),
        (("--round-to", "4294967296"), "round_to is 4294967296"),
        (("--steps", "99999999999999999999"), "steps is 99999999999999999999"),
        (("--ratio", "nan"), "ratio is nan"),
        (("--ratio", "inf"), "ratio is inf"),
        (("--macs", "50%", "--max-ratio", "nan%"), "max_ratio is nan"),
        (("--criterion", "ensemble:"), "no criterion is called ''"),
        (("--criterion", "ensemble:l2,"), "no criterion is called ''"),
        (("--criterion", ""), "no criterion is called ''"),
        (("--plan-out", "./o.onnx"), "two outputs cannot both be written to"),
    ],
)
def test_values_out_of_range_are_usage_errors(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    refused(2, text, capsys, *PRUNE, *arguments)


@pytest.mark.parametrize("options", [{"seed": -1}, {"round_to": 1 << 40}, {"round_to": True + 1 << 62}])
def test_values_out_of_range_are_errors_in_python_too(mlp: onnx.ModelProto, options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        onnxprune.prune(mlp, 0.5, "random", **options)


# --- deep nesting -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "before", "after"),
    [
        ("recipe.toml", "a=" + "[" * DEEP, ("--config", "recipe.toml"), ()),
        ("recipe.toml", "[prune]\nratio=" + "[" * DEEP, ("--config", "recipe.toml"), ()),
        ("feeds.json", "[" * DEEP, (), ("--data", "feeds.json")),
        ("ids.json", "[" * DEEP, (), ("--rows", "y=ids.json")),
    ],
)
def test_deep_nesting_is_refused(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: str,
    before: tuple[str, ...],
    after: tuple[str, ...],
) -> None:
    Path(name).write_text(content)
    refused(2, name, capsys, *before, *PRUNE, *after)


def _deep(name: str, start: str) -> str:
    Path(name).write_text(start + "[" * DEEP)
    return name


def test_deep_nesting_in_a_plan_and_in_a_cache(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("deep.json").write_text("[" * DEEP)
    refused(2, "the plan is not JSON", capsys, "apply", "m.onnx", "deep.json", "-o", "o.onnx")
    refused(2, "deep.json is no file", capsys, "sensitivity", "m.onnx", "--data", "d.npz", "--cache", "deep.json")
    with pytest.raises(UsageError, match="is not TOML"):
        preprocess_of(_deep("how.toml", "a="), folder, "raw")
    with pytest.raises(UsageError, match="not a sensitivity report"):
        Sensitivity.from_json("[" * DEEP)


# --- a user's code ------------------------------------------------------------------------------------------

ENDS = ("raise SystemExit(0)", "raise SystemExit", "import sys; sys.exit(7)", "raise BaseException('x')")


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("where", ["import", "call", "feed"])
def test_a_module_that_ends_the_program_is_an_error(
    folder: Path, capsys: pytest.CaptureFixture[str], end: str, where: str
) -> None:
    body = {"import": f"{end}\ndef f(): pass", "call": f"def f():\n  {end}", "feed": f"def f():\n  {end}\n  yield 1"}
    Path("users_feeds.py").write_text(body[where])
    refused(4, "users_feeds:f failed: ", capsys, *PRUNE, "--data", "users_feeds:f")


@pytest.mark.parametrize("end", ENDS)
def test_a_measure_that_ends_the_program_is_an_error(folder: Path, end: str) -> None:
    from onnxprune.pipelines import Evaluation

    Path("users_measure.py").write_text(f"def f(path):\n  {end}")
    with pytest.raises(RunError, match="users_measure:f failed"):
        Evaluation("users_measure:f").of_file("m.onnx")
    Path("users_package").mkdir()
    Path("users_package/__init__.py").write_text(end)
    with pytest.raises(RunError, match=r"users_package\.inner:f failed"):
        _ = Evaluation("users_package.inner:f").digest


def test_a_measure_beyond_all_numbers_is_an_error() -> None:
    from onnxprune.pipelines import Evaluation

    with pytest.raises(RunError, match="is no number"):
        Evaluation(lambda path: 10**400).of_file("m.onnx")


@pytest.mark.parametrize("end", [KeyboardInterrupt(), Terminated(143)])
def test_an_interrupt_ends_a_users_code(end: BaseException) -> None:
    with pytest.raises(type(end)), script.guarded("f"):
        raise end


# --- text that is not UTF-8 ---------------------------------------------------------------------------------

ODD = b"MARK\xc3\x28ER"


def marked() -> dict[str, onnx.ModelProto]:
    """Models with `MARKHERE` in one text field each."""
    found = {}

    def model(name: str) -> onnx.ModelProto:
        net = Net()
        hidden = net.add("MatMul", net.input([1, 4], "x"), net.weight(4, 8, name="a"))
        net.output(net.add("MatMul", hidden, net.weight(8, 3, name="b"), name="y"), [1, 3])
        found[name] = net.proto()
        return found[name]

    model("producer").producer_name = "MARKHERE"
    model("version").producer_version = "MARKHERE"
    model("domain").domain = "MARKHERE"
    model("doc").doc_string = "MARKHERE"
    model("property").metadata_props.add(key="k", value="MARKHERE")
    model("opset").opset_import.add(domain="MARKHERE", version=1)
    model("graph").graph.name = "MARKHERE"
    model("graph doc").graph.doc_string = "MARKHERE"
    model("node doc").graph.node[0].doc_string = "MARKHERE"
    model("node").graph.node[0].name = "MARKHERE"
    model("weight doc").graph.initializer[0].doc_string = "MARKHERE"
    model("weight property").graph.initializer[0].metadata_props.add(key="MARKHERE", value="v")
    model("size").graph.input[0].type.tensor_type.shape.dim[0].dim_param = "MARKHERE"
    model("denotation").graph.input[0].type.denotation = "MARKHERE"
    model("note").graph.value_info.append(helper.make_tensor_value_info("MARKHERE", TensorProto.FLOAT, [1, 8]))
    note = model("quantisation").graph.quantization_annotation.add(tensor_name="MARKHERE")
    note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="a")
    node = model("attribute").graph.node[0]
    node.attribute.append(helper.make_attribute("alpha", 1.0, doc_string="MARKHERE"))
    function = helper.make_function("own", "F", ["p"], ["q"], [helper.make_node("Relu", ["p"], ["q"])], [])
    function.opset_import.append(helper.make_opsetid("", 17))
    function.doc_string = "MARKHERE"
    model("function").functions.append(function)
    return found


@pytest.mark.parametrize(("name", "proto"), marked().items())
def test_text_that_is_not_utf8_is_refused_wherever_it_stands(name: str, proto: onnx.ModelProto) -> None:
    content = proto.SerializeToString()
    assert b"MARKHERE" in content
    with pytest.raises(ModelError, match="is not UTF-8 text"):
        load(content.replace(b"MARKHERE", ODD))


@pytest.mark.parametrize("verb", [("inspect",), ("prune", "-o", "o.onnx"), ("init",)])
def test_commands_refuse_text_that_is_not_utf8(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: tuple[str, ...]
) -> None:
    Path("odd.onnx").write_bytes(marked()["producer"].SerializeToString().replace(b"MARKHERE", ODD))
    refused(3, "'producer_name' of a ModelProto is not UTF-8 text", capsys, *verb, "odd.onnx")


# --- outputs appear together, or none -----------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_a_plan_that_cannot_be_written_leaves_no_model(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    refused(4, "disk full while writing /dev/full", capsys, *PRUNE, "--plan-out", "/dev/full")


def test_a_model_that_cannot_be_written_leaves_no_plan(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any, **more: Any) -> None:
        raise RunError("disk full while writing o.onnx")

    monkeypatch.setattr("onnxprune.model.save", fails)
    Path("older.json").write_text("older")
    refused(4, "disk full", capsys, *PRUNE, "--plan-out", "p.json")
    assert not Path("p.json").exists()
    refused(4, "disk full", capsys, *PRUNE, "--plan-out", "older.json", "--force")
    assert Path("older.json").read_text() == "older"
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]


def test_texts_appear_together(folder: Path) -> None:
    with paths.staged({"one.json": "1", "two.json": "2"}):
        assert not Path("one.json").exists()
    assert (Path("one.json").read_text(), Path("two.json").read_text()) == ("1", "2")
    with pytest.raises(KeyError), paths.staged({"one.json": "3"}):
        raise KeyError
    assert Path("one.json").read_text() == "1"


# --- graphs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slot", [1, 2, 3, 4])
def test_a_norm_that_contradicts_itself_is_the_models_fault(
    folder: Path, capsys: pytest.CaptureFixture[str], slot: int
) -> None:
    net = Net()
    x = net.add("Conv", net.input([1, 3, 4, 4], "x"), net.weight(6, 3, 1, 1, name="w0"))
    x = net.add("Conv", net.add("Relu", x), net.weight(8, 6, 1, 1, name="w1"))
    given = [net.const(np.ones(24 if slot == i else 8, np.float32)) for i in range(1, 5)]
    x = net.add("BatchNormalization", x, *given)
    net.outputs.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 4, 4]))
    net.add("Conv", x, net.weight(4, 8, 1, 1, name="w2"), name="y")
    onnx.save(net.proto(), "odd.onnx")
    refused(3, "BatchNormalization", capsys, "prune", "odd.onnx", "-o", "o.onnx")


METHODS = ("none", "bias", "affine", "merge", "least-squares", "one-pass", "joint", "batchnorm")


def positions(kind: str) -> onnx.ModelProto:
    """A layer of which positions, not channels, are cut."""
    net = Net()
    if kind == "conv":
        x = net.add("Relu", net.add("MatMul", net.input(["n", 3, 6], "x"), net.weight(6, 8, name="w")))
        x = net.add("Conv", x, net.weight(5, 3, 1, name="k"))
        net.output(net.add("MatMul", x, net.weight(8, 2, name="v"), name="y"), ["n", 5, 2])
    elif kind == "product":
        x = net.add("Relu", net.add("MatMul", net.input(["n", 3, 6], "x"), net.weight(6, 8, name="w")))
        x = net.add("MatMul", net.add("Transpose", x, perm=[0, 2, 1]), net.weight(3, 5, name="k"))
        x = net.add("Transpose", x, perm=[0, 2, 1])
        net.output(net.add("MatMul", x, net.weight(8, 2, name="v"), name="y"), ["n", 5, 2])
    elif kind == "plane":
        x = net.add("Relu", net.add("MatMul", net.input(["n", 3, 4, 6], "x"), net.weight(6, 8, name="w")))
        x = net.add("Conv", x, net.weight(5, 3, 1, 1, name="k"))
        net.output(net.add("MatMul", x, net.weight(8, 2, name="v"), name="y"), ["n", 5, 4, 2])
    else:
        x = net.add("Relu", net.add("MatMul", net.input(["n", 3, 6], "x"), net.weight(6, 8, name="w")))
        ones = [net.const(np.ones(3, np.float32)) for _ in range(4)]
        x = net.add("Conv", net.add("BatchNormalization", x, *ones), net.weight(5, 3, 1, name="k"))
        net.output(net.add("MatMul", x, net.weight(8, 2, name="v"), name="y"), ["n", 5, 2])
    return net.proto()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["conv", "product", "plane", "norm"])
def test_a_layer_that_loses_positions_is_not_fitted(kind: str, method: str) -> None:
    proto = positions(kind)
    shape = [2, *(d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim[1:])]
    data = [{"x": np.random.default_rng(i).standard_normal(shape).astype(np.float32)} for i in range(8)]
    for given in (data, None):
        outcome = api.run(load(proto), Options(ratio=0.5), data=given, recovery=Recovery(method))
        assert outcome.verdict is not None
        assert outcome.verdict.ok, outcome.verdict.problem


@pytest.mark.parametrize("behind", ["QuantizeLinear", "Identity", "Relu"])
def test_numbers_that_come_through_a_sequence_are_quantised(behind: str) -> None:
    """No type is known of what cannot be followed."""
    net = Net()
    x = net.input(["n", 6], "x")
    hidden = net.add("Relu", net.add("MatMul", x, net.weight(6, 8, name="w")))
    net.output(net.add("MatMul", hidden, net.weight(8, 2, name="v"), name="y"), ["n", 2])
    scale, zero = net.const(np.float32(0.1)), net.const(np.int8(0))
    parts = net.add("SplitToSequence", x, axis=1, keepdims=1)
    x = net.add("ConcatFromSequence", parts, axis=1)
    x = net.add("QuantizeLinear", x if behind == "QuantizeLinear" else net.add(behind, x), scale, zero)
    x = net.add("DequantizeLinear", x, scale, zero)
    net.output(x, ["n", 6])
    outcome = prune(net.proto())
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert json.loads(outcome.plan.to_json())
