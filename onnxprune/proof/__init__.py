"""Show that a rewritten model is valid and equals the masked original."""

from onnxprune.proof.strength import Strength
from onnxprune.proof.unmasked import Trials, equals
from onnxprune.proof.validity import valid
from onnxprune.proof.verdict import Verdict
from onnxprune.proof.zeros import Claim, prove_zeros, same_outputs

__all__ = ["Claim", "Strength", "Trials", "Verdict", "equals", "prove_zeros", "same_outputs", "valid"]
