"""Show that a rewritten model is valid and equals the masked original."""

from onnxprune.proof.prove import Verdict
from onnxprune.proof.validity import valid

__all__ = ["Verdict", "valid"]
