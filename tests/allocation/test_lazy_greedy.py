"""Blocks that go one after the other, with few looks at what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from onnxprune.allocation import LazyGreedy
from onnxprune.progress import WorkPart


def least(prices: Mapping[str, float]) -> str:
    return min(prices, key=prices.__getitem__)


def chosen_one_by_one(damage, names: list[str], count: int) -> list[str]:
    """What goes where every price is measured every time."""
    gone: list[str] = []
    for _ in range(count):
        gone.append(min((name for name in names if name not in gone), key=lambda name: damage([*gone, name])))
    return gone


@pytest.mark.parametrize("seed", range(20))
def test_where_damage_grows_faster_with_more_gone_the_choice_is_that_of_all_measurements(seed: int) -> None:
    rng, names, looked = np.random.default_rng(seed), [f"b{i}" for i in range(12)], list[str]()
    own = dict(zip(names, rng.random(12), strict=True))
    beside = {(a, b): rng.random() for a in names for b in names}

    def damage(gone: list[str]) -> float:
        return sum(own[name] for name in gone) + sum(beside[a, b] for i, a in enumerate(gone) for b in gone[:i])

    gone: list[str] = []

    def one(without: Sequence[str]) -> float:
        assert without[:-1] == gone
        looked.append(without[-1])
        return damage([*without])

    lazy = LazyGreedy(one, lambda stage: None)
    while len(gone) < 5:
        found = lazy.next([name for name in names if name not in gone], least)
        assert found is not None
        gone.append(found)
    assert gone == lazy.gone == chosen_one_by_one(damage, names, 5)
    assert lazy.damages[gone[-1]] == pytest.approx(damage(gone))
    assert len(looked) < 12 + 11 + 10 + 9 + 8


def test_the_choice_may_take_none_and_a_price_is_what_damage_grows_by() -> None:
    seen: list[Mapping[str, float]] = []
    lazy = LazyGreedy(lambda names: {"a": 1.0, "b": 2.0}[names[-1]] + 3 * len(names[:-1]), lambda stage: None)
    assert lazy.next(["a", "b"], least) == "a"
    assert lazy.next(["b"], lambda prices: seen.append(dict(prices))) is None
    assert seen == [{"b": 2.0}] and lazy.gone == ["a"]
    assert lazy.next(["b"], least) == "b" and lazy.damages["b"] == 5.0


def test_every_look_is_told() -> None:
    told: list[str] = []
    lazy = LazyGreedy(lambda names: float(len(names[:-1]) + len(names[-1])), told.append)
    lazy.next(["a", "bb"], least)
    assert told == ["looking at block 1 of 2", "looking at block 2 of 2"] and isinstance(told[0], WorkPart)
    lazy.next(["bb"], least)
    assert told[2:] == ["looking at block bb again, 1 dropped"]
