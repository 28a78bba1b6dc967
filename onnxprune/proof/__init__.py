"""Show that a rewritten model is valid and equals the masked original."""

from onnxprune.proof.bisect import RolledBack, proven_groups, rolled_back_from
from onnxprune.proof.bypassed import BypassClaim, prove_bypassed
from onnxprune.proof.factorised import FactorClaim, prove_factors
from onnxprune.proof.strength import Strength
from onnxprune.proof.unmasked import Trials, equals
from onnxprune.proof.validity import valid
from onnxprune.proof.verdict import Verdict
from onnxprune.proof.zeros import Claim, prove_zeros, same_outputs

__all__ = [
    "BypassClaim",
    "Claim",
    "FactorClaim",
    "RolledBack",
    "Strength",
    "Trials",
    "Verdict",
    "equals",
    "prove_factors",
    "prove_zeros",
    "proven_groups",
    "rolled_back_from",
    "prove_bypassed",
    "same_outputs",
    "valid",
]
