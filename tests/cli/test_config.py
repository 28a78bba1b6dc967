"""Options from files and variables."""

from __future__ import annotations

import pytest

from tests.cli.conftest import DIGITS


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


def test_config_after_the_command(run, tmp_path):
    config = tmp_path / "onnxprune.toml"
    config.write_text('[prune]\nratio = "25%"\nverify = false\n[plan]\nratio = 0.75\n')
    before = run("--config", config, "prune", DIGITS, "--dry-run", "--json")
    after = run("prune", DIGITS, "--dry-run", "--config", config, "--json")
    assert after.code == 0 and after.json["after"] == before.json["after"]
    given = run("prune", DIGITS, "--dry-run", "--json", "--config", config, "--ratio", 0.5)
    assert given.json["after"] != after.json["after"]
    config.write_text("[prune]\nround-to = 8\nsamples = 3\n")
    ran = run("prune", DIGITS, "--dry-run", "--no-verify", "--config", config)
    assert f"--samples (in {config}) has no effect" in ran.err


def test_a_bad_config_after_the_command(run, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text("[prune]\nratoi = 1\n")
    ran = run("prune", DIGITS, "--config", config, "--dry-run")
    assert ran.code == 2 and "did you mean 'ratio'?" in ran.err
    ran = run("prune", DIGITS, "--config", tmp_path / "none.toml", "--dry-run")
    assert ran.code == 2 and "no such file" in ran.err
