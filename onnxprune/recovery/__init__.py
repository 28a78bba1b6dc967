"""Give downstream layers back what they lost."""

from onnxprune.recovery.recover import Repair

__all__ = ["Repair"]
