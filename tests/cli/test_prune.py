"""`prune`: what is removed, written and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import DIGITS, MODELS, widths


def test_prune_halves_every_group(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--ratio", "50%")
    assert ran.code == 0
    assert (
        ran.err.startswith("hint: the layers that lost inputs were not re-fitted; --data ") and ran.err.count("\n") == 1
    )
    assert "proof    equal to the masked original, largest error" in ran.out
    assert "118.3 k" in ran.out and "4 of 4 groups, 128 of 256 units" in ran.out
    assert widths(tmp_path / "small.onnx")["conv_1.weight"] == (32, 16, 3, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]


def test_rows_alone_leave_no_layer_to_repair(run, tmp_path):
    (tmp_path / "ids.txt").write_text("1\n2\n3\n")
    rows = ("--rows", f"embed_tokens.weight={tmp_path / 'ids.txt'}", "--allow-io-changes")
    decoder = MODELS / "decoder.onnx"
    alone = run("prune", decoder, "-o", tmp_path / "rows.onnx", "--ratio", "0", *rows)
    assert alone.code == 0 and "hint" not in alone.err
    more = run("prune", decoder, "-o", tmp_path / "more.onnx", "--ratio", "25%", *rows)
    assert more.code == 0 and "hint: the layers that lost inputs were not re-fitted" in more.err


@pytest.mark.parametrize(
    "name",
    ["bert", "gpt2", "llama_23", "swin", "densenet", "shufflenet", "unet", "external", "half", "functions"],
)
def test_prune_other_architectures(run, tmp_path, name):
    ran = run("prune", MODELS / f"{name}.onnx", "-o", tmp_path / "small.onnx", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["proof"]["ok"] and ran.json["after"]["params"] < ran.json["before"]["params"]


def test_prune_rotated(run, tmp_path):
    inputs, small = tmp_path / "inputs.npz", tmp_path / "small.onnx"
    np.savez(inputs, image=np.random.default_rng(0).standard_normal((32, 3, 16, 16), dtype=np.float32))
    given = ("prune", MODELS / "mobilenet_v2.onnx", "--rotate", "--data", inputs, "--accept-damage", "--json")
    ran = run(*given, "-o", small, "--plan-out", tmp_path / "plan.json")
    assert ran.code == 0, ran.err
    assert ran.json["rotated"] == ["block_1.conv_2.weight"] and ran.json["options"]["rotate"] is True
    again = run("apply", MODELS / "mobilenet_v2.onnx", tmp_path / "plan.json", "-o", tmp_path / "again.onnx", "--json")
    assert again.code == 0 and again.json["rotated"] == ran.json["rotated"] and again.json["proof"]["ok"]
    ran = run("prune", MODELS / "mobilenet_v2.onnx", "--rotate", "--dry-run")
    assert ran.code == 2 and "--rotate has no effect: there is no data" in ran.err


def test_prune_json(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--json", "-r", 0.25)
    report = ran.json
    assert (ran.code, report["format"], report["version"]) == (0, "onnxprune-report", 1)
    assert report["before"]["params"] == 118314 > report["after"]["params"]
    assert [g["removed"] for g in report["groups"]] == [8, 16, 16, 24]
    assert report["proof"]["ok"] and report["proof"]["error"] < report["proof"]["tolerance"]
    assert report["rolled_back"] == [] and report["options"]["ratio"] == 0.25
    assert report["barriers"][0]["reason"] == "graph output 'logits'"


def test_prune_selection_options(run, tmp_path):
    ran = run(
        "prune", DIGITS, "--dry-run", "--json", "--ratio-for", "conv_1*=0.25", "--ratio-for", "fc*=0.75",
        "--keep", "residual*", "--criterion", "l1", "--round-to", 8, "--seed", 3,
    )  # fmt: skip
    removed = {g["name"]: g["removed"] for g in ran.json["groups"]}
    assert ran.code == 0 and removed["conv.weight"] == 16 and removed["fc.weight"] == 72
    assert ran.json["options"]["criterion"] == "l1" and ran.json["options"]["seed"] == 3
    assert list(tmp_path.iterdir()) == []


def test_prune_global_allocation_and_only(run):
    ran = run("prune", DIGITS, "--dry-run", "--json", "--allocation", "global", "--max-ratio", "60%", "--no-verify")
    assert ran.code == 0 and ran.json["proof"] is None
    assert all(g["removed"] <= 0.6 * g["units"] for g in ran.json["groups"])
    ran = run("prune", DIGITS, "--dry-run", "--json", "--only", "conv.*")
    assert {g["name"] for g in ran.json["groups"] if g["removed"]} == {"conv.weight"}


def test_prune_heads_or_not(run):
    def removed(*options: str) -> dict[str, int]:
        ran = run("prune", MODELS / "bert.onnx", "--dry-run", "--json", *options)
        assert ran.code == 0, ran.err
        found: dict[str, int] = {}
        for g in ran.json["groups"]:
            found[g["kind"]] = found.get(g["kind"], 0) + g["removed"]
        return found

    assert removed()["head"] == 2
    assert not removed("--no-heads").get("head")
    assert removed("--head-dims")["head dim"]


def test_ratio_zero_writes_the_model_as_it_is(run, tmp_path):
    assert run("prune", DIGITS, "-o", tmp_path / "same.onnx", "--ratio", 0).code == 0
    assert widths(tmp_path / "same.onnx") == widths(Path(DIGITS))


def test_rolled_back_groups_are_reported_with_exit_code_1(run, tmp_path, monkeypatch):
    from dataclasses import replace

    from onnxprune.pipelines import prune as pipeline
    from onnxprune.proof.bisect import RolledBack

    real = pipeline.run

    def one_failed(*args, **given):
        return replace(real(*args, **given), rolled_back=(RolledBack("conv.weight", "it differs"),))

    monkeypatch.setattr(pipeline, "run", one_failed)
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx")
    assert ran.code == 1 and "left whole" in ran.err and "conv.weight (it differs)" in ran.err
    assert (tmp_path / "small.onnx").exists()
