"""Operators that no position can be removed through, and why."""

from __future__ import annotations

from collections.abc import Mapping

_BY_REASON = {
    "what it returns are positions": "NonMaxSuppression NonZero Unique",
    "indices count through all axes": "MaxUnpool",
    "what is drawn at random depends on the sizes": "Bernoulli Multinomial",
    "a sequence or optional may hold tensors of any size": """ConcatFromSequence Optional OptionalGetElement
        OptionalHasElement SequenceAt SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength
        SplitToSequence""",
    "works on text or files": """ImageDecoder RegexFullMatch StringConcat StringNormalizer StringSplit
        TfIdfVectorizer""",
    "made of numbers alone": "BlackmanWindow HammingWindow HannWindow MelWeightMatrix",
}

UNTRACEABLE: Mapping[str, str] = {op: reason for reason, ops in _BY_REASON.items() for op in ops.split()}


def why_whole(domain: str, op: str) -> str | None:
    """Why an operator of the standard domain has no rule; None if nothing is known against one."""
    return UNTRACEABLE.get(op) if domain in ("", "ai.onnx") else None
