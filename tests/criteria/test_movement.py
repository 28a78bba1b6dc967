"""Movement, before anything has moved."""

from __future__ import annotations

import numpy as np
import onnx

from onnxprune.criteria import KNOWN
from tests.criteria.nets import scored


def test_without_training_it_is_the_norm(net: onnx.ModelProto) -> None:
    np.testing.assert_array_equal(scored(net, "movement", "a", 0), scored(net, "l2", "a", 0))
    assert not KNOWN["movement"].needs_data and KNOWN["movement"].normalize == KNOWN["l2"].normalize
