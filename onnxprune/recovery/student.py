"""A model whose weights are being changed: its training graphs by batch shape, and its present weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from onnxprune.autodiff import GradientSession, Loss, StepResult, TrainingGraph, build, write_back
from onnxprune.calibration import Feeds
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import Model
from onnxprune.runtime import Setting
from onnxprune.typing import Array

Weights = dict[str, Array]


class Student:
    """A model in training; closes its temporary files on exit.

    Attributes:
        model: the model as it began.
        weights: name -> present elements of the weights that are trained.
        kept: weight -> boolean array, false for elements that are zero.
        is_loose: whether these are zero for the model alone, and have values that go on learning.
        blocked: weight -> why it has no gradient.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        feeds: Feeds,
        *,
        setting: Setting | None = None,
        freeze: Sequence[str] = (),
        freeze_blocked: bool = False,
    ) -> None:
        """Build the training graph for the shape of some feeds.

        Args:
            model: the model.
            loss: its loss.
            feeds: one batch: inputs of the model and of the loss.
            setting: what it runs on.
            freeze: globs over weights that stay as they are.
            freeze_blocked: leave weights behind an operator without a rule as they are, in place of refusing.

        Raises:
            ModelError: no weight can be trained, or an operator has no rule.
            UsageError: a glob matches no weight.
        """
        self.model, self._loss, self._setting, self._freeze_blocked = model, loss, setting, freeze_blocked
        self._entries = [v.name for v in model.proto.graph.input if v.name not in model.initializers]
        self._names: Sequence[str] | None = None
        self._sessions: dict[object, GradientSession] = {}
        graph = self._session(feeds).graph
        if freeze:
            check_globs("--freeze", freeze, list(graph.parameters))
            self._names = _not_frozen(list(graph.parameters), freeze)
            self.close()
            self._sessions.clear()
            graph = self._session(feeds).graph
        self.blocked = graph.frozen
        self.weights: Weights = {n: graph.parameters[n].copy() for n in graph.gradients}
        self.kept: Mapping[str, Array] = {}
        self.is_loose = False

    def mask(self, kept: Mapping[str, Array], *, loose: bool = False) -> None:
        """Keep elements at zero from now on.

        Args:
            kept: initializer -> boolean array of its shape, false for zeros; initializers that are not trained may be
                there too.
            loose: the elements are zero for the model alone: their values stay, and learn from the gradient that they
                would have.

        Raises:
            UsageError: an initializer is unknown, or a mask has another shape.
        """
        for name, mask in kept.items():
            tensor = self.model.initializers.get(name)
            if tensor is None:
                raise UsageError(f"masks: the model has no initializer {name!r}", hint="masks name initializers")
            if tuple(tensor.dims) != mask.shape or mask.dtype != bool:
                raise UsageError(
                    f"masks: {name!r} has shape {list(tensor.dims)}, its mask is {mask.dtype} {list(mask.shape)}",
                    hint="a mask is a boolean array of the initializer's shape, true for what is kept",
                )
        self.kept, self.is_loose = {name: mask for name, mask in kept.items() if name in self.weights}, loose
        self.silence(self.weights)

    def silence(self, arrays: Mapping[str, Array]) -> None:
        """Set what is masked, and not loosely, to zero, in place."""
        if self.is_loose:
            return
        for name, mask in self.kept.items():
            arrays[name][~mask] = 0

    def gradients(self, feeds: Feeds) -> StepResult:
        """Loss and gradients of a batch at the present weights."""
        found = self._session(feeds).evaluate(feeds, self.seen())
        self.silence(found.gradients)
        return found

    def loss(self, feeds: Feeds, weights: Mapping[str, Array] | None = None) -> float:
        """The loss of a batch, at weights rounded to the types that the model stores."""
        given = self.seen(weights)
        return self._session(feeds).loss(feeds, {name: self._rounded(name, a) for name, a in given.items()})

    def seen(self, weights: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """The present weights, or others, as the model computes with them."""
        weights = self.weights if weights is None else weights
        if not self.is_loose:
            return weights
        return {n: np.where(self.kept[n], a, a.dtype.type(0)) if n in self.kept else a for n, a in weights.items()}

    def _rounded(self, name: str, array: Array) -> Array:
        tensor = self.model.initializers.get(name)
        if tensor is None:
            return array
        stored = self.model.array(tensor).dtype
        return array if stored == array.dtype else array.astype(stored).astype(array.dtype)

    def trained(self, weights: Mapping[str, Array]) -> Model:
        """The model with other weights."""
        return write_back(self.model, weights)

    def shapes(self, feeds: Feeds) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """What a training graph is built for: the inputs of the model, and their shapes."""
        return tuple((name, np.shape(feeds[name])) for name in self._entries if name in feeds)

    def graph(self, feeds: Feeds) -> TrainingGraph:
        """Build the training graph for feeds of these shapes."""
        entries = {name: feeds[name] for name in self._entries if name in feeds}
        return build(self.model, entries, self._loss, parameters=self._names, freeze=self._freeze_blocked)

    def _session(self, feeds: Feeds) -> GradientSession:
        shapes = self.shapes(feeds)
        if shapes not in self._sessions:
            self._sessions[shapes] = GradientSession(self.graph(feeds), self._setting)
        return self._sessions[shapes]

    def close(self) -> None:
        """Remove temporary files."""
        for session in self._sessions.values():
            session.close()


def check_globs(option: str, globs: Iterable[str], names: Sequence[str]) -> None:
    """Refuse a glob that no weight matches.

    Args:
        option: what messages call the globs.
        globs: the globs.
        names: of the weights.

    Raises:
        UsageError: a glob matches none.
    """
    for glob in globs:
        if not any(fnmatch.fnmatchcase(name, glob) for name in names):
            shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
            raise UsageError(f"{option}: no weight matches {glob!r}", hint=f"weights: {shown}")


def _not_frozen(names: Sequence[str], globs: Sequence[str]) -> list[str]:
    left = [name for name in names if not any(fnmatch.fnmatchcase(name, glob) for glob in globs)]
    if not left:
        raise ModelError("no weight is left to train: all are frozen", hint="freeze fewer")
    return left
