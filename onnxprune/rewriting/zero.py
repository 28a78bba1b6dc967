"""The model in its original size, with the weights of removed units set to zero."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from onnxprune.model import Model
from onnxprune.rewriting.removal import Removal
from onnxprune.rewriting.rewrite import Rewriting, Versions, nested
from onnxprune.tracing import Axes, Groups, NodeView, Resize
from onnxprune.typing import Array, Shape


def zeroed(groups: Groups, removed: Array) -> Model:
    """Set the weights of removed units to zero: those that `Removal.masks` names.

    A constant that several nodes share and that they cut differently gets a copy per use.

    Args:
        groups: what was traced of the model.
        removed: bool[classes], the classes that are removed.

    Returns:
        The model in its original size.
    """
    return nested(_Zeroing(groups.tracing.model, Removal(groups, removed)).run(), tidied=False)


class _Zeroing(Rewriting):
    """Sets to zero what would go, and leaves all sizes as they are."""

    def remains(self, name: str, axes: Axes) -> Array:
        tracing = self.groups.tracing
        value = tracing.stored_value(name)
        mask = self.removal.mask(self.groups.static.shapes[name], axes)
        assert value is not None
        assert mask is not None
        return np.where(mask, value, tracing.stored_zero(name).astype(value.dtype))

    def sizes(self, old: Shape, axes: Axes) -> Shape:
        return old

    def is_cut(self, key: str) -> bool:
        tracing = self.groups.tracing
        if not self.removal.is_masked(key) or tracing.is_zero(tracing.weights[key]):
            return False
        # What stands for zero is stored in the weights that scales belong to.
        return key not in tracing.scales and super().is_cut(key)

    def _resized(
        self, view: NodeView, resize: Resize, new: onnx.NodeProto, constants: dict[str, Array]
    ) -> Sequence[onnx.NodeProto]:
        return [new]

    def _is_stale(self, node: onnx.NodeProto) -> bool:
        return False

    def _infos(self, graph: onnx.GraphProto, versions: Versions) -> None:
        graph.value_info.extend(self.model.proto.graph.value_info)
