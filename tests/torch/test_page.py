"""The page "Back to PyTorch": its code runs, and its list of operators is that of the rules."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)

from onnxprune.torch import registry

PAGE = Path(__file__).parents[2] / "docs" / "torch.md"


@pytest.mark.filterwarnings("ignore")
def test_its_code_runs_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_TRANSLATIONS", dict(registry._TRANSLATIONS))
    known: dict[str, object] = {"__name__": "__main__"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    for block in blocks:
        exec(compile(block, "<torch.md>", "exec"), known)
    assert len(blocks) >= 6 and (tmp_path / "trained.onnx").is_file()


def test_its_operators_are_those_with_a_rule() -> None:
    told = re.findall(r"`([A-Za-z0-9]+)`", PAGE.read_text(encoding="utf-8").partition("## Operators")[2])
    assert sorted(set(told)) == sorted({operator for _, operator in registry.translated()})
