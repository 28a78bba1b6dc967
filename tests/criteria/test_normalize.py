"""Scores of different groups made comparable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxprune import api
from onnxprune.allocation import Options, select
from onnxprune.criteria.normalize import normalized
from tests.graphs.net import Net


@pytest.mark.parametrize(
    ("how", "lowest"), [("mean", [1 / 4, 20 / 40]), ("max", [1 / 7, 20 / 60]), ("sum", [1 / 8, 20 / 120]),
                        ("none", [1, 20]), ("standard", [-1.0, -20 / np.sqrt(800 / 3)])]
)  # fmt: skip
def test_normalisation(how: str, lowest: list[float]) -> None:
    got = [normalized(np.array(s, float), how)[0] for s in ([1, 7], [20, 40, 60])]
    np.testing.assert_allclose(got, lowest)
    assert normalized(np.zeros(3), how).tolist() == [0, 0, 0]


def test_a_global_ranking_uses_the_normalisation() -> None:
    net = Net()
    x = net.input([2, 4])
    for index, width in enumerate((6, 6)):
        x = net.add("Relu", net.add("MatMul", x, net.weight(4 if not index else 6, width, name=f"w{index}")))
    net.read(x, 1)
    groups = api.trace(net.proto())
    scores = np.zeros(groups.classes.count)
    scores[groups.groups[0].classes] = [1, 2, 3, 4, 5, 6]
    scores[groups.groups[1].classes] = [100, 101, 102, 103, 104, 900]

    def counts(**given: Any) -> list[int]:
        removed = select(groups, scores, Options(ratio=0.5, allocation="global", **given)).removed
        return [len(removed.get(g.name, ())) for g in groups.groups]

    assert counts(normalize="none") == [5, 1]
    assert counts(normalize="max") == [1, 5]
    assert counts(criterion="lamp") == [5, 1]  # which is compared as it is
    assert counts() == counts(normalize="max") != counts(criterion="lamp")
