"""A Dask cluster as an executor: how it is found, and what is posted to its workers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnxprune.errors import RunError, UsageError
from onnxprune.runtime import dask
from onnxprune.runtime.dask import connected, posted

RECEIVED: dict[str, bytes | None] = {}


def receive(key: str, content: bytes | None) -> None:
    RECEIVED[key] = content


def length_of(key: str) -> int:
    return len(RECEIVED[key] or b"")


def test_a_file_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"), connected(str(tmp_path / "scheduler.json")):
        pass


def test_without_the_library_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match=r"needs dask\.distributed"), connected("tcp://127.0.0.1:1"):
        pass


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed", reason="clusters need dask.distributed")
    monkeypatch.setattr(dask, "PATIENCE", 0.5)
    with pytest.raises(RunError, match="no Dask scheduler answers"), connected("tcp://127.0.0.1:9"):
        pass


def test_content_is_posted_once_and_taken_back() -> None:
    distributed = pytest.importorskip("distributed", reason="clusters need dask.distributed")
    cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None)
    with cluster, connected(cluster.scheduler_address) as client:
        with posted(client, receive, "model", b"12345") as executor:
            assert list(executor.map(length_of, ["model"] * 3)) == [5, 5, 5]
        assert RECEIVED["model"] is None, "in the end workers forget it"
