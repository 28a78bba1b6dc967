"""Give downstream layers back what they lost."""

from onnxprune.recovery.fits import METHODS, Method, method
from onnxprune.recovery.recover import Repair

__all__ = ["METHODS", "Method", "Repair", "method"]
