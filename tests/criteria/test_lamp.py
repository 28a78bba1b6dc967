"""Layer-adaptive magnitude."""

from __future__ import annotations

import numpy as np
import onnx

from tests.criteria.nets import held, scored


def test_lamp(net: onnx.ModelProto) -> None:
    power = [float(np.square(np.concatenate(parts)).sum()) for parts in held(net)]
    wanted = [p / sum(q for q in power if q >= p) for p in power]
    np.testing.assert_allclose(scored(net, "lamp", "a", 0), wanted, rtol=1e-5)
