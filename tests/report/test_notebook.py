"""Results in notebooks: the same for all of them."""

from __future__ import annotations

import functools
import sys
from typing import Any

import pytest

import onnxprune
from onnxprune.allocation import Options
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.pipelines import Curve, Point, Sensitivity
from onnxprune.pipelines.search import search
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.search_trials import SearchConfig
from onnxprune.recovery import RecoveryOptions
from onnxprune.report.notebook import DOCUMENTS, document_of
from onnxprune.runtime.bench import bench
from tests.report.documents import DATA
from tests.report.runs import DIGITS, MODELS
from tests.report.test_page import Parsed

CONFIG = SearchConfig(
    (QualityConstraint("sqnr", 3.0),), recovery=RecoveryOptions("none"), trials=2, samples=32, verify=False
)
TEST = str(MODELS / "digits_test.npz")
MAKERS = {
    "AutoResult": lambda: onnxprune.auto(DIGITS, DATA, params="50%", samples=48, time=8),
    "AutoOutcome": lambda: made("AutoResult").report,
    "PruneResult": lambda: onnxprune.prune(DIGITS, 0.5),
    "Outcome": lambda: onnxprune.prune(DIGITS, 0.5).report,
    "Found": lambda: search(load(DIGITS), Options(criterion="l2"), CONFIG, DATA),
    "CompressResult": lambda: onnxprune.compress(DIGITS, ratio=0.5, exact=True, allow_slower=True),
    "DropResult": lambda: onnxprune.drop(DIGITS, count=1),
    "QuantizeResult": lambda: onnxprune.quantize(DIGITS, data=DATA, samples=64),
    "ShrinkResult": lambda: onnxprune.shrink(DIGITS),
    "SparsifyResult": lambda: onnxprune.sparsify(DIGITS, 0.5),
    "TrainResult": lambda: onnxprune.train(DIGITS, DATA, 3, teacher=DIGITS, samples=32, rate=1e-4),
    "Evaluated": lambda: onnxprune.evaluate([DIGITS, DIGITS], TEST, labels="label", samples=32),
    "Sensitivity": lambda: onnxprune.sensitivity(DIGITS, DATA, samples=16, ratios=(0.5,)),
    "Groups": lambda: onnxprune.trace(DIGITS),
    "Result": lambda: bench([DIGITS], seconds=0.05)[0],
}


@functools.cache
def made(kind: str) -> Any:
    return MAKERS[kind]()


def test_every_kind_of_result_is_known() -> None:
    assert {*MAKERS} == {*DOCUMENTS}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_result_is_one_short_line(kind: str) -> None:
    line = repr(made(kind))
    assert line.startswith(f"{kind}(") and "\n" not in line and len(line) < 120


def test_the_line_says_what_matters() -> None:
    assert repr(made("PruneResult")) == (
        "PruneResult(params 118.3 k -> 30.0 k (-74.7 %), MACs 2.4 M -> 605.7 k (-74.8 %), proven)"
    )
    assert (
        repr(made("Groups")) == "Groups(4 groups, 1 barrier)" and repr(made("Sensitivity")) == "Sensitivity(4 curves)"
    )
    assert repr(made("SparsifyResult")).startswith("SparsifyResult(non-zeros 118.3 k -> 59.3 k (-49.8 %)")


@pytest.mark.parametrize("kind", MAKERS)
def test_a_notebook_shows_a_table(kind: str) -> None:
    parsed = Parsed(made(kind)._repr_html_())
    assert parsed.wrong == [] and parsed.texts["p"][0] == repr(made(kind))
    assert len(parsed.texts["tr"]) >= 2


@pytest.mark.parametrize("kind", MAKERS)
def test_a_page_is_what_the_command_writes(kind: str) -> None:
    parsed = Parsed(made(kind).to_html())
    assert parsed.wrong == [] and parsed.texts["h1"] == [repr(made(kind))]
    assert parsed.json("document")["format"].startswith("onnxprune-")


@pytest.mark.parametrize("kind", MAKERS)
def test_results_are_drawn(kind: str, tmp_path) -> None:
    pytest.importorskip("matplotlib")
    if kind in ("SparsifyResult", "QuantizeResult"):  # all sizes stay
        with pytest.raises(UsageError, match=f"nothing to draw of a {kind}"):
            made(kind).plot()
        return
    drawing = made(kind).plot()
    assert "<svg" in drawing._repr_svg_() and drawing.figure.axes
    drawing.save(tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="no picture is written as"):
        drawing.save(tmp_path / "p.jpg")


# What a data frame has without a name, by its first columns and its rows.
FRAMES = {
    "PruneResult": ("name", 6),
    "Found": ("share", 2),
    "CompressResult": ("name", 6),
    "DropResult": ("name", 6),
    "SparsifyResult": ("name", 6),
    "QuantizeResult": ("name", 6),
    "TrainResult": ("step", 3),
    "Sensitivity": ("group", 4),
    "Groups": ("name", 4),
    "Evaluated": ("model", 2),
    "Result": ("name", 1),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_data_frame_has_the_records_that_tell_most(kind: str) -> None:
    pytest.importorskip("pandas")
    frame = made(kind).to_dataframe()
    assert (frame.columns[0], len(frame)) == FRAMES[kind]


def test_a_data_frame_has_the_records_that_are_named() -> None:
    pytest.importorskip("pandas")
    groups = made("PruneResult").to_dataframe("groups")
    plan = made("PruneResult").plan
    assert list(groups["removed"]) == [len(step.remove) for step in plan.steps]
    layers = made("PruneResult").to_dataframe("layers")
    assert layers["params before"].sum() == made("PruneResult").report.before.params
    curves = made("Sensitivity").to_dataframe()
    expected = [p.values["error"] for c in made("Sensitivity").curves for p in c.points]
    assert list(curves["error"]) == expected
    with pytest.raises(UsageError, match="no records called 'nothing'") as raised:
        made("PruneResult").to_dataframe("nothing")
    assert "groups" in raised.value.hint


def test_without_pandas_it_is_said(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match="data frames need pandas"):
        made("Groups").to_dataframe()


def test_a_long_table_is_cut_and_names_are_text() -> None:
    points = tuple(Point(n, n / 50, {"error": n / 10}) for n in range(1, 31))
    found = Sensitivity((Curve("<b>&", "channel", True, 50, points),), "error", (0.5,))
    parsed = Parsed(found._repr_html_())
    assert len(parsed.texts["tr"]) == 21 and "and 10 more rows: to_dataframe()" in parsed.texts["p"]
    assert "b" not in parsed.texts and "<b>&" in parsed.texts["td"]


def test_documents_are_those_of_the_commands() -> None:
    assert document_of(made("Groups"))["cost"]["params"] == made("PruneResult").report.before.params
    assert document_of(made("Found"))["search"]["trials"]
