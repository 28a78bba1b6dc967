"""`onnxprune sensitivity`: table, JSON and picture."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from onnxprune import Sensitivity
from tests.cli.conftest import DIGITS, MODELS, run

__all__ = ["run"]  # the fixture
DATA = MODELS / "digits_calibration.npz"
GIVEN = ("sensitivity", DIGITS, "--data", DATA, "--criterion", "l2", "--samples", 16, "--jobs", 1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_table_with_a_row_per_group_and_the_chosen_cut(run):
    done = run(*GIVEN, "--ratios", "25%,0.5", "--ratio", "0.25")
    assert done.code == 0, done.err
    head, *rows = done.out.splitlines()
    assert head.split() == ["group", "units", "25%", "50%", "chosen"]
    assert rows[0].split()[0] == "conv.weight" and rows[0].split()[-1] == "25%"
    assert float(rows[0].split()[3]) > float(rows[0].split()[2]) > 0
    assert "8 cuts, 8 measured now" in done.out


def test_an_interrupted_command_goes_on_where_it_was(run, cache):
    assert run(*GIVEN, "--ratios", "0.5").code == 0
    assert [p.suffix for p in cache.rglob("*") if p.is_file()] == [".jsonl"]
    assert "8 cuts, 4 measured now" in run(*GIVEN, "--ratios", "0.25,0.5").out
    assert "8 cuts, 0 measured now" in run(*GIVEN, "--ratios", "0.25,0.5").out
    assert "4 cuts, 4 measured now" in run(*GIVEN, "--ratios", "0.5", "--no-cache").out


def test_json_is_a_report_that_can_be_read(run):
    done = run(*GIVEN, "--ratios", "0.5", "--metric", "top1", "--json")
    found = Sensitivity.from_json(b'{"format"' + done.raw.partition(b'"format"')[2])
    assert (found.metric, len(found.curves), done.json["model"]) == ("top1", 4, DIGITS)
    assert found.chosen == pytest.approx({c.group: 0.5 for c in found.curves})


def test_a_picture_has_all_groups_and_a_mark_on_each_chosen_cut(run, tmp_path):
    pytest.importorskip("matplotlib")
    target = tmp_path / "p.svg"
    done = run(*GIVEN, "--picture", target, "--keep", "fc.weight", "--ratios", "0.3,0.6")
    assert done.code == 0, done.err
    root = ET.parse(target).getroot()
    text = {"".join(e.itertext()).strip() for e in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {"conv.weight", "residual.conv.weight", "30 %", "60 %"} <= text
    assert "fc.weight" not in text
    for name in ("chosen-", "cut-"):  # what reads or makes fc.weight is kept
        marks = [e.get("id") for e in root.iter() if str(e.get("id")).startswith(name)]
        assert marks == [f"{name}0", f"{name}1"]
    assert run(*GIVEN, "--picture", target).code == 2


def test_without_matplotlib_a_picture_is_refused_before_any_work(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run(*GIVEN, "--picture", tmp_path / "p.svg")
    assert done.code == 2
    assert "pictures need matplotlib" in done.err and "onnxprune[plot]" in done.err


def test_without_dask_a_cluster_is_refused(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = run(*GIVEN[:-2], "--dask", "tcp://127.0.0.1:1")
    assert done.code == 2
    assert "onnxprune[dask]" in done.err


def test_a_measure_of_ones_own(run):
    done = run(*GIVEN, "--ratios", "0.5", "--eval", "wc -c < {model}")
    assert done.code == 0, done.err
    assert f"original {Path(DIGITS).stat().st_size}" in done.out


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--ratios", "0.5,x"), 2, "'x' is not a ratio"),
        (("--ratios", "0"), 2, "must be above 0 and below 1"),
        (("--metric", "beauty"), 2, "'beauty' is not one of"),
        (("--eval", "nonsense"), 2, "neither module:function nor a command"),
        (("--eval", "false {model}"), 4, "exit code 1"),
        (("--dask", "tcp://127.0.0.1:1"), 2, "--jobs and --dask cannot both be given"),
        (("--cache", "x", "--no-cache"), 2, "--cache and --no-cache cannot both be given"),
        (("--picture", "-"), 2, "--picture needs a file"),
        (("--only", "nothing"), 2, "matches no group"),
    ],
)
def test_what_cannot_work_is_said(run, more, code, message):
    done = run(*GIVEN, *more)
    assert done.code == code
    assert message in done.err


def test_without_data_there_is_nothing_to_compare(run):
    done = run("sensitivity", DIGITS)
    assert done.code == 2
    assert "--data" in done.err
