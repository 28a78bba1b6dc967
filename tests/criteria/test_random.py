"""Random scores: by the seed alone."""

from __future__ import annotations

import numpy as np
import onnx

from tests.criteria.nets import scored


def test_a_seed_decides_and_weights_do_not(net: onnx.ModelProto) -> None:
    one, again, other = (scored(net, "random", "a", 0, seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any() and np.unique(one).size == 8

    louder = onnx.ModelProto()
    louder.CopyFrom(net)
    for tensor in louder.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * 100, tensor.name))
    np.testing.assert_array_equal(scored(louder, "random", "a", 0, seed=1), one)
