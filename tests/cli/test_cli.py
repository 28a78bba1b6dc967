"""The verbs of the command line, on the example models."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
import pytest

from onnxprune.cli import main
from onnxprune.cli.app import app
from onnxprune.cli.options.group import TITLES

MODELS = Path(__file__).parents[2] / "models"
DIGITS = str(MODELS / "digits.onnx")


@dataclass(frozen=True)
class Ran:
    code: int
    raw: bytes
    err: str

    @property
    def out(self) -> str:
        return self.raw.decode()

    @property
    def json(self):
        return json.loads(self.raw)


Run = Callable[..., Ran]


@pytest.fixture
def run(capsysbinary, monkeypatch) -> Run:
    monkeypatch.setattr(logging.getLogger("onnxprune"), "handlers", [])  # the command line's own go with the test

    def call(*arguments: object, stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = main([str(a) for a in arguments])
        said = capsysbinary.readouterr()
        return Ran(code, said.out, said.err.decode())

    return call


@pytest.fixture
def small(run, tmp_path) -> Path:
    assert run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--plan-out", tmp_path / "plan.json").code == 0
    return tmp_path / "small.onnx"


def widths(path: Path) -> dict[str, tuple[int, ...]]:
    return {t.name: tuple(t.dims) for t in onnx.load(path).graph.initializer}


# --- the command as such ----------------------------------------------------------------------------------


def shell(*arguments: str, **given) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, cwd=Path(__file__).parents[2], check=False, **given
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["prune", "--help"], ["plan", "-h"], ["criteria", "-h"], ["ops", "--help"]]
)
def test_help_imports_no_onnx_and_no_numpy(arguments):
    code = (
        "import sys; from onnxprune.cli import main; code = main(sys.argv[1:]);"
        "heavy = {m.partition('.')[0] for m in sys.modules} & {'onnx', 'numpy', 'onnxruntime', 'google'};"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = shell("-c", code, *arguments)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Usage: onnxprune")


def test_module_and_version():
    done = shell("-m", "onnxprune", "--version")
    assert done.returncode == 0 and done.stdout.startswith(b"onnxprune ")


def test_no_arguments_show_the_help(run):
    ran = run()
    assert ran.code == 0 and "Commands:" in ran.out


def test_options_are_listed_once_under_their_titles(run):
    listed = run("prune", "--help").out
    sections = re.findall(r"^(\S.*):$", listed, re.MULTILINE)
    assert sections == list(TITLES)
    command = app.get_command(click.Context(app), "prune")
    for option in (p for p in command.params if isinstance(p, click.Option)):
        assert len(re.findall(rf"^  (?:-\w, )?{option.opts[-1]}\b(?!-)", listed, re.MULTILINE)) == 1, option.opts


def test_every_command_has_help(run):
    for name in ("inspect", "prune", "plan", "apply", "verify", "diff", "criteria", "ops"):
        ran = run(name, "--help")
        assert ran.code == 0 and ran.out.startswith(f"Usage: onnxprune {name}")


def test_misspelt_command_is_suggested(run):
    ran = run("prnue")
    assert ran.code == 2 and "did you mean 'prune'?" in ran.err


def test_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "onnxprune", "ops"], stdout=write, stderr=subprocess.PIPE, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    os.close(write)
    assert (done.returncode, done.stderr) == (141, b"")


def test_completion_script():
    done = shell("-m", "onnxprune", env=os.environ | {"_ONNXPRUNE_COMPLETE": "bash_source"})
    assert done.returncode == 0 and b"complete" in done.stdout


# --- prune ------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "name",
    ["bert", "gpt2", "llama_23", "swin", "densenet", "shufflenet", "unet", "external", "half", "functions"],
)
def test_prune_other_architectures(run, tmp_path, name):
    ran = run("prune", MODELS / f"{name}.onnx", "-o", tmp_path / "small.onnx", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["proof"]["ok"] and ran.json["after"]["params"] < ran.json["before"]["params"]


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


def test_pipes(run, small):
    ran = run("prune", "-", "-o", "-", stdin=Path(DIGITS).read_bytes())
    assert ran.code == 0 and ran.raw == small.read_bytes()
    assert "proof" in ran.err
    assert run("prune", "-", "-o", "-", "-q", stdin=Path(DIGITS).read_bytes()).err == ""


def test_quiet_says_nothing(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "") and (tmp_path / "small.onnx").exists()


def test_verbose_tells_stages(run, tmp_path):
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "-v")
    assert "tracing ..." in ran.err and "rewriting" in ran.err.splitlines()[-4] + ran.err


def test_force_overwrites(run, small):
    assert run("prune", DIGITS, "-o", small, "--ratio", 0.25).code == 2
    assert run("prune", DIGITS, "-o", small, "--ratio", 0.25, "--force").code == 0
    assert widths(small)["conv.weight"][0] == 24


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


# --- plan, apply, verify ----------------------------------------------------------------------------------


def test_plan_then_apply_is_prune(run, small, tmp_path):
    ran = run("plan", DIGITS)
    assert (ran.code, ran.err, ran.json["format"]) == (0, "", "onnxprune-plan")
    assert ran.out == (tmp_path / "plan.json").read_text()
    ran = run("apply", DIGITS, "-", "-o", tmp_path / "applied.onnx", stdin=ran.raw)
    assert ran.code == 0 and "proof    equal" in ran.out and "4 of 4 groups" in ran.out
    assert (tmp_path / "applied.onnx").read_bytes() == small.read_bytes()


def test_plan_to_a_file_is_edited_and_applied(run, tmp_path):
    ran = run("plan", DIGITS, "-o", tmp_path / "plan.json", "--ratio", 0.1)
    assert ran.code == 0 and "pruned" in ran.out
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["groups"] = [g | {"remove": [0, 5]} for g in plan["groups"] if g["name"] == "conv.weight"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    ran = run("apply", DIGITS, tmp_path / "plan.json", "-o", tmp_path / "small.onnx", "--json")
    assert ran.code == 0 and ran.json["groups"][0]["removed"] == 2 and ran.json["proof"]["ok"]
    assert widths(tmp_path / "small.onnx")["conv.weight"][0] == 30


def test_apply_zero_keeps_the_sizes(run, small, tmp_path):
    ran = run("apply", DIGITS, tmp_path / "plan.json", "-o", tmp_path / "zero.onnx", "--zero")
    assert ran.code == 0 and widths(tmp_path / "zero.onnx") == widths(Path(DIGITS))
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(tmp_path / "zero.onnx").graph.initializer}
    assert np.sum(~weights["conv.weight"].any(axis=(1, 2, 3))) == 16


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


# --- looking ----------------------------------------------------------------------------------------------


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


def test_diff(run, small):
    ran = run("diff", DIGITS, small)
    assert ran.code == 0 and "64x32x3x3" in ran.out and "32x16x3x3" in ran.out
    shown = run("diff", DIGITS, small, "--json").json
    assert shown["layers"][0]["before"] == [32, 1, 3, 3] and shown["layers"][0]["after"] == [16, 1, 3, 3]
    same = run("diff", DIGITS, DIGITS)
    assert "6 layers unchanged" in same.out and "conv" not in same.out.split("\n", 1)[1]
    assert "32x1x3x3" in run("diff", DIGITS, DIGITS, "--all").out


def test_ops(run):
    assert "BatchNormalization" in run("ops").out
    ran = run("ops", "conv*")
    assert "ConvTranspose" in ran.out and "Gemm" not in ran.out
    listed = run("ops", "--json", "Conv").json["operators"]
    assert listed == [listed[0]] and listed[0]["op"] == "Conv" and listed[0]["summary"]
    ran = run("ops", "nonzero")
    assert "what it returns are positions" in ran.out
    assert run("ops", "--json", "NonZero").json["whole"] == {"NonZero": "what it returns are positions"}
    assert run("ops", "Nonsense").code == 2


def test_criteria(run):
    shown = run("criteria").out
    assert "wanda" in shown and "ensemble:l2,wanda" in shown
    found = {c["name"]: c for c in run("criteria", "--json").json["criteria"]}
    assert found["l2"]["aggregate"] == "norm" and found["apoz"]["needs_data"] and found["fpgm"]["source"]


def test_plan_by_a_criterion_that_needs_data(run):
    ran = run("plan", DIGITS, "--criterion", "wanda")
    assert ran.code == 2 and "--data" in ran.err
    given = "--data", MODELS / "digits_calibration.npz", "--samples", 32, "--aggregate", "max"
    options = run("plan", DIGITS, "--criterion", "wanda", *given).json["options"]
    assert (options["criterion"], options["aggregate"], options["normalize"]) == ("wanda", "max", None)


# --- options from elsewhere -------------------------------------------------------------------------------


def test_config_file(run, tmp_path):
    config = tmp_path / "onnxprune.toml"
    config.write_text('[prune]\nratio = "25%"\nkeep = ["fc_1*"]\nverify = false\nround-to = 8\nheads = false\n')
    ran = run("--config", config, "prune", DIGITS, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert [g["removed"] for g in ran.json["groups"]] == [8, 16, 16, 0] and ran.json["proof"] is None
    ran = run("--config", config, "prune", DIGITS, "--dry-run", "--json", "--ratio", 0.5)
    assert ran.json["groups"][0]["removed"] == 16


def test_config_in_pyproject(run, tmp_path):
    config = tmp_path / "pyproject.toml"
    config.write_text('[project]\nname = "x"\n[tool.onnxprune.plan]\nratio = 0.25\nkeep = "fc*"\n')
    shown = run("--config", config, "plan", DIGITS).json
    assert shown["options"]["ratio"] == 0.25 and shown["options"]["keep"] == ["fc*"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prune]\nratoi = 1\n", "unknown option 'ratoi' @ $.prune.ratoi in "),
        ("[prun]\nratio = 1\n", "unknown command 'prun' @ $.prun in "),
        ("ratio = 0.5\n", "unknown command 'ratio' @ $.ratio in "),
        ("[tool.onnxprune.prune]\nx = 1\n", "unknown option 'x' @ $.tool.onnxprune.prune.x in "),
        ("tool = 3\n", "unknown command 'tool' @ $.tool in "),
        ("[prune]\nratio = [0.5]\n", "option 'ratio' takes one value, not a list @ $.prune.ratio in "),
        ("[prune.ratio]\nx = 1\n", "option 'ratio' must be a text or a number, not a table @ $.prune.ratio in "),
        ("[prune\n", "is not TOML: "),
        ('[prune]\nratio = "half"\n', "option 'ratio': 'half' is not a ratio: write 0.5 or 50% @ $.prune.ratio in "),
        ("[prune]\nratio = true\n", "option 'ratio' must be a text or a number, not true or false @ $.prune.ratio in "),
        ("[prune]\nratio = 2026-11-21\n", "option 'ratio' must be a text or a number, not a date @ $.prune.ratio in "),
        ('[prune]\nverify = "no"\n', "option 'verify' must be true or false, not a text @ $.prune.verify in "),
        ('[prune]\nseed = "8"\n', "option 'seed' must be a whole number, not a text @ $.prune.seed in "),
        ("[prune]\nseed = 8.0\n", "option 'seed' must be a whole number, not a number @ $.prune.seed in "),
        ("[prune]\nsamples = 0\n", "option 'samples': 0 is not in the range x>=1 @ $.prune.samples in "),
        (
            '[prune]\nround-to = "x"\n',
            "option 'round-to': 'x' is not a positive number, nor auto @ $.prune.round-to in ",
        ),
        ("[prune]\nround-to = 0\n", "option 'round-to': '0' is not a positive number, nor auto @ $.prune.round-to in "),
        ("[prune]\naggregate = 'average'\n", "option 'aggregate': 'average' is not one of 'sum', 'mean', 'max', "),
        ("[prune]\nkeep = ['conv*', true]\n", "must be a text or a number, not true or false @ $.prune.keep[1] in "),
        ("[plan]\nsizes = 'batch=none'\n", "option 'sizes': 'none' is not a valid integer range @ $.plan.sizes in "),
    ],
)
def test_bad_config(run, tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    ran = run("--config", tmp_path / "c.toml", "prune", DIGITS, "--dry-run")
    assert ran.code == 2 and message in ran.err and ran.err.startswith("error: ")


def test_environment(run, monkeypatch, tmp_path):
    monkeypatch.setenv("ONNXPRUNE_PRUNE_RATIO", "25%")
    assert run("prune", DIGITS, "--dry-run", "--json").json["groups"][0]["removed"] == 8
    (tmp_path / "c.toml").write_text("[plan]\nratio = 0.75\n")
    monkeypatch.setenv("ONNXPRUNE_CONFIG", str(tmp_path / "c.toml"))
    assert run("plan", DIGITS).json["options"]["ratio"] == 0.75
