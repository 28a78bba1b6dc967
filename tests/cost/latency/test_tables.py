"""Width-to-time tables: what lies between the widths that were measured, and what is read back from disk."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from onnxprune.cost.latency import store
from onnxprune.cost.latency.operators import Letter
from onnxprune.cost.latency.tables import ALL, Table, plan, reachable
from onnxprune.cost.latency.timer import _hull, alignment
from onnxprune.runtime import Setting

ONE = Setting(threads=1)


def blocks(c, m):
    """Output channels in blocks of 8; a slower kernel where input channels are no multiple of 4."""
    return (2 + 0.01 * c * np.ceil(m / 8) * 8) * np.where(c % 4, 1.3, 1.0)


def plain(k, n):
    return 5 + 0.002 * k * n


def packed(k, n):
    """A product of matrices: columns in blocks of 16."""
    return 5 + 0.002 * k * np.ceil(n / 16) * 16


def measured(letters, time):
    operator = SimpleNamespace(letters=letters, base=tuple(x.base for x in letters))
    return Table(letters, {n: float(time(*map(np.float64, n))) for n in plan(operator)})


def letter(base, step=1):
    return Letter(0, base, base, step)


@pytest.mark.parametrize("time", [blocks, plain, packed])
@pytest.mark.parametrize("bases", [(64, 64), (16, 24), (144, 24), (512, 256), (90, 250)])
def test_between_what_was_measured(time, bases):
    table = measured(tuple(map(letter, bases)), time)
    rng = np.random.default_rng(0)
    at = np.stack([rng.integers(max(1, n // 10), n + 1, 2000) for n in bases], axis=1)
    wanted = time(at[:, 0], at[:, 1])
    error = np.abs(table(at) / wanted - 1)
    assert np.median(error) < 0.02 and np.quantile(error, 0.9) < 0.08
    assert table(np.array(bases)) == pytest.approx(float(time(*bases)))


def test_far_fewer_points_than_widths():
    operator = SimpleNamespace(letters=(letter(512), letter(512)), base=(512, 512))
    assert len(plan(operator)) < 170


def test_whole_heads_are_measured_at_every_number_of_them():
    heads = letter(768, 64)
    assert list(reachable(heads)) == list(range(64, 769, 64))
    table = measured((heads, letter(64)), plain)
    assert set(range(64, 769, 64)) == {n for n, m in table.seconds if m == 64}


@pytest.mark.parametrize("base", [1, 2, ALL, ALL + 1, 31, 33, 63, 65])
def test_any_length_has_a_time(base):
    table = measured((letter(base),), lambda n: 3.0 + n)
    assert table(np.arange(1, base + 1)[:, None]) == pytest.approx(3.0 + np.arange(1, base + 1), rel=0.01)


# --- alignment --------------------------------------------------------------------------------------------


def told(base, time, kind="channel"):
    """A prediction of one group that one operator reads and another makes."""
    about = SimpleNamespace(kind=kind, members=[SimpleNamespace(size=base, positions=base)], units=base)
    widths = SimpleNamespace(count=1, groups=SimpleNamespace(groups=[about]), units=lambda group: base)
    return SimpleNamespace(
        widths=widths, changed=lambda counts, group, allowed: (np.array([0]), np.asarray(time(base - allowed))[:, None])
    )


@pytest.mark.parametrize("base", [24, 32, 64])
def test_blocks_are_found(base):
    assert alignment(told(base, lambda n: blocks(n, n)), 0) == 8
    assert alignment(told(base, lambda n: plain(64, n)), 0) == 1


@pytest.mark.parametrize("base", [64, 96, 256])
def test_larger_blocks_and_slow_kernels(base):
    assert alignment(told(base, lambda n: packed(64, n)), 0) in (8, 16)
    assert alignment(told(64, lambda n: packed(64, n)), 0) == 16
    assert alignment(told(base, lambda n: (5 + n) * np.where(n % 4, 1.3, 1.0)), 0) == 4


def test_heads_and_what_costs_nothing_are_not_rounded():
    assert alignment(told(64, lambda n: packed(64, n), "head"), 0) == 1
    assert alignment(told(64, lambda n: n * 0.0), 0) == 1
    assert alignment(told(1, lambda n: n * 1.0), 0) == 1


def test_hull():
    x = np.arange(1, 6)
    assert list(_hull(x, np.array([1.0, 3, 2, 5, 4]))) == [1, 1.5, 2, 3, 4]


# --- on disk ----------------------------------------------------------------------------------------------


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
