"""Requests of calibration data."""

from __future__ import annotations

import pytest

from onnxprune.calibration import Source, wanted_by
from onnxprune.calibration.source import Request
from onnxprune.errors import UsageError
from onnxprune.model import load
from tests.graphs.net import Net


def request(inputs: int) -> Request:
    net = Net()
    names = [net.input(["n", 4]) for _ in range(inputs)]
    net.output(net.add("Sum", *names), ["n", 4])
    model = load(net.proto())
    return Request(model, wanted_by(model), 16, {}, Source(None))


def test_the_only_input() -> None:
    assert request(1).only("a folder of images").name == "x"


def test_several_inputs_cannot_be_told_apart() -> None:
    with pytest.raises(UsageError, match="a folder of images fits models with one input, this one has 2: x, x1"):
        request(2).only("a folder of images")
