"""Mean ranks of several criteria."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxprune import api, criteria
from onnxprune.errors import UsageError
from tests.criteria.nets import batches


def test_ensemble(net: onnx.ModelProto) -> None:
    """The mean of the ranks among the units of all groups, each after its own normalisation."""
    groups, runs = api.trace(net), batches()
    places = np.concatenate([g.classes for g in groups.groups])
    wanted = np.zeros(len(places))
    for name in ("l2", "apoz"):
        scores = criteria.score(groups, name, runs=runs)
        most = np.max if name == "l2" else np.mean
        flat = np.concatenate([scores[g.classes] / most(scores[g.classes]) for g in groups.groups])
        wanted += [((flat < v).sum() + (flat <= v).sum() - 1) / 2 / (len(flat) - 1) for v in flat]
    got = criteria.score(groups, "ensemble:l2,apoz", runs=runs)
    np.testing.assert_allclose(got[places], wanted / 2)
    assert got[places].min() >= 0 and got[places].max() <= 1


def test_an_ensemble_that_names_nothing_uses_data_where_there_is_some(net: onnx.ModelProto) -> None:
    groups, runs = api.trace(net), batches()
    for given, members in (([], "l2,fpgm"), (runs, "l2,wanda,fluctuation")):
        got, wanted = (criteria.score(groups, name, runs=given) for name in ("ensemble", f"ensemble:{members}"))
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(("name", "what"), [("ensemble:l2,l3", "'l3'"), ("ensemble:", "''")])
def test_an_ensemble_of_what_does_not_exist(net: onnx.ModelProto, name: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        criteria.score(api.trace(net), name)
