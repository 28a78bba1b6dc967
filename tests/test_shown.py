"""Results show themselves, and import for it only when they do."""

from __future__ import annotations

import onnxprune
from onnxprune.shown import Shown
from tests.structure.tree import ROOT
from tests.test_lazy import imported

MODELS = ROOT.parent / "models"


def test_results_are_shown() -> None:
    results = [getattr(onnxprune, name) for name in onnxprune.__all__ if name.endswith("Result")]
    assert results and all(issubclass(kind, Shown) for kind in (*results, onnxprune.Groups, onnxprune.Sensitivity))


def test_the_text_of_a_result_loads_nothing_that_is_optional() -> None:
    code = f"import onnxprune; result = onnxprune.shrink({str(MODELS / 'digits.onnx')!r})"
    assert not imported(code) & {"onnxprune.report.notebook", "jinja2", "matplotlib", "pandas"}
    assert not imported(f"{code}; repr(result); result._repr_html_()") & {"jinja2", "matplotlib", "pandas"}
