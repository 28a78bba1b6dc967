"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.system.atomic import replacing, same_file, write_failure


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with replacing(target) as (file,):
        file.write(b"new")
        assert target.read_bytes() == b"old"
    assert target.read_bytes() == b"new" and names(tmp_path) == ["a"]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), replacing(target, tmp_path / "b") as files:
        files[0].write(b"half")
        raise ZeroDivisionError
    assert target.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_files_belong_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the second cannot be placed, the first, which was not there before, goes again."""
    monkeypatch.setattr(Path, "replace", _second_fails(Path.replace))
    with pytest.raises(OSError, match="no room"), replacing(tmp_path / "data", tmp_path / "model") as files:
        for file in files:
            file.write(b"x")
    assert names(tmp_path) == []


def _second_fails(plain):
    calls = []

    def replace(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no room")
        return plain(self, target)

    return replace


def test_what_killed_runs_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    abandoned, other = tmp_path / ".a.0123abcd.tmp", tmp_path / ".b.0123abcd.tmp"
    abandoned.write_bytes(b"half")
    other.write_bytes(b"of another file")
    with replacing(tmp_path / "a"), replacing(tmp_path / "a"):
        assert not abandoned.exists()
        assert len([n for n in names(tmp_path) if n.startswith(".a.")]) == 2, "a second writer takes none away"
    assert names(tmp_path) == [".b.0123abcd.tmp", "a"]


def test_brackets_in_a_name_are_no_pattern(tmp_path: Path) -> None:
    (tmp_path / ".a.0123abcd.tmp").write_bytes(b"of another file")
    with replacing(tmp_path / "[a]"):
        pass
    assert names(tmp_path) == [".a.0123abcd.tmp", "[a]"]


@pytest.mark.parametrize(
    ("number", "kind", "says"),
    [
        (errno.ENOSPC, RunError, "disk full while writing out.onnx"),
        (errno.EDQUOT, RunError, "disk full"),
        (errno.EPIPE, RunError, "its reader went away"),
        (errno.EACCES, UsageError, "cannot write out.onnx: Permission denied"),
        (errno.ENOENT, UsageError, "No such file"),
    ],
)
def test_failures_are_told_in_words(number: int, kind: type[Exception], says: str) -> None:
    found = write_failure("out.onnx", OSError(number, os.strerror(number)))
    assert isinstance(found, kind) and says in str(found)


def test_one_file_by_two_names(tmp_path: Path) -> None:
    file, link, hard = tmp_path / "a", tmp_path / "link", tmp_path / "hard"
    file.write_bytes(b"x")
    link.symlink_to(file)
    os.link(file, hard)
    (tmp_path / "other").write_bytes(b"x")
    assert same_file(file, link) and same_file(file, hard) and same_file(file, f"{tmp_path}/./a")
    assert not same_file(file, tmp_path / "other") and not same_file(file, tmp_path / "nothing")
