"""The folder of finished parts: made, kept where something goes wrong, and never one of somebody else."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.cli.work_folder import JOURNAL, WorkFolder
from onnxprune.errors import RunError, UsageError


def test_it_is_there_while_the_work_lasts(tmp_path: Path) -> None:
    with WorkFolder(tmp_path / "w", "step", resume=False).opened() as folder:
        assert folder == tmp_path / "w" and folder.is_dir()
    assert not folder.exists()
    with WorkFolder(tmp_path / "w", "step", resume=False, keep=True).opened():
        pass
    assert folder.exists()
    with WorkFolder(None, "step", resume=False).opened() as other:
        assert other.is_dir()
    assert not other.exists()


def test_what_is_finished_stays_after_an_error_and_the_hint_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError) as caught, WorkFolder(tmp_path / "w", "trial", resume=False).opened() as folder:
        (folder / JOURNAL).write_text("{}")
        raise RunError("broken", hint="mend it")
    assert caught.value.hint == "mend it; the trials that are finished are kept: --resume goes on from there"
    with WorkFolder(folder, "trial", resume=True).opened():
        assert (folder / JOURNAL).exists()
    with pytest.raises(RunError), WorkFolder(tmp_path / "w", "trial", resume=False).opened():
        raise RunError("at once")
    assert not folder.exists(), "nothing was finished"


def test_checks(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    held = WorkFolder(tmp_path / "w", "trial", resume=False)
    with pytest.raises(UsageError, match="holds the trials of a run that was interrupted"):
        held.check(force=False)
    held.check(force=True)
    WorkFolder(tmp_path / "w", "trial", resume=True).check(force=False)
    for given, option in (({"resume": True}, "--resume"), ({"resume": False, "keep": True}, "--keep-trials")):
        with pytest.raises(UsageError, match=f"{option} needs a file"):
            WorkFolder(None, "trial", **given).check(force=False)


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "mine.txt").write_text("mine")
    with (
        pytest.raises(UsageError, match=r"holds other files: mine\.txt"),
        WorkFolder(tmp_path / "w", "step", resume=False).opened(),
    ):
        pass
    assert (tmp_path / "w" / "mine.txt").read_text() == "mine"
