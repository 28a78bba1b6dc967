"""Every criterion against its definition, written out in loops."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import pytest

import onnxprune
from onnxprune import api, criteria
from onnxprune.criteria.aggregate import AGGREGATIONS
from onnxprune.criteria.normalize import NORMALIZATIONS
from onnxprune.layers import statistics
from tests.criteria.nets import batches


def test_the_page_has_every_criterion_as_it_is() -> None:
    """Name, source, whether it needs data, and how it combines and compares."""
    page = (Path(onnxprune.__file__).parents[1] / "docs" / "criteria.md").read_text()
    rows = {}
    for line in re.findall(r"(?m)^\| `[\w-]+` \|.*\|.*\|.*\|.*\|.*\|$", page):
        name, _, source, data, aggregate, normalize = (cell.strip(" `") for cell in line.strip("|").split("|"))
        rows[name] = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", source), data == "yes", aggregate, normalize)
    known = {k.name: (k.source, k.needs_data, k.aggregate, k.normalize) for k in criteria.KNOWN.values()}
    assert {n: row for n, row in rows.items() if n != "ensemble"} == known
    assert rows["ensemble"][3] == criteria.known("ensemble").normalize
    told = re.findall(r"(?m)^\| `(\w+)` \| [^|]*\|$", page)
    assert told == [*AGGREGATIONS, *NORMALIZATIONS]


def test_the_command_line_offers_what_there_is() -> None:
    """Its lists are written out, so that help needs no numpy."""
    from onnxprune.cli.prune import prune

    offered = {p.name: getattr(p.type, "choices", ()) for p in prune.params}
    assert set(offered["aggregate"]) == set(AGGREGATIONS)
    assert set(offered["normalize"]) == set(NORMALIZATIONS)


@pytest.mark.parametrize("taken", [1, 1 << 28])
def test_tensors_are_taken_in_portions(net: onnx.ModelProto, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "TAKEN", taken)
    groups, calls = api.trace(net), []
    walk = statistics.ActivationReader.read
    monkeypatch.setattr(
        statistics.ActivationReader, "read", lambda self, some: (calls.append(len(some)), walk(self, some))[1]
    )
    criteria.score(groups, "wanda", runs=batches())
    assert calls == ([1, 1] if taken == 1 else [2])
