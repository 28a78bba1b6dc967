"""`inspect`: groups and barriers."""

from __future__ import annotations

import pytest

from tests.cli.conftest import MODELS

DIGITS = MODELS / "digits.onnx"


def test_inspect(run):
    ran = run("inspect", MODELS / "bert.onnx")
    assert ran.code == 0 and ran.err == ""
    assert "layer.linear.weight" in ran.out and "head" in ran.out and "approximate" in ran.out
    assert "graph output 'logits'" in ran.out
    assert "axis 1" not in ran.out and "axis 1" in run("inspect", MODELS / "bert.onnx", "--members").out


def test_inspect_json(run):
    shown = run("inspect", MODELS / "bert.onnx", "--json", "--sizes", "batch=3").json
    assert shown["format"] == "onnxprune-inspect" and shown["cost"]["params"] > 7000
    group = shown["groups"][1]
    assert {"name", "kind", "units", "exact", "params", "macs", "members"} <= group.keys()
    assert {"tensor", "axis", "size", "positions"} == group["members"][0].keys()
    assert {"reason", "node", "op", "params", "members"} == shown["barriers"][0].keys()


@pytest.mark.parametrize("name", ["custom_op"])
def test_inspect_names_what_is_not_traced(run, name):
    ran = run("inspect", MODELS / f"{name}.onnx")
    assert ran.code == 0 and ("no rule for operator" in ran.out or "subgraphs" in ran.out)


def test_what_ratios_would_leave(run):
    ran = run("inspect", DIGITS, "--what-if", "30%,0.5", "--json")
    rows = ran.json["forecast"]
    assert ran.code == 0 and [row["ratio"] for row in rows] == [0, 0.3, 0.5]
    assert rows[0]["units"] == 256 and rows[2]["units"] == 128 and rows[2]["params"] < 0.4 * rows[0]["params"]
    assert run("inspect", DIGITS, "--what-if", "50%").out.splitlines()[-1].split()[:2] == ["50%", "128"]
    assert run("inspect", DIGITS, "--what-if", "1.5").code == 2
    assert "forecast" not in run("inspect", DIGITS, "--json").json
