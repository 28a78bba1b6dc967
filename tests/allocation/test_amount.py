"""Amounts as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxprune.allocation.amount import Amount, read_amount
from onnxprune.allocation.kinds import KINDS
from onnxprune.errors import UsageError
from tests.cli.conftest import run

__all__ = ["run"]

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


@pytest.mark.parametrize(
    ("kind", "text", "amount"),
    [
        ("macs", "50%", Amount(0.5, True)),
        ("macs", "2.1G", Amount(2.1e9)),
        ("params", "2m", Amount(2e6)),
        ("params", 12345, Amount(12345.0)),
        ("size", "20MB", Amount(2e7)),
        ("size", "1.5 MiB", Amount(1.5 * 2**20)),
        ("memory", "512KiB", Amount(2.0**19)),
        ("latency", "12ms", Amount(0.012)),
        ("latency", "60 %", Amount(0.6, True)),
        ("latency", 0.25, Amount(0.25)),
        ("latency", np.float32(0.25), Amount(0.25)),
    ],
)
def test_amounts(kind: str, text: Any, amount: Amount) -> None:
    found = read_amount(kind, KINDS[kind].unit, text)
    assert found.relative == amount.relative and found.value == pytest.approx(amount.value)


@pytest.mark.parametrize(
    ("kind", "text"),
    [("macs", "lots"), ("macs", "0"), ("macs", "-5"), ("macs", "120%"), ("macs", "12ms"), ("macs", "0.5"),
     ("size", "20"), ("latency", "12"), ("latency", "5MB"), ("size", ""), ("params", "nan"), ("params", float("nan")),
     ("macs", 0.5), ("size", 0.9), ("macs", "1e400"), ("size", "1e300 TiB"), ("latency", float("inf"))],
)  # fmt: skip
def test_what_is_no_amount(kind: str, text: Any) -> None:
    with pytest.raises(UsageError, match=f"{kind}: .* is not an amount") as caught:
        read_amount(kind, KINDS[kind].unit, text)
    assert "50%" in caught.value.hint
