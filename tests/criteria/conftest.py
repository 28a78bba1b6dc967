"""Fixtures of these tests."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.criteria.nets import batches, convolutions, values_of


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return convolutions()


@pytest.fixture(scope="module")
def hidden(net: onnx.ModelProto) -> np.ndarray:
    """What b and c read: [samples, channel, places]."""
    name = next(n.output[0] for n in net.graph.node if n.op_type == "Relu")
    found = values_of(net, name, batches())
    assert (found == 0).any()
    return found.reshape(len(found), 8, -1)
