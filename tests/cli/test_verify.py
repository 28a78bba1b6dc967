"""`verify`: a result proven."""

from __future__ import annotations

import onnx

from tests.cli.conftest import DIGITS


def test_verify(run, small, tmp_path):
    ran = run("verify", DIGITS, small, "--plan", tmp_path / "plan.json")
    assert ran.code == 0 and "equal to the masked original" in ran.out
    assert run("verify", DIGITS, small, "--plan", tmp_path / "plan.json", "--json").json["ok"]
    assert run("verify", DIGITS, small, "--plan", tmp_path / "plan.json", "-q").out == ""


def test_verify_tells_what_differs(run, small, tmp_path):
    model = onnx.load(small)
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
    onnx.save(model, tmp_path / "other.onnx")
    ran = run("verify", DIGITS, tmp_path / "other.onnx", "--plan", tmp_path / "plan.json")
    assert (
        ran.code == 1
        and ran.out == ""
        and "differs from the masked original" in ran.err
        and "cut with conv.weight" in ran.err
    )
    ran = run("verify", DIGITS, tmp_path / "other.onnx", "--plan", tmp_path / "plan.json", "--json")
    assert ran.code == 1 and not ran.json["ok"]
