"""LSTM, GRU and RNN in all their variants."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper

from tests.graphs.node_cases import NodeCase

STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
LENGTHS = np.array([5, 2, 4], np.int32)

# (attributes, which of the optional inputs are given): B bias, L sequence lengths, H and C initial states, P peepholes.
VARIANTS: dict[str, list[tuple[dict[str, Any], str]]] = {
    "LSTM": [
        ({}, ""),
        ({"direction": "bidirectional"}, "BLHCP"),
        ({"direction": "reverse"}, "BLHC"),
        ({"clip": 0.3}, "BHCP"),
        ({"input_forget": 1}, "BHC"),
        (
            {
                "activations": ["HardSigmoid", "ScaledTanh", "Affine"],
                "activation_alpha": [0.3, 1.2, 0.8],
                "activation_beta": [0.4, 0.7, 0.1],
            },
            "BHC",
        ),
        ({"activations": ["Sigmoid", "Softsign", "Softplus"]}, "B"),
        (
            {
                "direction": "bidirectional",
                "activations": ["Sigmoid", "Tanh", "Tanh", "Sigmoid", "LeakyRelu", "Relu"],
                "activation_alpha": [0.2],
            },
            "BL",
        ),
    ],
    "GRU": [
        ({}, ""),
        ({"linear_before_reset": 1}, "BH"),
        ({"direction": "bidirectional", "linear_before_reset": 1}, "BLH"),
        ({"direction": "bidirectional"}, "BLH"),
        ({"direction": "reverse"}, "BL"),
        ({"clip": 0.3}, "BH"),
        ({"activations": ["HardSigmoid", "Elu"], "activation_alpha": [0.3, 0.7], "activation_beta": [0.4]}, "B"),
    ],
    "RNN": [
        ({}, ""),
        ({"direction": "bidirectional"}, "BLH"),
        ({"direction": "reverse"}, "BLH"),
        ({"clip": 0.3}, "BH"),
        ({"activations": ["LeakyRelu"], "activation_alpha": [0.2]}, "B"),
        ({"activations": ["ThresholdedRelu"], "activation_alpha": [0.1]}, "B"),
    ],
}


def recurrent_cases() -> Iterator[NodeCase]:
    """Every variant, with all of its outputs."""
    rng = np.random.default_rng(0)
    for op, variants in VARIANTS.items():
        for number, (attributes, given) in enumerate(variants):
            ways = 2 if attributes.get("direction") == "bidirectional" else 1
            width = GATES[op] * HIDDEN
            shapes = {
                "B": (ways, 2 * width),
                "H": (ways, BATCH, HIDDEN),
                "C": (ways, BATCH, HIDDEN),
                "P": (ways, 3 * HIDDEN),
            }
            slots = ["B", "L", "H", "C", "P"] if op == "LSTM" else ["B", "L", "H"]
            shape = [(STEPS, BATCH, INPUTS), (ways, width, INPUTS), (ways, width, HIDDEN)]
            values: list[Any] = [rng.standard_normal(s).astype(np.float32) * 0.5 for s in shape]
            for slot in slots:
                value = None
                if slot in given:
                    value = LENGTHS if slot == "L" else rng.standard_normal(shapes[slot]).astype(np.float32) * 0.5
                values.append(value)
            names = [f"in{i}" if v is not None else "" for i, v in enumerate(values)]
            outputs = ["out0", "out1", *(["out2"] if op == "LSTM" else [])]
            node = helper.make_node(op, names, outputs, hidden_size=HIDDEN, **attributes)
            types = [
                None if v is None else helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
                for v in values
            ]
            yield NodeCase(f"{op.lower()}_{number}", node, 14, values, types)
