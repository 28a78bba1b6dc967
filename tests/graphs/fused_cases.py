"""Cases for ONNX Runtime's own operators: one of each kind of inputs that its fusions and exporters write."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper

from tests.graphs.node_cases import NodeCase

MICROSOFT = "com.microsoft"
TOKENS = (2, 4, 16)  # samples, length, width
HEADS = (2, 2, 4, 8)  # samples, heads, length, size
CACHE = (2, 2, 3, 8)
IMAGE = (2, 4, 5, 5)
TABLE = (12, 4)
WIDE = (12, 8)
STEP = np.float32(0.05)
ZERO = np.uint8(128)
SIGNED = np.int8(0)


def ints(*values: Any) -> np.ndarray:
    """Numbers as int32."""
    return np.array(values, np.int32)


def bytes_of(*shape: int, seed: int = 0) -> np.ndarray:
    """Random unsigned bytes."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def signed(*shape: int, seed: int = 0) -> np.ndarray:
    """Random signed bytes."""
    return np.random.default_rng(seed).integers(-127, 128, shape).astype(np.int8)


ROTARY = {"do_rotary": 1, "num_heads": 2, "kv_num_heads": 1}
# (operator, inputs, number of outputs, attributes): a tuple is the shape of random values, an array the values.
CASES: list[tuple[str, list[Any], int, dict[str, Any]]] = [
    ("Gelu", [TOKENS], 1, {}),
    ("BiasGelu", [TOKENS, (16,)], 1, {}),
    ("FastGelu", [TOKENS, (16,)], 1, {}),
    ("FastGelu", [TOKENS], 1, {}),
    ("QuickGelu", [TOKENS], 1, {"alpha": 1.5}),
    ("FusedConv", [IMAGE, (6, 4, 3, 3), (6,)], 1, {"activation": "Relu", "pads": [1, 1, 1, 1]}),
    ("FusedConv", [IMAGE, (6, 4, 3, 3), (6,), (2, 6, 3, 3)], 1, {"activation": "Relu"}),
    ("FusedConv", [IMAGE, (6, 4, 1, 1), (6,)], 1, {"activation": "Clip", "activation_params": [-0.5, 0.5]}),
    ("FusedConv", [IMAGE, (6, 4, 1, 1)], 1, {"activation": "LeakyRelu", "activation_params": [0.2]}),
    ("FusedConv", [IMAGE, (6, 4, 1, 1)], 1, {"activation": "HardSigmoid", "activation_params": [0.2, 0.5]}),
    ("FusedConv", [IMAGE, (4, 2, 3, 3)], 1, {"activation": "Tanh", "group": 2, "strides": [2, 2]}),
    ("FusedGemm", [(4, 6), (6, 5), (5,)], 1, {"activation": "Relu", "alpha": 0.5}),
    ("FusedGemm", [(4, 6), (5, 6), (5,)], 1, {"activation": "LeakyRelu", "activation_alpha": 0.3, "transB": 1}),
    ("FusedMatMul", [(2, 3, 4), (2, 3, 5)], 1, {"transA": 1, "alpha": 0.5}),
    ("FusedMatMul", [(2, 3, 4), (2, 5, 4)], 1, {"transB": 1}),
    ("FusedMatMul", [(3, 2, 4), (2, 4, 5)], 1, {"transBatchA": 1}),
    ("FusedMatMul", [(2, 3, 4), (4, 2, 5)], 1, {"transBatchB": 1}),
    ("SkipLayerNormalization", [TOKENS, TOKENS, (16,), (16,), (16,)], 4, {"epsilon": 1e-5}),
    ("SkipLayerNormalization", [TOKENS, (1, 4, 16), (16,), (16,)], 1, {}),
    ("SkipSimplifiedLayerNormalization", [TOKENS, TOKENS, (16,), (16,)], 4, {"epsilon": 1e-5}),
    ("SkipSimplifiedLayerNormalization", [TOKENS, (4, 16), (16,)], 1, {}),
    (
        "EmbedLayerNormalization",
        [ints([1, 2, 0], [3, 4, 4]), ints([0, 1, 1], [0, 0, 1]), (5, 8), (6, 8), (2, 8), (8,), (8,)],
        2,
        {},
    ),
    (
        "EmbedLayerNormalization",
        [ints([1, 2, 0], [3, 4, 4]), None, (5, 8), (6, 8), None, (8,), (8,), ints([1, 1, 0], [1, 1, 1])],
        3,
        {},
    ),
    ("Attention", [TOKENS, (16, 48), (48,)], 1, {"num_heads": 2}),
    ("Attention", [TOKENS, (16, 48), (48,), ints(3, 4)], 1, {"num_heads": 2}),
    ("Attention", [TOKENS, (16, 48), (48,), ints(4, 3, 0, 1)], 1, {"num_heads": 2}),
    ("Attention", [TOKENS, (16, 48), (48,), ints([1, 1, 1, 0], [1, 1, 1, 1])], 1, {"num_heads": 2}),
    ("Attention", [TOKENS, (16, 48), (48,), np.tril(np.ones((2, 4, 4), np.int32))], 1, {"num_heads": 4}),
    ("Attention", [TOKENS, (16, 48), (48,), None, (2, *CACHE)], 2, {"num_heads": 2, "unidirectional": 1}),
    ("Attention", [TOKENS, (16, 40), (40,)], 1, {"num_heads": 2, "qkv_hidden_sizes": [16, 16, 8], "scale": 0.2}),
    ("Attention", [TOKENS, (16, 48), (48,), None, None, (2, 2, 4, 4)], 1, {"num_heads": 2, "unidirectional": 1}),
    ("MultiHeadAttention", [TOKENS, TOKENS, TOKENS], 1, {"num_heads": 2}),
    ("MultiHeadAttention", [TOKENS, (2, 5, 16), (2, 5, 8), (40,)], 1, {"num_heads": 2}),
    ("MultiHeadAttention", [TOKENS, TOKENS, TOKENS, None, ints([1, 1, 1, 0], [1, 1, 0, 0])], 1, {"num_heads": 2}),
    ("MultiHeadAttention", [TOKENS, TOKENS, TOKENS, None, None, (1, 2, 4, 4)], 1, {"num_heads": 2}),
    ("MultiHeadAttention", [TOKENS, TOKENS, TOKENS, None, None, None, CACHE, CACHE], 3, {"num_heads": 2}),
    ("MultiHeadAttention", [TOKENS, HEADS, HEADS], 1, {"num_heads": 2}),
    ("MultiHeadAttention", [TOKENS, TOKENS, TOKENS], 1, {"num_heads": 2, "unidirectional": 1}),
    (
        "GroupQueryAttention",
        [TOKENS, (2, 4, 8), (2, 4, 8), None, None, ints(3, 3), ints(4)],
        3,
        {"num_heads": 2, "kv_num_heads": 1},
    ),
    (
        "GroupQueryAttention",
        [(2, 4, 64), None, None, None, None, ints(3, 3), ints(4), WIDE, WIDE],
        3,
        ROTARY,
    ),
    (
        "GroupQueryAttention",
        [(2, 4, 32), (2, 4, 16), (2, 4, 16), None, None, ints(3, 3), ints(4), WIDE, WIDE],
        3,
        {**ROTARY, "rotary_interleaved": 1, "softcap": 2.0, "local_window_size": 2},
    ),
    (
        "GroupQueryAttention",
        [(2, 1, 32), (2, 1, 16), (2, 1, 16), (2, 1, 4, 16), (2, 1, 4, 16), ints(4, 4), ints(5), WIDE, WIDE],
        3,
        ROTARY,
    ),
    ("RotaryEmbedding", [HEADS, np.array([1], np.int64), TABLE, TABLE], 1, {}),
    ("RotaryEmbedding", [TOKENS, np.tile(np.arange(4), (2, 1)), TABLE, TABLE], 1, {"interleaved": 1}),
    (
        "RotaryEmbedding",
        [TOKENS, np.array([2], np.int64), (12, 2), (12, 2)],
        1,
        {"rotary_embedding_dim": 4, "num_heads": 2},
    ),
    ("MatMulNBits", [(2, 3, 32), bytes_of(6, 2, 8), (12,)], 1, {"K": 32, "N": 6, "bits": 4, "block_size": 16}),
    (
        "MatMulNBits",
        [(3, 20), bytes_of(6, 2, 8), (12,), bytes_of(6)],
        1,
        {"K": 20, "N": 6, "bits": 4, "block_size": 16},
    ),
    ("MatMulNBits", [(3, 32), bytes_of(6, 2, 16), (12,)], 1, {"K": 32, "N": 6, "bits": 8, "block_size": 16}),
    ("QuickGelu", [TOKENS], 1, {}),
]
# Operators on quantised tensors: (operator, inputs, attributes); their gradients pass straight through, so differences
# say nothing, and only what they compute is compared.
QUANTIZED: list[tuple[str, str, list[Any], dict[str, Any]]] = [
    ("QLinearConv", "", [bytes_of(1, 2, 5, 5), STEP, ZERO, signed(3, 2, 3, 3), STEP, SIGNED, np.float32(1), ZERO], {}),
    (
        "QLinearConv",
        "",
        [
            *(bytes_of(1, 2, 5, 5), STEP, ZERO, signed(3, 2, 3, 3), np.array([0.1, 0.05, 0.02], np.float32)),
            *(np.zeros(3, np.int8), np.float32(1), ZERO, ints(1000, -2000, 500)),
        ],
        {"pads": [1, 1, 1, 1], "strides": [2, 2]},
    ),
    ("QLinearMatMul", "", [bytes_of(4, 6), STEP, ZERO, bytes_of(6, 3, seed=1), STEP, ZERO, np.float32(0.5), ZERO], {}),
    ("QLinearAdd", MICROSOFT, [bytes_of(4, 6), STEP, ZERO, bytes_of(4, 6, seed=1), STEP, ZERO, STEP * 2, ZERO], {}),
    ("QLinearMul", MICROSOFT, [bytes_of(4, 6), STEP, ZERO, bytes_of(6, seed=1), STEP, ZERO, STEP * 8, ZERO], {}),
    ("QLinearSigmoid", MICROSOFT, [bytes_of(4, 6), STEP, ZERO, np.float32(1 / 256), np.uint8(0)], {}),
    ("QLinearLeakyRelu", MICROSOFT, [bytes_of(4, 6), STEP, ZERO, STEP, ZERO], {"alpha": 0.2}),
    ("QLinearGlobalAveragePool", MICROSOFT, [bytes_of(1, 3, 4, 4), STEP, ZERO, STEP, ZERO], {}),
    ("QLinearAveragePool", MICROSOFT, [bytes_of(1, 3, 4, 4), STEP, ZERO, STEP, ZERO], {"kernel_shape": [2, 2]}),
    (
        "QLinearSoftmax",
        MICROSOFT,
        [bytes_of(4, 6), STEP, ZERO, np.float32(1 / 256), np.uint8(0)],
        {"axis": 1, "opset": 13},
    ),
    (
        "QLinearConcat",
        MICROSOFT,
        [STEP * 4, ZERO, bytes_of(2, 3), STEP * 2, ZERO, bytes_of(2, 4, seed=1), STEP, np.uint8(100)],
        {"axis": 1},
    ),
    (
        "QLinearWhere",
        MICROSOFT,
        [np.array([True, False, True]), bytes_of(3), STEP, ZERO, bytes_of(3, seed=1), STEP * 2, ZERO, STEP, ZERO],
        {},
    ),
    (
        "QGemm",
        MICROSOFT,
        [bytes_of(4, 6), STEP, ZERO, signed(3, 6), STEP, SIGNED, ints(100, -200, 300), np.float32(1), ZERO],
        {"transB": 1},
    ),
    ("QGemm", MICROSOFT, [bytes_of(4, 6), STEP, ZERO, signed(6, 3), STEP, SIGNED], {"alpha": 0.5}),
    ("DynamicQuantizeMatMul", MICROSOFT, [(3, 8), bytes_of(8, 5), STEP, ZERO, (5,)], {}),
    (
        "MatMulIntegerToFloat",
        MICROSOFT,
        [bytes_of(4, 6), bytes_of(6, 3, seed=1), STEP, np.array([0.1, 0.2, 0.3], np.float32), ZERO],
        {},
    ),
]


def fused_cases() -> Iterator[NodeCase]:
    """Every operator with float inputs."""
    rng = np.random.default_rng(0)
    for number, (op, inputs, outputs, attributes) in enumerate(CASES):
        yield _case(f"{op.lower()}_{number}", op, MICROSOFT, inputs, attributes, rng=rng, outputs=outputs)


def quantized_cases() -> Iterator[NodeCase]:
    """Every operator with quantised inputs."""
    rng = np.random.default_rng(0)
    for number, (op, domain, inputs, attributes) in enumerate(QUANTIZED):
        yield _case(f"{op.lower()}_{number}", op, domain, inputs, attributes, rng=rng)


def _case(
    name: str,
    op: str,
    domain: str,
    inputs: list[Any],
    attributes: dict[str, Any],
    *,
    rng: np.random.Generator,
    outputs: int = 1,
) -> NodeCase:
    values = [rng.standard_normal(v).astype(np.float32) if isinstance(v, tuple) else v for v in inputs]
    values = [None if v is None else np.asarray(v) for v in values]
    names = [f"in{i}" if v is not None else "" for i, v in enumerate(values)]
    made = ["out0", *(f"out{i}" if op != "EmbedLayerNormalization" or i < 3 else "" for i in range(1, outputs))]
    if op.startswith("Skip") and outputs == 4:
        made = ["out0", "", "", "out3"]
    node = helper.make_node(op, names, made, domain=domain, **attributes)
    types = [
        None if v is None else helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for v in values
    ]
    return NodeCase(name, node, 1 if domain else 21, values, types)
