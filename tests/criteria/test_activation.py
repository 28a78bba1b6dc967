"""Means of what is read."""

from __future__ import annotations

import numpy as np
import onnx

from tests.criteria.nets import batches, scored


def test_activation(net: onnx.ModelProto, hidden: np.ndarray) -> None:
    wanted = [np.abs(hidden[:, i]).mean() for i in range(8)]
    np.testing.assert_allclose(scored(net, "activation", "a", 0, runs=batches()), wanted, rtol=1e-5)
