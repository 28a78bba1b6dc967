"""How large inputs are, as the command line takes it: numbers that are assumed, shapes that models get."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.cli.conftest import run  # noqa: F401
from tests.graphs.net import Net


def dims(path: Path) -> list[int | str]:
    return [d.dim_value or d.dim_param for d in onnx.load(path).graph.input[0].type.tensor_type.shape.dim]


@pytest.fixture
def shapeless(tmp_path: Path) -> Path:
    """A model whose input has no shape, and whose consumers leave it open."""
    net = Net()
    x = net.add("Reshape", net.input(["n", 8]), net.ints(-1, 4))
    x = net.add("Relu", net.add("MatMul", x, net.weight(4, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w2")), ["rows", 4])
    proto = net.proto()
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "shapeless.onnx")
    return tmp_path / "shapeless.onnx"


@pytest.fixture
def dynamic(tmp_path: Path) -> Path:
    net = Net()
    x = net.add("Relu", net.add("MatMul", net.input(["batch", "steps", 8]), net.weight(8, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w2")), ["batch", "steps", 4])
    onnx.save(net.proto(), tmp_path / "dynamic.onnx")
    return tmp_path / "dynamic.onnx"


def test_a_shape_that_the_file_lacks(run: Any, shapeless: Path, tmp_path: Path) -> None:  # noqa: F811
    said = run("inspect", shapeless)
    assert said.code == 3 and "--shape x=" in said.err
    shape, small, plan = ("--shape", "x=2x8"), tmp_path / "small.onnx", tmp_path / "plan.json"
    made = run("prune", shapeless, "-o", small, *shape, "--plan-out", plan)
    assert made.code == 0 and "mended   inputs had no shape: 'x' is [2, 8]" in made.out
    assert dims(small) == [2, 8]
    applied = run("apply", shapeless, plan, "-o", tmp_path / "applied.onnx", *shape)
    assert applied.code == 0 and "mended   inputs had no shape: 'x' is [2, 8]" in applied.out
    assert onnx.load(tmp_path / "applied.onnx") == onnx.load(small)
    proven = run("verify", shapeless, small, "--plan", plan, *shape)
    assert proven.code == 0 and "mended   inputs had no shape: 'x' is [2, 8]" in proven.out
    for given in (
        ("verify", shapeless, small, "--plan", plan),
        ("apply", shapeless, plan, "-o", tmp_path / "again.onnx"),
        ("inspect", shapeless),
        ("prune", shapeless, "--dry-run"),
    ):
        assert json.loads(run(*given, *shape, "--json").out)["mended"] == ["inputs had no shape: 'x' is [2, 8]"]


@pytest.mark.parametrize("name", ["plan", "init", "sensitivity", "diff", "bench"])
def test_every_command_takes_shapes(run: Any, shapeless: Path, tmp_path: Path, name: str) -> None:  # noqa: F811
    more = {
        "plan": ["-o", tmp_path / "p.json"],
        "init": ["-o", tmp_path / "r.toml"],
        "sensitivity": ["--data", "random", "--samples", 8, "--ratios", "0.5", "--no-cache", "--jobs", 1],
        "diff": [shapeless],
        "bench": ["--seconds", 0, "--runs", 1],
    }[name]
    assert run(name, shapeless, *more).code == 3
    said = run(name, shapeless, *more, "--shape", "x=2x8")
    assert said.code == 0, said.err


def test_an_open_size_is_fixed_and_the_others_are_not(run: Any, dynamic: Path, tmp_path: Path) -> None:  # noqa: F811
    made = run("prune", dynamic, "-o", tmp_path / "small.onnx", "--shape", "x=?x6x8")
    assert made.code == 0 and "mended   sizes of inputs were open: 'x' is [batch, 6, 8]" in made.out
    assert dims(tmp_path / "small.onnx") == ["batch", 6, 8]


def test_numbers_are_only_assumed(run: Any, dynamic: Path, tmp_path: Path) -> None:  # noqa: F811
    made = run("prune", dynamic, "-o", tmp_path / "small.onnx", "--sizes", "batch=2", "--sizes", "steps=6")
    assert made.code == 0 and "mended" not in made.out
    assert dims(tmp_path / "small.onnx") == ["batch", "steps", 8]


def test_times_are_measured_at_these_sizes(run: Any, dynamic: Path) -> None:  # noqa: F811
    def shown(*given: Any) -> str:
        found = run("bench", dynamic, "--seconds", 0, "--runs", 1, "--threads", 1, "--json", *given)
        assert found.code == 0, found.err
        (model,) = json.loads(found.out)["models"]
        return "x".join(map(str, model["inputs"]["x"]))

    assert shown("--sizes", "batch=3", "--sizes", "steps=5") == "3x5x8"
    assert shown("--shape", "x=3x5x8") == "3x5x8"
    assert shown("--shape", "x=1x5x8", "--batch", "4") == "4x5x8"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--shape", "y=1x2"), "no input is called 'y'"),
        (("--shape", "x=1x2"), "cannot be 1x2: it is batchxstepsx8"),
        (("--shape", "x=1x2x9"), "cannot be 1x2x9"),
        (("--shape", "x=0x2x8"), "is not a shape"),
        (("--shape", f"x=2x{10**30}x8"), "is not a shape"),
        (("--shape", "x=2x-1x8"), "is not a shape"),
        (("--shape", "x"), "is not of the form INPUT=SHAPE"),
        (("--shape", "x=2x2x8", "--sizes", "batch=2"), "no symbolic axis"),
    ],
)
def test_what_does_not_fit_is_refused(run: Any, dynamic: Path, given: tuple[str, ...], said: str) -> None:  # noqa: F811
    found = run("inspect", dynamic, *given)
    assert found.code == 2 and said in found.err


def test_verify_runs_on_the_inputs_of_the_user(run: Any, tmp_path: Path) -> None:  # noqa: F811
    """Where nobody guesses on what the original runs."""
    net = Net()
    x = net.add("Reshape", net.input(["n", "m"]), net.ints(7, 13, 8))
    x = net.add("Relu", net.add("MatMul", x, net.weight(8, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w2")), [7, 13, 4])
    model, small, plan, data = (tmp_path / name for name in ("m.onnx", "s.onnx", "p.json", "d.npz"))
    onnx.save(net.proto(), model)
    np.savez(data, x=np.random.default_rng(0).standard_normal((14, 104)).astype(np.float32))  # two runs
    assert run("prune", model, "-o", small, "--no-verify", "--plan-out", plan).code == 0
    unproven = run("verify", model, small, "--plan", plan)
    assert unproven.code == 1 and "the original does not run" in unproven.err and "--data" in unproven.err
    proven = run("verify", model, small, "--plan", plan, "--data", data)
    assert proven.code == 0, proven.err
    assert run("verify", model, small, "--plan", plan, "--samples", 3).code == 2
