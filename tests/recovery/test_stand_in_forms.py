"""Forms of what stands in for blocks: each is what its formula says."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune.model import to_proto
from onnxprune.recovery.spans import FOLD, MAP, NOTHING, SCALE
from tests.graphs.net import run
from tests.pipelines.test_drop import dropped, residual

DATA = np.random.default_rng(0).standard_normal((512, 6)).astype(np.float32)
FORMS = {FOLD, MAP, SCALE, NOTHING, f"{FOLD}+{MAP}", f"{FOLD}+{SCALE}"}


@pytest.mark.parametrize("width", [8, 24])
def test_what_stands_in_is_in_the_model(width: int) -> None:
    done = dropped(residual(3, width).proto(), [{"x": DATA}], count=1)
    (stand,) = done.stand_ins
    assert stand.form in FORMS and done.bare is not None and done.judged is not None
    assert done.judged.error <= done.bare.error
    small = to_proto(done.model)
    added = done.after.params - (done.before.params - sum(s.params for s in done.dropped))
    assert added == stand.params, "as many numbers as it says"
    assert set(run(small, feeds={"x": DATA[:3]})) == {o.name for o in small.graph.output}


def test_a_plan_carries_it_out_again() -> None:
    proto = residual(3).proto()
    done = dropped(proto, [{"x": DATA}], count=1)
    assert done.verdict is not None and done.verdict.ok
    assert done.repaired_verdict is None or done.repaired_verdict.ok
    again = onnxprune.apply(proto, done.plan, verify=False)
    assert len(again.graph.node) <= len(to_proto(done.model).graph.node)
