"""Criteria by name, and what they need."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import criteria
from onnxprune.errors import UsageError
from onnxprune.tracing import Groups
from tests.criteria.nets import DATA, batches


@pytest.mark.parametrize("name", [*DATA, "obs", "ensemble:l2,wanda"])
def test_data_is_asked_for(net: onnx.ModelProto, name: str) -> None:
    with pytest.raises(UsageError, match="needs inputs") as caught:
        onnxprune.make_plan(net, criterion=name)
    assert "--data" in caught.value.hint
    plan = onnxprune.make_plan(net, criterion=name, data=batches())
    assert plan.options["criterion"] == name


def test_a_criterion_of_ones_own_with_data(net: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteria, "KNOWN", dict(criteria.KNOWN))
    seen = []

    def brightness(groups: Groups, rng: np.random.Generator, runs: Any) -> np.ndarray:
        seen.append(sum(len(feeds["x"]) for feeds in runs))
        return np.arange(groups.classes.count, dtype=float)

    criteria.register_criterion("brightness", brightness, needs_data=True)
    with pytest.raises(UsageError, match="needs inputs"):
        onnxprune.make_plan(net, criterion="brightness")
    onnxprune.prune(net, criterion="brightness", data=batches())
    assert seen == [2 + 3 + 4]
    with pytest.raises(UsageError, match="a colon and a comma"):
        criteria.register_criterion("a:b", brightness)


def test_every_criterion_says_what_it_is() -> None:
    for known in criteria.KNOWN.values():
        assert known.summary and (known.source or known.name == "random")
    assert [k.name for k in criteria.listed()] == criteria.names()
