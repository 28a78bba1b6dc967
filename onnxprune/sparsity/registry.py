"""The registry of methods that choose zeros, and what a method is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from onnxprune.errors import UsageError
from onnxprune.sparsity.pattern import Pattern
from onnxprune.typing import Array

# Ridge added to the second moment, relative to the mean of its diagonal.
DAMPING = 1e-2
# What is best in general, and what is tried where the fit of the best is not kept.
AUTO, FIRST, SECOND = "auto", "alps", "sparsegpt"


@dataclass(frozen=True, eq=False)
class LayerEvidence:
    """A layer as matrices, y = x W for every row x of its inputs, and how its zeros may lie.

    Attributes:
        weight: float64[groups, D, O].
        pattern: where zeros may lie.
        share: of the elements that go.
        channels: inputs of D that lie side by side, at one position of a kernel.
        rng: for methods that draw.
        second: second moment of the inputs, float64[groups, D, D]; None without data.
        cross: cross moment of the inputs and the outputs that the layer should give, [groups, D, O]. Where the inputs
            are those of the original, it is `second @ weight`.
        gradient: mean square of the gradient of every weight, [groups, D, O]; None where no method asks for it.
    """

    weight: Array
    pattern: Pattern
    share: float
    channels: int
    rng: np.random.Generator
    second: Array | None = None
    cross: Array | None = None
    gradient: Array | None = None

    def choose(self, scores: Array, start: int = 0) -> Array:
        """Choose the elements that stay, of all inputs or of some between two of `bounds`.

        Args:
            scores: [groups, inputs, O]; the lowest go. A weight that is zero stays zero.
            start: the first of the inputs.

        Returns:
            bool[groups, inputs, O], true where an element stays.
        """
        alive = self.weight[:, start : start + scores.shape[1]] != 0
        channels = min(self.channels, scores.shape[1])
        kept = self.pattern.keep(np.where(alive, scores, 0.0), self.share, channels=channels)
        return np.asarray(kept & alive)

    @cached_property
    def bounds(self) -> list[int]:
        """The inputs at which a choice may be cut in parts, and their number."""
        return [*self.pattern.bounds(self.weight.shape[1], self.channels), self.weight.shape[1]]

    @cached_property
    def ridge(self) -> Array:
        """What is added to the diagonal of the second moment, [groups, 1, 1]."""
        assert self.second is not None
        mean = np.trace(self.second, axis1=1, axis2=2)[:, None, None] / self.second.shape[1]
        return DAMPING * np.maximum(mean, 1e-30)

    @cached_property
    def hessian(self) -> Array:
        """The second moment with the ridge, float64[groups, D, D]."""
        assert self.second is not None
        return self.second + self.ridge * np.eye(self.second.shape[1])

    @cached_property
    def aim(self) -> Array:
        """What `hessian @ w` should be: the cross moment, with the ridge toward the weights that are there."""
        assert self.cross is not None
        return self.cross + self.ridge * self.weight

    @cached_property
    def dense(self) -> Array:
        """The weights that would be best without zeros, [groups, D, O]."""
        return np.linalg.solve(self.hessian, self.aim)

    @cached_property
    def deviation(self) -> Array:
        """Root mean square of every input, [groups, D, 1]."""
        return np.sqrt(np.diagonal(self.hessian, axis1=1, axis2=2))[:, :, None]


# (weights, bool: the elements that stay), both [groups, D, O].
Masked = tuple[Array, Array]
Make = Callable[[LayerEvidence], Masked]


@dataclass(frozen=True)
class MaskMethod:
    """A registered way to choose zeros.

    Attributes:
        name: what users call it.
        make: chooses the zeros of a layer.
        summary: what it does, in one line.
        source: where it is from.
        needs_data: whether it looks at the inputs of the layer.
        needs_gradients: whether it looks at gradients of the outputs.
        refits: whether it gives other weights for the elements that stay.
        argument: what is written behind its name and a colon; empty where nothing is.
    """

    name: str
    make: Make
    summary: str
    source: str = ""
    needs_data: bool = False
    needs_gradients: bool = False
    refits: bool = False
    argument: str = ""


METHODS: dict[str, MaskMethod] = {}
# Method with an argument -> reads it, and gives what chooses the zeros.
_WITH_ARGUMENT: dict[str, Callable[[str], Make]] = {}


def masking(name: str, *, source: str = "", needs_data: bool = False, refits: bool = False) -> Callable[[Make], Make]:
    """Register the decorated function; its docstring's first line is the summary."""

    def decorate(function: Make) -> Make:
        METHODS[name] = MaskMethod(name, function, _summary(function), source, needs_data=needs_data, refits=refits)
        return function

    return decorate


def scoring(
    name: str, *, source: str = "", needs_data: bool = False, needs_gradients: bool = False
) -> Callable[[Callable[[LayerEvidence], Array]], Callable[[LayerEvidence], Array]]:
    """Register the decorated function, which gives a score to every element: the lowest go, the others stay."""

    def decorate(function: Callable[[LayerEvidence], Array]) -> Callable[[LayerEvidence], Array]:
        def make(evidence: LayerEvidence) -> Masked:
            keep = evidence.choose(function(evidence))
            return evidence.weight * keep, keep

        METHODS[name] = MaskMethod(
            name, make, _summary(function), source, needs_data=needs_data, needs_gradients=needs_gradients
        )
        return function

    return decorate


def masking_with(
    name: str, argument: str, *, source: str = ""
) -> Callable[[Callable[[str], Make]], Callable[[str], Make]]:
    """Register the decorated function, which reads an argument and gives what chooses the zeros."""

    def decorate(function: Callable[[str], Make]) -> Callable[[str], Make]:
        def unread(evidence: LayerEvidence) -> Masked:
            raise AssertionError(f"{name} was not given its argument")

        METHODS[name] = MaskMethod(name, unread, _summary(function), source, argument=argument)
        _WITH_ARGUMENT[name] = function
        return function

    return decorate


def method_of(text: str, *, data: bool) -> MaskMethod:
    """The method that a person asked for.

    Args:
        text: a name, with a colon and its argument where it has one; "auto" is "alps" with data, else "magnitude".
        data: whether there are inputs.

    Returns:
        The method.

    Raises:
        UsageError: there is no such method, its argument is wrong, or it needs data.
    """
    if text == AUTO:
        text = FIRST if data else "magnitude"
    name, _, argument = text.partition(":")
    if name not in METHODS:
        raise UsageError(f"--method: nothing is called {name!r}", hint=f"known: {AUTO}, {', '.join(sorted(METHODS))}")
    found = METHODS[name]
    if bool(argument) != bool(found.argument):
        wanted = f"{name}:{found.argument}" if found.argument else name
        raise UsageError(
            f"--method: {text!r} is not complete" if found.argument else f"--method: {name} takes no argument",
            hint=f"write {wanted}",
        )
    if found.needs_data and not data:
        raise UsageError(
            f"the method {name!r} looks at what the model computes, and needs inputs to run it on",
            hint="give some with --data (in Python: data=...)",
        )
    return replace(found, name=text, make=_WITH_ARGUMENT[name](argument)) if argument else found


def _summary(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().splitlines()[0].rstrip(".")
