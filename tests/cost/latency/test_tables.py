"""Width-to-time tables: what lies between the widths that were measured, and what is read back from disk."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from onnxprune.cost.latency.operators import Letter
from onnxprune.cost.latency.tables import ALL, Table, plan, reachable
from onnxprune.cost.latency.timer import _hull, alignment


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
