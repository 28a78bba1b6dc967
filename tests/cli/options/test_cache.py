"""Where finished work is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxprune.cli.options.cache import Cache, _cache
from onnxprune.errors import UsageError

DIGEST = "sha256:" + "ab" * 32


def test_a_file_per_model_and_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    cache = Cache(None, False)
    one, other, again = cache.path("search", DIGEST), cache.path("sensitivity", DIGEST), cache.path("search", DIGEST)
    assert one == again != other and one is not None and Path(one).is_relative_to(tmp_path)
    assert cache.path("search", "sha256:" + "cd" * 32) != one and Path(one).name == "ab" * 12 + ".jsonl"


def test_a_file_of_ones_own_or_none() -> None:
    assert Cache("mine.jsonl", False).path("search", DIGEST) == "mine.jsonl"
    assert Cache(None, True).path("search", DIGEST) is None
    with pytest.raises(UsageError, match="--cache and --no-cache cannot both be given"):
        _cache("mine.jsonl", True)
