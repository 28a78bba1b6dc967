"""Shares of zeros in what is read."""

from __future__ import annotations

import numpy as np
import onnx

from tests.criteria.nets import batches, scored


def test_apoz(net: onnx.ModelProto, hidden: np.ndarray) -> None:
    wanted = [1 - (hidden[:, i] == 0).mean() for i in range(8)]
    np.testing.assert_allclose(scored(net, "apoz", "a", 0, runs=batches()), wanted, rtol=1e-6)
