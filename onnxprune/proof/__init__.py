"""Show that a rewritten model is valid and equals the masked original."""

from typing import TYPE_CHECKING

from onnxprune.lazy import homes_in, on_first_use
from onnxprune.proof.bisect import RolledBack, proven_groups, rolled_back_from
from onnxprune.proof.strength import Strength
from onnxprune.proof.unmasked import Trials, equals
from onnxprune.proof.validity import valid
from onnxprune.proof.verdict import Verdict

if TYPE_CHECKING:
    from onnxprune.proof.bypassed import BypassClaim, prove_bypassed
    from onnxprune.proof.factorised import FactorClaim, prove_factors
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

# What other verbs than `prune` claim of their results.
__getattr__ = on_first_use(
    __name__,
    homes_in(
        __name__,
        {
            "bypassed": ("BypassClaim", "prove_bypassed"),
            "factorised": ("FactorClaim", "prove_factors"),
            "zeros": ("Claim", "prove_zeros", "same_outputs"),
        },
    ),
)
