"""Finished work survives whatever happens to the process that did it."""

import pytest

from onnxprune.cost.latency import store
from onnxprune.errors import UsageError
from onnxprune.runtime import journal
from onnxprune.runtime.journal import Journal, cache_folder, key_of, said_before


def test_what_was_put_is_found_again(tmp_path):
    path = tmp_path / "new" / "j.jsonl"
    Journal(path).put("a", {"x": 1.5}, {"group": "conv"})
    Journal(path).put("b", 2, {})
    again = Journal(path)
    assert (again.get("a"), again.get("b"), again.get("c")) == ({"x": 1.5}, 2, None)


def test_a_torn_line_loses_only_itself(tmp_path):
    path = tmp_path / "j.jsonl"
    for name in "abc":
        Journal(path).put(name, name, {})
    whole = path.read_bytes()
    for cut in range(len(whole) + 1):
        path.write_bytes(whole[:cut])
        kept = [n for n in "abc" if Journal(path).get(n)]
        assert kept == ["a", "b", "c"][: len(kept)]
        assert len(kept) >= whole[:cut].count(b"\n")
        Journal(path).put("d", "d", {})
        assert [n for n in "abcd" if Journal(path).get(n)] == [*kept, "d"]


def test_lines_that_are_no_results_are_passed_over(tmp_path):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'[]\n7\n{"key": 1}\nnot json\n\xff\xfe\n{"key": "a", "result": 3}\n')
    assert Journal(path).get("a") == 3


def test_a_file_that_cannot_be_used_is_said(tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        Journal(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot"):
        Journal(tmp_path / "file" / "j.jsonl").put("a", 1, {})


def test_keys_follow_content_and_not_its_order():
    assert key_of(a=1, b=[2, 3]) == key_of(b=[2, 3], a=1) != key_of(a=1, b=[3, 2])


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


@pytest.mark.parametrize(
    ("platform", "name", "below"),
    [("linux", "XDG_CACHE_HOME", ""), ("win32", "LOCALAPPDATA", ""), ("darwin", "HOME", "Library/Caches")],
)
def test_the_folder_is_that_of_the_platform(monkeypatch, tmp_path, platform, name, below):
    monkeypatch.delenv("ONNXPRUNE_CACHE", raising=False)
    monkeypatch.setattr(journal.sys, "platform", platform)
    monkeypatch.setenv(name, str(tmp_path))
    assert cache_folder() == tmp_path / below / "onnxprune"
    assert store.folder() == cache_folder() / "latency"


@pytest.mark.parametrize(
    "content", [b"hi\n", b"\x08\x08\x12\x09onnxprune\x00", b"[]\n7\n", b'{"format": "x"}\n', b"\n"]
)
def test_another_file_is_not_appended_to(tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="mine is no file of kept results"):
        Journal(path)
    assert path.read_bytes() == content


def test_what_was_said_is_noted_for_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "cache"))
    assert [said_before(text) for text in ("a", "a", "b", "b")] == [False, True, False, True]
    (tmp_path / "file").touch()
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "file"))
    assert not said_before("a") and not said_before("a")
