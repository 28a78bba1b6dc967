"""Cores that this process may use."""

from __future__ import annotations

import os

import pytest

from onnxprune.system import cores, processors, quota


@pytest.mark.parametrize(
    ("text", "granted"),
    [("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("max 100000", None), ("", None)],
)
def test_the_quota_of_a_container(text: str, granted: int | None, tmp_path, monkeypatch) -> None:
    file = tmp_path / "cpu.max"
    file.write_text(text)
    monkeypatch.setattr(processors, "_QUOTA", file)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert (quota(), cores()) == (granted, granted or 8)


def test_without_a_container_the_affinity_says_how_many(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(processors, "_QUOTA", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3}, raising=False)
    assert quota() is None and cores() == 1
