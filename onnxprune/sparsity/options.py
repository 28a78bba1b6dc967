"""The options of sparsity: how many zeros, where, and chosen how."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.names import COMPARISONS, STORAGES
from onnxprune.sparsity.pattern import NofM, Pattern, pattern_of
from onnxprune.sparsity.registry import AUTO, FIRST, METHODS, SECOND, LayerEvidence, Masked, MaskMethod, method_of
from onnxprune.sparsity.weights import ContractionWeight
from onnxprune.typing import Array

HALF = 0.5


def _unread(evidence: LayerEvidence) -> Masked:
    raise AssertionError("masks that are given are not chosen")


# In the place of a method where masks are given.
GIVEN = MaskMethod("given", _unread, "The masks of a plan")


@dataclass(frozen=True)
class SparsifyOptions:
    """How many zeros there shall be, and how they are chosen.

    Attributes:
        sparsity: share of the elements of every weight that become zero, at least 0 and below 1; half where neither it
            nor a budget nor a pattern says how many.
        method: name of a method, or "auto".
        pattern: where zeros may lie: "unstructured", "2:4" or another N:M, "block 4x4".
        per: what elements are compared with: those of one "output", of the "layer", of all layers ("global").
        keep: globs of weights or nodes that stay as they are.
        only: globs of the weights or nodes that alone get zeros.
        ratios: glob -> another share for the weights that match; the last match wins.
        floor: share of its elements that every weight keeps, whatever the others do.
        params: budget on the parameters that are not zero, in place of a share: a number, "50%" or "2M".
        size: budget on the bytes of the file, with sparse storage: "50%" or "20MB".
        recover: fit the elements that stay to the outputs that the original gave; None for as the method does it.
        in_sequence: look at the inputs that the already changed model gives, not at those of the original.
        permute: for N:M, first put units into an order in which neighbours keep more.
        storage: "dense"; "sparse" where that makes the file smaller; "auto" where it makes it much smaller.
        seed: for methods that draw.
        masks: name of a weight -> bool of its shape, true where an element stays, in the place of a method.
    """

    sparsity: float | None = None
    method: str = AUTO
    pattern: str = "unstructured"
    per: str = "output"
    keep: Sequence[str] = ()
    only: Sequence[str] = ()
    ratios: Mapping[str, float] = field(default_factory=dict)
    floor: float = 0.05
    params: str | float | None = None
    size: str | float | None = None
    recover: bool | None = None
    in_sequence: bool = True
    permute: bool = True
    storage: str = "dense"
    seed: int = 0
    masks: Mapping[str, Array] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, share in (("--sparsity", self.sparsity), ("--floor", self.floor), *self.ratios.items()):
            if share is not None and not 0 <= share < 1:
                raise UsageError(f"{name}: {share:g} is not at least 0 and below 1", hint="write 0.5 or 50%")
        if self.per not in COMPARISONS:
            raise UsageError(f"--per: {self.per!r} is none of {', '.join(COMPARISONS)}")
        if self.storage not in STORAGES:
            raise UsageError(f"--storage: {self.storage!r} is none of {', '.join(STORAGES)}")
        if self.budgets and self.sparsity is not None:
            raise UsageError(
                f"--sparsity and --{min(self.budgets)} both say how many zeros there are", hint="leave out one of them"
            )
        if self.size is not None and self.storage == "dense":
            raise UsageError(
                "--size: zeros make a file smaller only where they are stored sparse", hint="add --storage sparse"
            )
        if self.is_threshold and self.zeros.share is not None:
            raise UsageError(
                f"--method {self.method} and --pattern {self.pattern} both say how many zeros there are",
                hint="take another method or pattern",
            )
        if self.how_many_fixed and (self.budgets or self.sparsity is not None or self.ratios or self.per == "global"):
            said = self.method if self.is_threshold else self.pattern
            raise UsageError(
                f"{said} says how many zeros there are",
                hint="leave out --sparsity, --ratio, --per global and budgets, or take another pattern and method",
            )

    @property
    def share(self) -> float:
        """The share that is asked for, where no budget and no ratio of a weight says another."""
        return HALF if self.sparsity is None else self.sparsity

    @property
    def budgets(self) -> dict[str, str | float]:
        """Kind of budget -> the amount that is allowed, as it was given."""
        given = {"params": self.params, "size": self.size}
        return {kind: amount for kind, amount in given.items() if amount is not None}

    @property
    def zeros(self) -> Pattern:
        """Where zeros may lie."""
        return pattern_of(self.pattern, self.per)

    @property
    def order_matters(self) -> bool:
        """Whether units may be put into an order that keeps more: with N:M, where no masks are given."""
        return self.permute and self.masks is None and isinstance(self.zeros, NofM)

    @property
    def is_threshold(self) -> bool:
        """Whether all elements below a threshold go, however many they are."""
        return self.method.startswith("threshold")

    @property
    def how_many_fixed(self) -> bool:
        """Whether the pattern, or the method, says how many zeros there are."""
        return self.is_threshold or self.zeros.share is not None

    def chosen(self, *, data: bool) -> MaskMethod:
        """The method, with data or without.

        Raises:
            UsageError: there is none of this name, or it lacks data.
        """
        if self.recover and not data:
            raise UsageError(
                "--recover fits to what the model computes, and needs inputs", hint="give some with --data"
            )
        return GIVEN if self.masks is not None else method_of(self.method, data=data)

    def other(self, method: MaskMethod) -> MaskMethod | None:
        """The method that "auto" takes where samples that judge decide against the fit of a method; None for none."""
        return METHODS[SECOND] if self.method == AUTO and method.name == FIRST else None

    def share_of(self, weight: ContractionWeight) -> float | None:
        """The share that `ratios` name for a weight; None where they do not."""
        matching = [share for glob, share in self.ratios.items() if matches(weight, glob)]
        return matching[-1] if matching else None

    def as_json(self) -> dict[str, Any]:
        """How a plan was made, for the plan."""
        shown = ("sparsity", "params", "size", "method", "pattern", "per", "permute", "storage", "seed")
        return {name: getattr(self, name) for name in shown}


def pattern_checks(
    weights: Sequence[ContractionWeight], options: SparsifyOptions
) -> dict[str, Callable[[Array], bool]]:
    """What every stored weight is checked for: N:M along the inputs.

    Args:
        weights: those that get zeros.
        options: with the pattern.

    Returns:
        Name -> whether a tensor has the pattern; empty for other patterns.
    """
    pattern = options.zeros
    if not isinstance(pattern, NofM):
        return {}

    def check(weight: ContractionWeight) -> Callable[[Array], bool]:
        return lambda nonzero: pattern.holds(weight.as_matrix(nonzero), channels=weight.channels)

    return {weight.name: check(weight) for weight in weights}


def selected(weights: Sequence[ContractionWeight], options: SparsifyOptions) -> list[ContractionWeight]:
    """The weights that get zeros.

    Args:
        weights: those that can.
        options: with the globs.

    Returns:
        Some of `weights`.

    Raises:
        UsageError: a glob matches none of them.
    """
    for option, globs in (("--keep", options.keep), ("--only", options.only), ("--ratio", options.ratios)):
        for glob in globs:
            if not any(matches(weight, glob) for weight in weights):
                names = ", ".join(weight.name for weight in weights[:8])
                raise UsageError(f"{option}: no weight or node matches {glob!r}", hint=f"the weights are: {names}")
    if options.masks is not None:
        return [w for w in weights if w.name in options.masks]
    kept = [w for w in weights if not any(matches(w, glob) for glob in options.keep)]
    return [w for w in kept if not options.only or any(matches(w, glob) for glob in options.only)]


def matches(weight: ContractionWeight, glob: str) -> bool:
    """Whether a glob names a weight, or the node that reads it."""
    return fnmatchcase(weight.name, glob) or fnmatchcase(weight.nodes[0], glob)
