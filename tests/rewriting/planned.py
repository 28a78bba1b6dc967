"""Plans, and models that they are for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from onnxprune.rewriting import Plan
from tests.graphs.net import Net


def network(batch: int | str = 2, seed: int = 0, width: int = 8, dtype: Any = np.float32) -> onnx.ModelProto:
    """A stem, a grouped convolution that is balanced over two rows, a block with a shared constant, a classifier."""
    net = Net(seed=seed, dtype=dtype)
    x = net.input([batch, 3, 4, 4])
    x = net.add("Conv", x, net.weight(width, 3, 3, 3, name="stem"), net.weight(width, name="bias"), pads=[1, 1, 1, 1])
    ones = net.const(np.ones((width, 1, 1), dtype), "ones")
    x = net.add("Mul", net.add("Relu", x), ones)
    x = net.add("Conv", x, net.weight(6, width // 2, 1, 1, name="grouped"), group=2)
    x = net.add("Relu", x)
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    net.output(net.add("Gemm", x, net.weight(6, 4, name="head")), [batch, 4])
    return net.proto()


def edited(plan: Plan, edit: Callable[[dict[str, Any]], Any]) -> Plan:
    raw = json.loads(plan.to_json())
    edit(raw)
    return Plan.from_json(json.dumps(raw))
