"""Cases for operators whose node tests have a single channel, or that have none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import helper

from tests.graphs.node_cases import OLDEST, NodeCase

IMAGE = (2, 4, 6, 6)
ROIS = [[0, 0, 4, 4], [1, 1, 5, 5], [0, 2, 3, 5]]
OLD_PIXELS = {"coordinate_transformation_mode": "output_half_pixel", "sampling_ratio": 2}
MANY_ROIS = [[i, *box] for i, box in zip((0, 1, 1), ROIS, strict=True)]

# (operator, opset, inputs, attributes): a tuple is the shape of random values, a list the values themselves.
OWN: list[tuple[str, int, list[Any], dict[str, Any]]] = [
    ("AveragePool", 22, [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ("Col2Im", 18, [(2, 16, 9), [4, 4], [2, 2]], {}),
    ("Conv", 22, [IMAGE, (6, 4, 3, 3), (6,)], {}),
    ("Conv", 22, [IMAGE, (6, 4, 1, 1), (6,)], {}),
    ("Conv", 22, [IMAGE, (8, 2, 3, 3), (8,)], {"group": 2}),
    ("Conv", 22, [IMAGE, (4, 1, 3, 3)], {"group": 4}),
    ("Conv", 22, [(2, 4, 6), (6, 4, 3)], {"strides": [2]}),
    ("ConvTranspose", 22, [IMAGE, (4, 6, 3, 3), (6,)], {}),
    ("ConvTranspose", 22, [IMAGE, (4, 3, 3, 3), (6,)], {"group": 2}),
    ("DeformConv", 22, [IMAGE, (6, 4, 2, 2), (2, 8, 5, 5), (6,), (2, 4, 5, 5)], {}),
    ("DepthToSpace", 13, [(2, 16, 2, 3)], {"blocksize": 2}),
    ("DepthToSpace", 13, [(2, 16, 2, 3)], {"blocksize": 2, "mode": "CRD"}),
    ("GlobalAveragePool", 22, [IMAGE], {}),
    ("GlobalLpPool", 2, [IMAGE], {}),
    ("GlobalMaxPool", 22, [IMAGE], {}),
    ("GridSample", 20, [IMAGE, (2, 3, 3, 2)], {}),
    ("InstanceNormalization", 22, [IMAGE, (4,), (4,)], {}),
    ("LRN", 13, [IMAGE], {"size": 3}),
    ("LpPool", 18, [IMAGE], {"kernel_shape": [2, 2]}),
    ("MaxPool", 22, [IMAGE], {"kernel_shape": [2, 2]}),
    ("MaxRoiPool", 1, [IMAGE, MANY_ROIS], {"pooled_shape": [2, 2]}),
    ("Resize", 19, [IMAGE, None, [1.0, 1.0, 2.0, 2.0]], {"mode": "linear"}),
    ("RoiAlign", 16, [IMAGE, ROIS, [0, 1, 1]], {"output_height": 2, "output_width": 2, **OLD_PIXELS}),
    ("SpaceToDepth", 13, [IMAGE], {"blocksize": 2}),
    ("Upsample", 9, [IMAGE, [1.0, 1.0, 2.0, 2.0]], {"mode": "nearest"}),
]


def own_cases() -> Iterator[NodeCase]:
    """Every entry of the table, at the opset it names."""
    rng = np.random.default_rng(0)
    for op, version, given, attrs in OWN:
        values = [_value(x, rng) for x in given]
        names = [f"in{i}" if x is not None else "" for i, x in enumerate(given)]
        node = helper.make_node(op, names, ["out0"], **attrs)
        types = [
            None if v is None else helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for v in values
        ]
        yield NodeCase(f"own_{op.lower()}", node, max(version, OLDEST), values, types)


def _value(given: Any, rng: np.random.Generator) -> np.ndarray | None:
    if given is None:
        return None
    if isinstance(given, tuple):
        return rng.standard_normal(given).astype(np.float32)
    array = np.array(given)
    return array.astype(np.float32) if array.dtype.kind == "f" or array.ndim > 1 else array
