"""`onnxprune auto` reaches what it is asked for in its time, goes on after a kill, and refuses what is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest

from onnxprune.model import file_size, load
from tests.cli.conftest import DIGITS, MODELS, Run, run

__all__ = ["run"]
DATA = str(MODELS / "digits_calibration.npz")
TEST = str(MODELS / "digits_test.npz")
LITTLE = ("--samples", 48, "--threads", 1)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_model_of_a_size_with_its_front(run: Run, tmp_path: Path) -> None:
    output, front = tmp_path / "o.onnx", tmp_path / "front"
    begun = time.monotonic()
    ran = run(
        "auto",
        DIGITS,
        "-o",
        output,
        "--params",
        "50%",
        "--data",
        DATA,
        "--time",
        "12s",
        *LITTLE,
        "--front",
        front,
        "--json",
    )
    assert ran.code == 0, ran.err
    assert time.monotonic() - begun <= 1.1 * 12 + 3, "some seconds more on a machine that does other things too"
    found = ran.json
    assert found["format"] == "onnxprune-auto" and found["chosen"]["reached"] <= 0.5
    small = onnx.load(output)
    onnx.checker.check_model(small, full_check=True)
    ort.InferenceSession(str(output))
    assert (
        found["after"]["params"] < 0.5 * found["before"]["params"] and output.stat().st_size == found["chosen"]["size"]
    )
    assert names(tmp_path) == {"o.onnx", "front"}
    recipes = sorted(front.glob("*.toml"))
    points = [trial for trial in found["search"]["trials"] if trial["pareto"]]
    assert len(recipes) == len(points) == len(list(front.glob("*.onnx")))
    for recipe, point in zip(recipes, sorted(points, key=lambda trial: trial["reached"]), strict=True):
        assert recipe.with_suffix(".onnx").stat().st_size == point["size"]
        steps = tomllib.loads(recipe.read_text()).get("step", [])
        assert [step["run"] for step in steps] == [step["run"] for step in point["steps"]]


def test_a_point_is_made_again_by_its_recipe(run: Run, tmp_path: Path) -> None:
    front = tmp_path / "front"
    given = ("--params", "60%", "--data", DATA, "--time", "8s", *LITTLE, "--front", front)
    assert run("auto", DIGITS, "-o", tmp_path / "o.onnx", *given).code == 0
    recipe = next(iter(sorted(front.glob("*prune*.toml"))))
    ran = run("run", recipe, DIGITS, "-o", tmp_path / "again.onnx", "--data", DATA, "--samples", 48, "--no-time")
    assert ran.code == 0, ran.err
    small = load(str(recipe.with_suffix(".onnx")))
    assert file_size(load(str(tmp_path / "again.onnx"))) == pytest.approx(file_size(small), rel=0.1)


def test_labels_and_a_drop_that_is_allowed(run: Run, tmp_path: Path) -> None:
    given = (
        "--labels",
        "label",
        "--max-drop",
        "10%",
        "--smallest",
        "macs",
        "--time",
        "12s",
        "--samples",
        128,
        "--threads",
        1,
    )
    ran = run(
        "auto", DIGITS, "-o", tmp_path / "o.onnx", "--data", TEST, *given, "--report", tmp_path / "r.html", "--json"
    )
    assert ran.code == 0, ran.err
    values = ran.json["chosen"]["values"]
    assert values["value"] >= 0.9 * ran.json["original"]["value"] and ran.json["chosen"]["reached"] < 1
    assert "Models that were tried" in (tmp_path / "r.html").read_text()


def test_without_data(run: Run, tmp_path: Path) -> None:
    ran = run("auto", DIGITS, "-o", tmp_path / "o.onnx", "--size", "50%", "--time", "8s", "--threads", 1)
    assert ran.code == 0, ran.err
    assert "unknown  how good any model is" in ran.out and "chosen" in ran.out
    assert (tmp_path / "o.onnx").stat().st_size <= 0.5 * Path(DIGITS).stat().st_size


def test_a_killed_search_goes_on(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    given = ("auto", DIGITS, "-o", output, "--params", "50%", "--data", DATA, "--time", "8s", *LITTLE)
    command = [sys.executable, "-m", "onnxprune", *map(str, given), "-q"]
    journal = tmp_path / "o.onnx.trials" / "journal.jsonl"
    started = subprocess.Popen(command, cwd=MODELS.parent)
    while started.poll() is None and not (journal.exists() and len(journal.read_text().splitlines()) > 1):
        time.sleep(0.02)
    started.kill()
    assert started.wait() == -signal.SIGKILL and not output.exists()
    made = len(journal.read_text().splitlines())
    refused = run(*given)
    assert refused.code == 2 and "--resume goes on with them" in refused.err
    ran = run(*given, "--resume", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["search"]["known"] >= made and output.exists() and names(tmp_path) == {"o.onnx"}


def test_an_interrupt_writes_the_best_so_far(tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    given = [
        "auto",
        DIGITS,
        "-o",
        str(output),
        "--params",
        "60%",
        "--data",
        DATA,
        "--time",
        "10m",
        *map(str, LITTLE),
        "--json",
    ]
    started = subprocess.Popen([sys.executable, "-m", "onnxprune", *given], cwd=MODELS.parent, stdout=subprocess.PIPE)
    journal = tmp_path / "o.onnx.trials" / "journal.jsonl"
    while started.poll() is None and not (journal.exists() and '"recipe": "prune"' in journal.read_text()):
        time.sleep(0.02)
    started.send_signal(signal.SIGINT)
    out, _ = started.communicate(timeout=120)
    assert started.returncode == 0
    found = json.loads(out)
    assert found["interrupted"] and found["chosen"]["reached"] <= 0.6
    assert output.stat().st_size == found["chosen"]["size"] and names(tmp_path) == {"o.onnx"}


def test_a_budget_that_nothing_reaches_gives_the_nearest_and_says_so(run: Run, tmp_path: Path) -> None:
    ran = run("auto", DIGITS, "-o", tmp_path / "o.onnx", "--params", "100", "--time", "8s", "--threads", 1)
    assert ran.code == 1 and "no recipe reaches a params of at most 100" in ran.err
    assert (tmp_path / "o.onnx").exists()


def test_a_quality_that_nothing_keeps_writes_nothing(run: Run, tmp_path: Path) -> None:
    given = ("--size", "30%", "--min-sqnr", "200", "--data", DATA, "--time", "8s", *LITTLE)
    ran = run("auto", DIGITS, "-o", tmp_path / "o.onnx", *given)
    assert ran.code == 1 and "models is good enough with 30 % of the size" in ran.err
    assert not (tmp_path / "o.onnx").exists()


def test_a_dry_run_writes_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("auto", DIGITS, "--dry-run", "--params", "70%", "--time", "5s", "--threads", 1)
    assert ran.code == 0 and "(not written)" in ran.out and names(tmp_path) == set()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((), "nothing says what is to be reached"),
        (("--size", "50%", "--macs", "50%"), "one budget says what is to be small"),
        (("--size", "many"), "is not an amount"),
        (("--min-sqnr", "20"), "there are no inputs to compare outputs on"),
        (("--max-drop", "1%"), "--max-drop needs a measure"),
        (("--max-drop", "much", "--eval", "wc -c {model}"), "is not an amount"),
        (("--size", "50%", "--labels", "label"), "--labels are in the data, and there is none"),
        (("--size", "50%", "--metric", "accuracy", "--data", DATA), "metrics need labels"),
        (("--size", "50%", "--eval", "nothing_like_it {model}"), "no command is called 'nothing_like_it'"),
        (("--size", "50%", "--time", "soon"), "'soon' is not a time"),
        (("--size", "50%", "--data", "random"), "random inputs tell nothing"),
        (("--size", "50%", "--data", "missing.npz"), "missing.npz"),
        (("--size", "50%", "--data", DATA, "--samples", "2"), "too few samples"),
        (("--size", "50%", "--jobs", "2", "--dask", "x"), "cannot both be given"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(run: Run, tmp_path: Path, given: tuple[str, ...], message: str) -> None:
    ran = run("auto", DIGITS, "-o", tmp_path / "o.onnx", *given)
    assert ran.code == 2 and message in ran.err, ran.err
    assert names(tmp_path) == set()


def test_places_that_are_taken(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "o.onnx"
    output.write_text("mine")
    assert "o.onnx exists" in run("auto", DIGITS, "-o", output, "--size", "50%").err
    assert "-o FILE is missing" in run("auto", DIGITS, "--size", "50%").err
    (tmp_path / "front").mkdir()
    (tmp_path / "front" / "mine").write_text("mine")
    ran = run("auto", DIGITS, "-o", tmp_path / "p.onnx", "--size", "50%", "--front", tmp_path / "front")
    assert ran.code == 2 and "front is not empty" in ran.err
    assert output.read_text() == "mine" and names(tmp_path) == {"o.onnx", "front"}
