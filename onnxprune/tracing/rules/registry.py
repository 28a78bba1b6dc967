"""The registry of operator rules, keyed by domain, operator and opset range."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from onnxprune.model import control_flow
from onnxprune.tracing.labels import Axes
from onnxprune.tracing.rules.edit import Edit
from onnxprune.tracing.rules.node_view import NodeView

# The labels of every output; None for one whose shape is not known, which stays whole.
Trace = Callable[[NodeView], Sequence[Axes | None]]
Tracer = TypeVar("Tracer", bound=Trace)
Resize = Callable[[Edit], None]
# Sizes to be multiplied: (slot of an input, axis), or (None, axis) for an axis of the first output.
Contraction = Sequence[tuple[int | None, int]]
ContractionOf = Callable[[NodeView], Contraction]
Contractions = Callable[[NodeView], Sequence[Contraction]]

NEWEST_OPSET = 1 << 30


@dataclass(frozen=True)
class Rule:
    """How labels go through one operator.

    Attributes:
        domain: operator domain, "" for the standard one.
        op: operator type.
        since: first opset version that the rule holds for.
        until: last opset version that it holds for.
        trace: takes the labels of the inputs to the outputs.
        resize: edits what the node carries outside of its parameters when sizes change.
        contractions: the products whose sum is the node's multiply-accumulates; None for what is no contraction.
        family: name of the family that the rule belongs to, for the table of operators.
        summary: how labels go through, in one line.
    """

    domain: str
    op: str
    since: int
    until: int
    trace: Trace
    resize: Resize | None
    contractions: Contractions | None
    family: str
    summary: str


_RULES: dict[tuple[str, str], list[Rule]] = {}


def rule(
    *ops: str,
    domain: str = "",
    since: int = 1,
    until: int = NEWEST_OPSET,
    resize: Resize | None = None,
    contraction: ContractionOf | None = None,
    contractions: Contractions | None = None,
) -> Callable[[Tracer], Tracer]:
    """Register the decorated function as the rule of `ops`; its docstring's first line is the summary.

    Where a rule for the same operator holds in part of the opset range already, the new one takes its place there.
    `contraction` is for operators whose multiply-accumulates are a single product.

    Args:
        ops: the types of the operators.
        domain: their domain.
        since: first opset version that the rule holds for.
        until: last opset version that it holds for.
        resize: corrects what a node carries outside of its parameters.
        contraction: which axes multiply to the node's multiply-accumulates.
        contractions: several such lists, where products add up.

    Returns:
        A decorator, which gives the function back.

    Example:
        >>> import onnxprune
        >>> from onnxprune.tracing import through
        >>> @onnxprune.register_rule("Gate", domain="com.example")
        ... def gate(view):
        ...     '''Each channel with its gate.'''
        ...     return through(view, [("n", "c", "h", "w"), ("n", "c")], [("n", "c", "h", "w")])
    """
    products = contractions if contraction is None else lambda view: [contraction(view)]

    def decorate(function: Tracer) -> Tracer:
        summary = (function.__doc__ or "").strip().splitlines()[0].rstrip(".") if function.__doc__ else ""
        family = function.__module__.rsplit(".", 1)[-1]
        for op in ops:
            known = _RULES.setdefault((domain, op), [])
            older = [replace(r, until=min(r.until, since - 1)) for r in known]
            newer = [replace(r, since=max(r.since, until + 1)) for r in known]
            known[:] = [r for r in (*older, *newer) if r.since <= r.until]
            known.append(
                Rule(
                    domain=domain,
                    op=op,
                    since=since,
                    until=until,
                    trace=function,
                    resize=resize,
                    contractions=products,
                    family=family,
                    summary=summary,
                )
            )
        return function

    return decorate


def find(domain: str, op: str, version: int) -> Rule | None:
    """Look up the rule of an operator.

    Args:
        domain: the operator's domain, "" or "ai.onnx" for the standard one.
        op: its type.
        version: the opset version that the model imports.

    Returns:
        The rule; None where there is none.
    """
    for found in _RULES.get(("" if domain == "ai.onnx" else domain, op), ()):
        if found.since <= version <= found.until:
            return found
    return None


def all_rules() -> Iterable[Rule]:
    """List every registered rule, by domain, operator and version.

    Returns:
        Rules, those of the flat form of control flow left out.
    """
    public = (r for rules in _RULES.values() for r in rules if r.domain != control_flow.DOMAIN)
    return sorted(public, key=lambda r: (r.domain, r.op, r.since))
