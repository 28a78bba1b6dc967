"""The number of parameters that are not zero."""

from __future__ import annotations

import numpy as np

from onnxprune.model import Model, inlined
from onnxprune.model.flatten import flattened
from onnxprune.tracing import Groups


def count_nonzeros(groups: Groups, model: Model) -> int:
    """Count the parameters that are not zero, as a model stores them.

    Args:
        groups: the traced original, which says what the parameters are.
        model: the original, or what zeros made of it.

    Returns:
        The number of elements that do not stand for zero.
    """
    flat, tracing = flattened(inlined(model)), groups.tracing
    names = {tracing.weights[key] for key, _ in tracing.weights_axes() if tracing.holds_parameters(key)}
    total = 0
    for name in names & tracing.given.keys():
        value = flat.array(name) if name in flat.stored else tracing.stored_value(name)
        assert value is not None
        zero = tracing.stored_zero(name).astype(value.dtype)
        total += int(np.count_nonzero(tracing.elements(name, value) != tracing.elements(name, zero)))
    return total
