"""Documents as commands print them, each made once."""

from __future__ import annotations

import functools
import json
from typing import Any

import onnxprune
from onnxprune.allocation import Options
from onnxprune.model import load
from onnxprune.pipelines.search import search
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.search_trials import SearchConfig
from onnxprune.recovery import RecoveryOptions
from onnxprune.report import data
from onnxprune.report.difference import difference_of
from tests.report.runs import DIGITS, MODELS, plain

DATA = str(MODELS / "digits_calibration.npz")


@functools.cache
def pruned() -> tuple[dict[str, Any], dict[str, Any]]:
    """The document of `prune` with a repair, and that of `diff`."""
    result = onnxprune.prune(DIGITS, 0.5, data=DATA, samples=32)
    document = data.header("report") | {"model": DIGITS} | data.outcome_json(result.report)
    return plain(document), plain(difference_of(load(DIGITS), load(result.model)))


@functools.cache
def searched() -> dict[str, Any]:
    """The document of `prune` with a search."""
    config = SearchConfig(
        (QualityConstraint("sqnr", 6.0),), recovery=RecoveryOptions("none"), trials=3, samples=32, verify=False
    )
    found = search(load(DIGITS), Options(criterion="l2"), config, DATA)
    return plain(data.header("report") | data.outcome_json(found.outcome) | {"search": found.as_json()})


@functools.cache
def measured() -> dict[str, Any]:
    """The document of `sensitivity`."""
    found = onnxprune.sensitivity(DIGITS, DATA, samples=16, ratios=(0.25, 0.5, 0.75), keep=["fc.weight"])
    return json.loads(json.dumps(found.as_json()))


@functools.cache
def inspected() -> dict[str, Any]:
    """The document of `inspect`."""
    from onnxprune.cost import counts

    return plain(data.header("inspect") | data.inspection_json(onnxprune.trace(DIGITS), counts.of(load(DIGITS))))


BENCHED: dict[str, Any] = {
    "format": "onnxprune-bench",
    "version": 1,
    "models": [
        {"name": name, "inputs": {"x": [1, 3]}, "bytes": 2048, "memory": None, "timings": [
            {"batch": 1, "median": median, "p95": 2 * median, "runs": 20, "throughput": 1 / median,
             "ratio": {"value": median / 1e-3, "low": 0.4, "high": 0.6, "differs": differs}}]}
        for name, median, differs in (("a.onnx", 1e-3, False), ("b.onnx", 5e-4, True))
    ],
}  # fmt: skip
