"""The checkpoint beside an output: what is refused, what goes on, what is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.cli import paths
from onnxprune.cli.kept_training import KeptTraining
from onnxprune.errors import UsageError
from tests.cli.conftest import DIGITS, MODELS, Run, run

__all__ = ["run"]
DATA = str(MODELS / "digits_calibration.npz")


@pytest.mark.parametrize("output", [None, paths.PIPE])
def test_without_a_file_nothing_is_kept(output: str | None) -> None:
    kept = KeptTraining(output, resume=False)
    kept.check(inputs=[], force=False)
    kept.remove()
    assert kept.path is None and kept.saving() is None and not kept.goes_on
    with pytest.raises(UsageError, match="--resume needs a file"):
        KeptTraining(output, resume=True).check(inputs=[], force=True)


def test_what_is_there_is_of_an_interrupted_run(tmp_path: Path) -> None:
    output = str(tmp_path / "o.onnx")
    assert not KeptTraining(output, resume=True).goes_on, "nothing is there"
    there = [tmp_path / "o.onnx.checkpoint", tmp_path / "o.onnx.checkpoint-2"]
    for path in there:
        path.write_bytes(b"x")
    other = tmp_path / "o.onnx.checkpoint-of-mine"
    other.write_bytes(b"x")
    with pytest.raises(UsageError, match="is of a run that was interrupted"):
        KeptTraining(output, resume=False).check(inputs=[], force=False)
    with pytest.raises(UsageError, match="never overwritten"):
        KeptTraining(output, resume=True).check(inputs=[str(there[0])], force=False)
    going = KeptTraining(output, resume=True)
    going.check(inputs=[], force=False)
    saving = going.saving()
    assert going.goes_on and saving is not None and saving.resume and all(path.exists() for path in there)
    assert saving.numbered(1) is saving and saving.numbered(2).path == there[1]
    KeptTraining(output, resume=False).saving()
    assert [path for path in (*there, other) if path.exists()] == [other], "who begins again removes what was there"


def test_what_was_trained_is_kept_until_it_is_written(run: Run, tmp_path: Path) -> None:
    output, kept = tmp_path / "small.onnx", tmp_path / "small.onnx.checkpoint"
    options = ("-r", "0.5", "--data", DATA, "--train", 4, "--rate", "3e-4")
    kept.write_bytes(b"something")
    ran = run("prune", DIGITS, "-o", output, *options)
    assert ran.code == 2 and "--resume goes on with it, --force begins again" in ran.err
    ran = run("sparsify", DIGITS, "-o", output, "--data", DATA, "--train", 4, "--resume")
    assert ran.code == 2 and "is no checkpoint" in ran.err
    (tmp_path / "small.onnx.checkpoint-2").write_bytes(b"something")
    assert run("prune", DIGITS, "-o", output, *options, "--force").code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("--resume",), "--resume has no effect: nothing is trained"),
        (("--data", DATA, "--train", 4, "--resume", "--dry-run"), "--resume needs a file"),
        (("--data", DATA, "--train", 4, "--resume", "--min-sqnr", 10), "a search keeps what it tried by itself"),
    ],
)
def test_nothing_to_resume(run: Run, tmp_path: Path, given: tuple[object, ...], problem: str) -> None:
    ran = run("prune", DIGITS, "-o", tmp_path / "small.onnx", *given)
    assert ran.code == 2 and problem in ran.err and not list(tmp_path.iterdir())
