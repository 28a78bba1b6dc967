"""The user's own training between rounds: a command or function whose weights are taken, and whose graph is checked."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnxprune
from onnxprune.errors import RunError, UsageError
from onnxprune.model import load
from onnxprune.pipelines.user_training import UserTraining
from tests.cli.conftest import Run, run

__all__ = ["run"]
MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA = MODELS / "digits.onnx", MODELS / "digits_calibration.npz"
# Doubles the biases of what it is given.
SCRIPT = """
import sys, onnx
from onnx import numpy_helper
model = onnx.load(sys.argv[1])
for tensor in model.graph.initializer:
    if len(tensor.dims) == 1:
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
print("training ...")
onnx.save(model, sys.argv[2])
"""


def doubled(proto: onnx.ModelProto) -> onnx.ModelProto:
    for tensor in proto.graph.initializer:
        if len(tensor.dims) == 1:
            tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    return proto


def arrays(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}


@pytest.mark.parametrize("data", [None, DATA])
def test_weights_are_taken(data: Path | None) -> None:
    plain = onnxprune.prune(DIGITS, 0.5, "l2", data=data)
    tuned = onnxprune.prune(DIGITS, 0.5, "l2", data=data, fine_tune=doubled)
    before, after = arrays(plain.model), arrays(tuned.model)
    assert before.keys() == after.keys() and tuned.report.tuned == "doubled"
    for name, array in before.items():
        assert np.array_equal(after[name], 2 * array if array.ndim == 1 else array)
    assert (tuned.report.judged is None) == (data is None)
    if data is not None:
        assert tuned.report.judged.error > plain.report.judged.error, "it is judged as it came back"


def test_every_round_trains() -> None:
    seen: list[list[int]] = []

    def count(proto: onnx.ModelProto) -> onnx.ModelProto:
        seen.append(list(proto.graph.initializer[0].dims))
        return proto

    result = onnxprune.prune(DIGITS, 0.5, "l2", data=DATA, steps=3, fine_tune=count)
    assert len(seen) == 3 and seen[0][0] > seen[1][0] > seen[2][0]
    assert onnxprune.verify(DIGITS, onnxprune.apply(DIGITS, result.plan), result.plan).ok


def test_a_command(run: Run, tmp_path: Path) -> None:
    script = tmp_path / "ft.py"
    script.write_text(SCRIPT)
    given = ("prune", DIGITS, "-r", 0.5, "--data", DATA, "-o")
    assert run(*given, tmp_path / "plain.onnx").code == 0
    command = f"{sys.executable} {script} {{model}} {{output}}"
    ran = run(*given, tmp_path / "tuned.onnx", "--fine-tune-command", command, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["fine_tuned_by"] == command, "what the command prints is no part of the report"
    before, after = (arrays(onnx.load(tmp_path / f"{name}.onnx")) for name in ("plain", "tuned"))
    assert all(np.array_equal(after[n], 2 * a if a.ndim == 1 else a) for n, a in before.items())
    said = run(*given, tmp_path / "again.onnx", "--fine-tune-command", command)
    assert f"trained  by {command}; " in said.out


@pytest.mark.parametrize(
    ("command", "code", "problem"),
    [
        ("true", 2, "does not say where {model} and {output} go"),
        ("true {model} {output}", 4, "it wrote no model"),
        ("false {model} {output}", 4, "exit code 1"),
        ("cp /dev/null {output}; true {model}", 2, "what came back is no model"),
    ],
)
def test_commands_that_fail(run: Run, tmp_path: Path, command: str, code: int, problem: str) -> None:
    output = tmp_path / "small.onnx"
    ran = run("prune", DIGITS, "-o", output, "--fine-tune-command", command)
    assert problem in ran.err and not output.exists() and "Traceback" not in ran.err
    assert ran.code == code


def renamed(proto: onnx.ModelProto) -> onnx.ModelProto:
    old = proto.graph.initializer[0].name
    proto.graph.initializer[0].name = "x"
    for node in proto.graph.node:
        node.input[:] = ["x" if name == old else name for name in node.input]
    return proto


def shrunk(proto: onnx.ModelProto) -> onnx.ModelProto:
    tensor = proto.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor)[1:], tensor.name))
    return proto


def longer(proto: onnx.ModelProto) -> onnx.ModelProto:
    proto.graph.node.append(helper.make_node("Relu", [proto.graph.output[0].name], ["more"]))
    return proto


def other(proto: onnx.ModelProto) -> onnx.ModelProto:
    next(n for n in proto.graph.node if n.op_type == "Relu").op_type = "Sigmoid"
    return proto


def broken(proto: onnx.ModelProto) -> onnx.ModelProto:
    tensor = proto.graph.initializer[0]
    tensor.CopyFrom(numpy_helper.from_array(np.full(tensor.dims, np.nan, np.float32), tensor.name))
    return proto


def nothing(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].name = "changed in place"


@pytest.mark.parametrize(
    ("tune", "problem"),
    [
        (renamed, "'conv.weight' is missing, and was float"),
        (shrunk, r"is float \[15.*, and was float \[16"),
        (longer, "it has .* nodes, and had"),
        (other, "is Sigmoid .* and was Relu"),
        (broken, "is not finite"),
        (nothing, "returned nothing"),
    ],
)
def test_what_came_back_is_checked(tune: Callable[..., Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        onnxprune.prune(DIGITS, 0.5, "l2", fine_tune=tune)


def test_a_function_that_raises() -> None:
    def fails(proto: onnx.ModelProto) -> onnx.ModelProto:
        raise KeyError("x")

    with pytest.raises(RunError, match="failed: KeyError"):
        onnxprune.prune(DIGITS, 0.5, "l2", fine_tune=fails)


def test_one_training_is_enough() -> None:
    with pytest.raises(UsageError, match="there are two trainings"):
        onnxprune.prune(DIGITS, 0.5, data=DATA, fine_tune=doubled, train=onnxprune.TrainingOptions(4))


def test_constants_are_weights_too() -> None:
    """Values of float constants are taken; what else a node says must stay."""
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, 1, ["n", s]) for n, s in (("x", 4), ("y", 3))]
    model = load(helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:])))

    def three(proto: onnx.ModelProto) -> onnx.ModelProto:
        proto.graph.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.full((4, 3), 3, np.float32), "w"))
        return proto

    trained = UserTraining(three)(model)
    assert (numpy_helper.to_array(trained.proto.graph.node[0].attribute[0].t) == 3).all()
    assert (numpy_helper.to_array(model.proto.graph.node[0].attribute[0].t) == 1).all(), "the model is as it was"
