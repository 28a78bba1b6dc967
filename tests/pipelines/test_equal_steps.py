"""Steps that change no output: those that do are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from onnxprune.model import Model, load
from onnxprune.pipelines.equal_steps import largest_equal
from onnxprune.proof import Trials
from onnxprune.tracing import Groups, trace
from tests.graphs.linear import bottleneck


def with_factors(groups: Groups, steps: Sequence[tuple[str, float]]) -> Model:
    """The model with some of its weights multiplied."""
    model = groups.model
    scaled = {name: partial(np.asarray, (model.array(name) * factor).astype(np.float32)) for name, factor in steps}
    return replace(model, values={**model.values, **scaled})


def test_only_steps_that_change_nothing_are_carried_out() -> None:
    groups = trace(load(bottleneck()))
    steps = [("stem", 1.0), ("classes", 2.0), ("expand0", 1.0)]
    found, left = largest_equal(groups, steps, with_factors, Trials())
    assert left == (("stem", 1.0), ("expand0", 1.0))
    np.testing.assert_array_equal(found.array("classes"), groups.model.array("classes"))


def test_steps_that_cancel_are_not_carried_out_alone() -> None:
    groups = trace(load(bottleneck(blocks=0)))
    none, left = largest_equal(groups, [("classes", 2.0)], with_factors, Trials())
    assert left == ()
    assert none is groups.model
    assert largest_equal(groups, [], with_factors, Trials()) == (groups.model, ())
