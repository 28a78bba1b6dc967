"""Labels, ties, barriers and components, without any graph."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxprune.tracing.labels import (
    Constraints,
    Reason,
    as_field,
    as_line,
    components,
    is_barrier,
    varying_axes,
)

WALL, FENCE = Reason("wall", "node", "Op"), Reason("fence")


def naive_components(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    root = list(range(count))
    for a, b in pairs:
        low, high = sorted((root[a], root[b]))
        root = [low if r == high else r for r in root]
    return root


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 30), st.data())
def test_components_are_those_of_the_graph(count: int, data: st.DataObject) -> None:
    node = st.integers(0, count - 1)
    pairs = data.draw(st.lists(st.tuples(node, node), max_size=60))
    a, b = (np.array([p[i] for p in pairs], np.int32) for i in (0, 1))
    assert components(count, a, b).tolist() == naive_components(count, pairs)


def test_components_of_a_long_chain() -> None:
    """Pointer jumping, not one round per link; the order of the links does not matter."""
    count = 100_000
    order = np.random.default_rng(0).permutation(count - 1)
    a, b = np.arange(count - 1, dtype=np.int32)[order], np.arange(1, count, dtype=np.int32)[order]
    assert not components(count, a, b).any()
    assert not components(count, b[::-1], a[::-1]).any()


def test_components_of_nothing() -> None:
    empty = np.empty(0, np.int32)
    assert components(0, empty, empty).tolist() == []
    assert components(3, empty, empty).tolist() == [0, 1, 2]


def test_fresh_labels_follow_each_other() -> None:
    ledger = Constraints()
    assert ledger.fresh("w", 0, 3).tolist() == [0, 1, 2]
    assert ledger.fresh("v", 1, 2).tolist() == [3, 4]
    assert [(o.tensor, o.axis, o.size, o.first) for o in ledger.owners] == [("w", 0, 3, 0), ("v", 1, 2, 3)]


def test_an_axis_has_no_fewer_positions_than_none() -> None:
    ledger = Constraints()
    with pytest.raises(ValueError, match="the size -2147483648"):
        ledger.fresh("w", 0, -(2**31))
    assert ledger.fresh("v", 0, 2).tolist() == [0, 1] and ledger.solve().count == 2


def test_a_reason_is_one_barrier() -> None:
    ledger = Constraints()
    wall = ledger.barrier(WALL)
    assert wall is ledger.barrier(Reason("wall", "node", "Op"))
    assert is_barrier(wall)
    assert not is_barrier(ledger.fresh("w", 0, 1))
    assert ledger.barrier(FENCE)[0] != wall[0]


def test_solving_without_ties() -> None:
    ledger = Constraints()
    ledger.fresh("w", 0, 3)
    classes = ledger.solve()
    assert (classes.count, classes.of.tolist(), classes.free.tolist()) == (3, [0, 1, 2], [True] * 3)


def test_solving_nothing() -> None:
    classes = Constraints().solve()
    assert (classes.count, len(classes.of), len(classes.fixes)) == (0, 0, 0)


def test_ties_join_and_barriers_fix() -> None:
    ledger = Constraints()
    a, b, c = (ledger.fresh(name, 0, 3) for name in "abc")
    ledger.tie(a, b)
    ledger.tie(b[:1], c[:1])
    ledger.fix(c[1:2], WALL)
    ledger.fix(b[2:], FENCE)
    classes = ledger.solve()
    assert classes.of[a[0]] == classes.of[b[0]] == classes.of[c[0]]
    assert classes.of[a[1]] == classes.of[b[1]] != classes.of[c[1]]
    free = classes.free[classes.of]
    assert free[a].tolist() == [True, True, False]
    assert free[c].tolist() == [True, False, True]
    found = {(int(k), ledger.reasons[r].text) for k, r in classes.fixes}
    assert found == {(int(classes.of[c[1]]), "wall"), (int(classes.of[a[2]]), "fence")}


def test_a_tie_broadcasts() -> None:
    ledger = Constraints()
    line, field = ledger.fresh("line", 0, 2), ledger.fresh("field", 0, 6).reshape(3, 2)
    ledger.tie(line, field)
    classes = ledger.solve()
    assert (classes.of[field] == classes.of[line]).all()
    assert classes.count == 2


def test_a_tie_to_a_barrier_fixes_all() -> None:
    ledger = Constraints()
    line = ledger.fresh("w", 0, 4)
    ledger.tie(line, ledger.barrier(WALL))
    assert not ledger.solve().free.any()


def test_barriers_inside_a_line_fix_only_their_partners() -> None:
    """Concatenation and padding put barriers beside labels."""
    ledger = Constraints()
    line = ledger.fresh("w", 0, 4)
    mixed = np.concatenate([ledger.barrier(WALL), ledger.fresh("v", 0, 2), ledger.barrier(FENCE)])
    ledger.tie(line, mixed)
    classes = ledger.solve()
    assert classes.free[classes.of[line]].tolist() == [False, True, True, False]
    assert sorted(ledger.reasons[r].text for _, r in classes.fixes) == ["fence", "wall"]


def test_barriers_tied_to_each_other_are_nothing() -> None:
    ledger = Constraints()
    ledger.tie(ledger.barrier(WALL), ledger.barrier(FENCE))
    ledger.fix(ledger.barrier(WALL), FENCE)
    assert len(ledger.solve().fixes) == 0


def test_a_class_keeps_every_reason() -> None:
    ledger = Constraints()
    line = ledger.fresh("w", 0, 1)
    for reason in (WALL, FENCE, WALL):
        ledger.fix(line, reason)
    assert len(ledger.solve().fixes) == 2


def test_balances_are_per_row_and_per_shape() -> None:
    """The same labels as 2 x 6 and as 3 x 4 are two constraints."""
    ledger = Constraints()
    line = ledger.fresh("w", 0, 12)
    ledger.balance(line.reshape(2, 6), 1)
    ledger.balance(line.reshape(2, 6), 1)
    ledger.balance(line.reshape(3, 4), 1)
    ledger.balance(line.reshape(2, 6), 0)
    assert [b.shape for b in ledger.solve().balances] == [(2, 6), (3, 4), (6, 2)]


def test_a_barrier_in_a_balanced_row_is_a_position_that_stays() -> None:
    ledger = Constraints()
    rows = np.stack([ledger.fresh("w", 0, 2), np.concatenate([ledger.fresh("v", 0, 1), ledger.barrier(WALL)])])
    ledger.balance(rows, 1)
    (found,) = ledger.solve().balances
    assert found.tolist() == [[0, 1], [2, -1]]


def test_choosing_follows_the_policy() -> None:
    labels = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert Constraints().choose(("node", 1), labels, (0, 1)) == 1
    ledger = Constraints({("node", 1): 0})
    assert ledger.choose(("node", 1), labels, (0, 1)) == 0
    assert ledger.choices[0].shrinking == 0


def test_a_row_remembers_its_split() -> None:
    ledger = Constraints()
    line = ledger.row(("node", 1), 0, WALL)
    assert ledger.row_of(line) == (("node", 1), 0)
    assert ledger.row_of(ledger.barrier(FENCE)) is None
    assert ledger.row_of(ledger.fresh("w", 0, 1)) is None


@pytest.mark.parametrize(("axis", "rank", "shape"), [(0, 3, (4, 1, 1)), (2, 3, (1, 1, 4)), (0, 1, (4,))])
def test_lines_and_fields(axis: int, rank: int, shape: tuple[int, ...]) -> None:
    line = np.arange(4, dtype=np.int32)
    field = as_field(line, axis, rank)
    assert field.shape == shape
    assert as_line(field, axis).tolist() == line.tolist()


def test_a_field_that_varies_stays_a_field() -> None:
    field = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert as_line(field, 1) is field
    assert as_field(field, 1, 2) is field


@settings(deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=4))
def test_varying_axes(varies: list[bool]) -> None:
    shape = [3 if v else 1 for v in varies]
    array = np.broadcast_to(np.arange(np.prod(shape)).reshape(shape), [3] * len(varies))
    assert varying_axes(array) == [a for a, v in enumerate(varies) if v]
