"""Tables of times in files."""

from __future__ import annotations

import json

import pytest

from onnxprune.cost.latency import store
from onnxprune.runtime import Setting

ONE = Setting(threads=1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path))
    return tmp_path / "latency"


TIMES = {(8, 16): 1.5e-6, (4, 16): 1e-6}


def test_a_table_comes_back(cache):
    key = store.key({"op": "Conv"}, ONE)
    assert store.read_table(key, list(TIMES)) is None
    store.write(key, {"op": "Conv"}, ONE, TIMES)
    assert store.read_table(key, list(TIMES)) == TIMES
    assert store.read_table(key, [(4, 16)]) == {(4, 16): 1e-6}
    assert store.read_table(key, [(2, 16)]) is None
    assert [p.name for p in cache.iterdir()] == [f"{key}.json"]


def test_all_cores_are_those_that_there_are(monkeypatch):
    keys = []
    for count in (2, 16):
        monkeypatch.setattr(store, "cores", lambda n=count: n)
        keys.append([store.key({"op": "Conv"}, s) for s in (ONE, Setting())])
    assert keys[0][0] == keys[1][0] and keys[0][1] != keys[1][1]


def test_another_machine_or_setting_has_another_table(monkeypatch):
    keys = {store.key({"op": "Conv"}, s) for s in (ONE, Setting(threads=2))}
    keys |= {store.key({"op": "Gemm"}, ONE)}
    monkeypatch.setattr(store, "processor", lambda: "another")
    keys |= {store.key({"op": "Conv"}, ONE)}
    monkeypatch.setattr(store, "runtime_version", lambda: "9.9")
    assert len(keys | {store.key({"op": "Conv"}, ONE)}) == 5


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d | {"format": "other"},
        lambda d: d | {"key": "other"},
        lambda d: {},
        lambda d: [],
        lambda d: None,
        lambda d: d | {"times": 3},
        lambda d: d | {"times": [[8, 1.0]]},
        lambda d: d | {"times": [[[8, 16], "fast"], [[4, 16], 1.0]]},
        lambda d: d | {"times": [[[8, 16], -1.0], [[4, 16], 1.0]]},
        lambda d: d | {"times": [[[8, 16], 0.0], [[4, 16], 1.0]]},
        lambda d: d | {"times": [[[8, 16], float("nan")], [[4, 16], 1.0]]},
        lambda d: d | {"times": [[[8, 16], float("inf")], [[4, 16], 1.0]]},
        lambda d: d | {"times": [[[[8], 16], 1.0]]},
    ],
)
def test_a_file_that_is_no_table_is_measured_again(cache, spoil):
    key = store.key({"op": "Conv"}, ONE)
    store.write(key, {"op": "Conv"}, ONE, TIMES)
    (path,) = cache.iterdir()
    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    assert store.read_table(key, list(TIMES)) is None


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_file_is_measured_again(cache, text):
    cache.mkdir(parents=True)
    (cache / "k.json").write_bytes(text)
    assert store.read_table("k", list(TIMES)) is None


def test_a_huge_file_is_not_read(cache, monkeypatch):
    key = store.key({"op": "Conv"}, ONE)
    store.write(key, {"op": "Conv"}, ONE, TIMES)
    monkeypatch.setattr(store, "LARGEST_FILE", 10)
    assert store.read_table(key, list(TIMES)) is None


def test_a_folder_that_cannot_be_written_to_is_no_failure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ONNXPRUNE_CACHE", str(tmp_path / "file"))
    store.write("k", {}, ONE, TIMES)
    assert store.read_table("k", list(TIMES)) is None
