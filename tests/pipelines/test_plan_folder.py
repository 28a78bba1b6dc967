"""Plans of folders: what `prune_folder` carries out, as text too."""

from __future__ import annotations

from pathlib import Path

import pytest

import onnxprune
from onnxprune.errors import UsageError
from tests.graphs.folders import Family, write_decoder, write_pair


def test_the_plan_is_that_of_pruning(tmp_path: Path) -> None:
    source = write_pair(tmp_path / "whole", Family(layers=1))
    plan, done = onnxprune.plan_folder(source, 0.5), onnxprune.prune_folder(source, tmp_path / "small", 0.5)
    assert plan == done.plan and any(step.remove for step in plan.steps)
    assert onnxprune.Plan.from_json(plan.to_json()).to_json() == done.plan.to_json()


def test_budgets_and_sizes(tmp_path: Path) -> None:
    source = write_decoder(tmp_path / "whole", Family(key_heads=8))
    plan = onnxprune.plan_folder(source, params="60%", sizes={"batch": 2})
    assert plan.options["sizes"]["batch"] == 2
    done = onnxprune.prune_folder(source, tmp_path / "small", params="60%", sizes={"batch": 2})
    assert plan == done.plan


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        onnxprune.plan_folder(tmp_path / "nowhere")
    with pytest.raises(TypeError, match="unknown keyword argument 'verify'"):
        onnxprune.plan_folder(tmp_path, verify=False)  # type: ignore[call-arg]
