"""Factors on the inputs that the changed model gives."""

from __future__ import annotations

from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.model import load
from onnxprune.pipelines.low_rank import factorised
from onnxprune.pipelines.run_inputs import RunInputs
from tests.pipelines.test_low_rank import DATA, DIGITS


def test_data_make_it_better_and_a_fit_in_sequence_better_still():
    judged = {}
    for name, options in {
        "plain": {"method": "plain", "recover": False},
        "whitened": {"recover": False},
        "fitted": {},
    }.items():
        chosen = LowRankOptions(ratio=0.7, round_to=1, allow_slower=True, **options)
        done = factorised(load(DIGITS), chosen, RunInputs(DATA, 256))
        assert done.judged is not None
        judged[name] = done.judged.error
    assert judged["fitted"] < judged["whitened"] < judged["plain"]
