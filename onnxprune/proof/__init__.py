"""Show that a rewritten model is valid and equals the masked original."""

from onnxprune.proof.prove import Verdict

__all__ = ["Verdict"]
