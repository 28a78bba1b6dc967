"""The attributes of a node, of which no rule takes anything for granted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper


class Unsupported(Exception):
    """A rule cannot see through this node: it becomes a barrier with this reason.

    Args:
        text: the reason.
        tensor: the tensor whose shape is unknown, if that is why.
    """

    def __init__(self, text: str, tensor: str = "") -> None:
        super().__init__(text)
        self.tensor = tensor


class Attributes(dict[str, Any]):
    """Attribute values by name: one that is missing, or of another type than its default, is `Unsupported`."""

    @staticmethod
    def of(node: onnx.NodeProto) -> Attributes:
        """The attributes of a node; strings decoded."""
        found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        return Attributes((k, v.decode("utf-8", "replace") if isinstance(v, bytes) else v) for k, v in found.items())

    def __missing__(self, name: str) -> Any:
        raise Unsupported(f"attribute {name!r} is missing")

    def get(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, which must be of the type of its default."""
        if name not in self:
            return default
        value = self[name]
        if not _is_like(value, default):
            raise Unsupported(f"attribute {name!r} is {str(value)[:40]!r}, not {_KINDS[type(default)]}")
        return value


_KINDS = {int: "a whole number", float: "a number", str: "a text", list: "a list", tuple: "a list"}


def _is_like(value: Any, default: Any) -> bool:
    if type(default) not in _KINDS:
        return True
    if isinstance(default, (list, tuple)):
        return isinstance(value, Sequence) and not isinstance(value, str) and all(type(v) in _KINDS for v in value)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))
