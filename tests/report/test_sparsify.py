"""The account of zeros."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from onnxprune.report import numbers
from onnxprune.report import sparsify as report
from onnxprune.runtime import Agreement
from onnxprune.runtime.bench import Place
from onnxprune.runtime.paired_timing import TimeRatio
from onnxprune.sparsity import Eligible, Speed
from tests.report.runs import plain, sparsified


def test_lines_say_how_many_zeros_and_what_they_do() -> None:
    done = sparsified(pattern="2:4")
    lines = report.sparsify_lines(done, nonzeros=(200, 100))
    text = "\n".join(lines)
    share = numbers.percent(sum(w.zeros for w in done.weights), sum(w.elements for w in done.weights))
    assert "-50.0 %" in text and "2:4, by magnitude" in text and f"{share} of {len(done.weights)} weights" in text
    assert [line for line in lines if line.startswith("proof")], "it was proven"
    assert not [line for line in lines if line.startswith(("outputs", "re-fit", "speed"))], "nothing of these was done"


def test_data_are_the_same_figures() -> None:
    done = sparsified(pattern="2:4")
    found = plain(report.sparsify_data(done, nonzeros=(200, 100)))
    assert found["before"]["nonzeros"] == 200 and found["after"]["nonzeros"] == 100
    assert {w["name"]: w["zeros"] / w["elements"] for w in found["weights"]}["fc.weight"] == 0.5
    assert found["proof"]["ok"] is True and found["outputs"] is found["training"] is found["speed"] is None


def test_a_plan_says_its_zeros() -> None:
    done = sparsified(pattern="2:4")
    (line,) = report.zeros_lines(done.plan)
    assert f"of {len(done.weights)} weights" in line
    assert report.zeros_lines(replace(done.plan, zeros=())) == []


def test_what_could_not_be_changed_is_named() -> None:
    done = replace(sparsified(pattern="2:4"), left={f"w{i}": "is small" for i in range(5)})
    named = [line for line in report.sparsify_lines(done, nonzeros=(2, 1)) if "stays as it is" in line]
    assert len(named) == report.MOST and "'w0' stays as it is: is small" in named[0]


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (TimeRatio(0.5, 0.45, 0.55), "faster"),
        (TimeRatio(1.0, 0.9, 1.1), "no faster"),
        (TimeRatio(2, 1.9, 2.1), "SLOWER"),
        (TimeRatio(0.997, 0.994, 0.999), "no faster"),
        (TimeRatio(1.003, 1.001, 1.005), "no faster"),
    ],
)
def test_speed_in_words(ratio: TimeRatio, said: str) -> None:
    speed = Speed(0.001, 0.001 * ratio.value, ratio, Place())
    assert report.speed_text(speed).startswith(f"{said}: 1") and "all cores" in report.speed_text(speed)
    assert report.speed_data(speed)["faster"] is (said == "faster")


def test_agreement_in_words_and_as_data() -> None:
    known = Agreement(error=0.01, sqnr=20.0, cosine=0.9, top1=0.95, kl=math.inf, rows=3)
    assert report.agreement_text(known) == "20.0 dB, same class 95%"
    data = report.agreement_data(known)
    assert data is not None and data["sqnr"] == 20.0 and data["kl"] is None
    assert report.agreement_data(None) is None


def test_layers_for_tensorrt() -> None:
    layers = (Eligible("w", "good"), Eligible("v", "bad", "it has groups"))
    lines = report.sparsify_lines(replace(sparsified(pattern="2:4"), eligible=layers), nonzeros=(2, 1))
    assert any("1 of 2 layers are of a kind that has 2:4 kernels (good)" in line for line in lines)
    assert any("not bad: it has groups" in line for line in lines)
