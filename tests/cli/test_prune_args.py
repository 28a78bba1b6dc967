"""What `prune` is asked for is checked before any work, and says which inputs and outputs may shrink."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import DIGITS, Run
from tests.graphs.folders import Family, decoder


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--plan-out", "-"), "--plan-out needs a file"),
        (("--plan-out", "{}/small.onnx"), "two outputs cannot both be written"),
        (("--resume", "--max-drop", "1%", "--data", "random"), "--resume"),
    ],
)
def test_what_cannot_work_is_refused(run: Run, tmp_path: Path, more: tuple[str, ...], said: str) -> None:
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", *(text.format(tmp_path) for text in more))
    assert ran.code == 2 and said in ran.err and not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        (("--allow-io-changes",), {"past_key_values", "present", "logits"}),
        (("--allow-io-changes-of", "past*", "--allow-io-changes-of", "present*"), {"past_key_values", "present"}),
    ],
)
def test_caches_shrink_without_the_logits(run: Run, tmp_path: Path, more: tuple[str, ...], wanted: set[str]) -> None:
    """Globs name the inputs and outputs that may; all may without."""
    model, small, plan = (tmp_path / name for name in ("decoder.onnx", "small.onnx", "plan.json"))
    decoder(Family(tied=False)).save(model)
    ran = run("prune", model, "-o", small, "--plan-out", plan, "--json", *more)
    assert ran.code == 0, ran.err
    assert {change["name"].partition(".")[0] for change in ran.json["io_changes"]} == wanted
    again = run("apply", model, plan, "-o", tmp_path / "again.onnx")
    assert again.code == 0, again.err
    assert (tmp_path / "again.onnx").read_bytes() == small.read_bytes()


def test_globs_that_match_nothing(run: Run, tmp_path: Path) -> None:
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", "--allow-io-changes-of", "cache*")
    assert ran.code == 2 and "no input or output is called 'cache*'" in ran.err
