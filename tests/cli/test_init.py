"""`init`: a recipe for a model."""

from __future__ import annotations

import tomllib
from pathlib import Path

import onnx
import pytest

from tests.cli.conftest import DIGITS, MODELS, Run
from tests.cli.test_recipe import lines_of, written
from tests.graphs.net import Net

__all__ = ["written"]  # the fixture


def test_the_model_is_described(run: Run) -> None:
    text = run("init", DIGITS, "-o", "-").out
    for line in ("# image: float32 [batch, 1, 8, 8]", "# conv_1.weight", "graph output 'logits'"):
        assert line in text
    assert '# keep = ["conv.weight"]' in text and '# sizes = ["batch=1"]' in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("name", ["mlp", "gpt2"])
def test_other_models(run: Run, tmp_path: Path, name: str) -> None:
    ran = run("init", MODELS / f"{name}.onnx", "-o", tmp_path / "r.toml")
    assert ran.code == 0 and ran.out.strip().endswith("r.toml")
    assert tomllib.loads((tmp_path / "r.toml").read_text()) == {"prune": {}}


def test_a_model_without_groups_and_with_odd_names(run: Run, tmp_path: Path) -> None:
    net = Net()
    x = net.input(["n\n[prune]\nratio = 0.9", 3], name='in"put\nratio = 1')
    net.output(net.add("MatMul", x, net.weight(3, 2, name="w")))
    onnx.save(net.proto(), tmp_path / "odd.onnx")
    ran = run("init", tmp_path / "odd.onnx", "-o", "-")
    assert tomllib.loads(ran.out) == {"prune": {}}
    active = "\n".join(lines_of(ran.out))
    assert tomllib.loads(active)["sizes"] == ["n\n[prune]\nratio = 0.9=1"]


def test_it_is_not_overwritten(run: Run, written: Path) -> None:
    ran = run("init", DIGITS, "-o", written)
    assert ran.code == 2 and "exists" in ran.err
    assert run("init", DIGITS, "-o", written, "--force").code == 0
