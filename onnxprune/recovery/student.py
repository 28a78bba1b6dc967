"""A model whose weights are being changed: its training graphs by batch shape, and its present weights."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.autodiff import GradientSession, Loss, StepResult, TrainingGraph, build, write_back
from onnxprune.calibration import Feeds
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import Model
from onnxprune.recovery.masters import with_masters
from onnxprune.recovery.training_options import TrainingOptions
from onnxprune.typing import Array

Weights = dict[str, Array]


class Student:
    """A model in training; closes its temporary files on exit.

    Attributes:
        model: the model as it began.
        masters: what stands for its weights that are whole numbers.
        weights: name -> present elements of the weights that are trained: floats, for whole numbers too, and factors
            of scales that are learned.
        kept: weight -> boolean array, false for elements that are zero.
        is_loose: whether these are zero for the model alone, and have values that go on learning.
        blocked: weight -> why it has no gradient.
    """

    def __init__(self, model: Model, loss: Loss, feeds: Feeds, options: TrainingOptions | None = None) -> None:
        """Build the training graph for the shape of some feeds.

        Args:
            model: the model.
            loss: its loss.
            feeds: one batch: inputs of the model and of the loss.
            options: what it runs on, and what is trained; all weights if None.

        Raises:
            ModelError: no weight can be trained, or an operator has no rule.
            UsageError: a glob matches no weight, or no scale can be learned.
        """
        options = options or TrainingOptions(1)
        freeze, learn_scales = options.freeze, options.learn_scales
        self.model, self._loss, self._options = model, loss, options
        self._entries = [v.name for v in model.proto.graph.input if v.name not in model.initializers]
        self._names: Sequence[str] | None = None
        self._sessions: dict[object, GradientSession] = {}
        self.masters = with_masters(model, learn_scales=learn_scales)
        graph = self._session(feeds).graph
        names = [*graph.parameters, *self._factors(graph.parameters, learn_scales=learn_scales)]
        if freeze or learn_scales:
            check_globs("--freeze", freeze, names)
            self._names = _not_frozen(names, freeze)
            self.close()
            self._sessions.clear()
            graph = self._session(feeds).graph
        self.blocked = graph.frozen
        self.weights: Weights = {n: graph.parameters[n].copy() for n in graph.gradients}
        self.weights |= {n: a for n, a in self.masters.factors.items() if n in (self._names or ())}
        self.kept: Mapping[str, Array] = {}
        self.is_loose = False

    def _factors(self, trained: Iterable[str], *, learn_scales: bool) -> list[str]:
        """The scales to learn: of weights that are trained, and of activations."""
        if not learn_scales:
            return []
        left = {w.scale for name, w in self.masters.tensors.weights.items() if name not in set(trained)}
        found = [name for name in self.masters.factors if name not in left]
        if not found:
            raise UsageError(
                "--learn-scales: the model has no scales that can be learned",
                hint="they are those of QuantizeLinear, DequantizeLinear and MatMulNBits",
            )
        return found

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
            tensor = self.masters.model.initializers.get(name)
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
        return replace(found, gradients=self.own(found.gradients))

    def own(self, gradients: Mapping[str, Array]) -> Mapping[str, Array]:
        """Gradients by the present weights, from those by what the model computes with; zero where masked."""
        found = self.masters.straight_through(self._chosen(self.weights), gradients)
        self.silence(found)
        return found

    def loss(self, feeds: Feeds, weights: Mapping[str, Array] | None = None) -> float:
        """The loss of a batch, at weights rounded to the types that the model stores."""
        given = self.seen(weights)
        return self._session(feeds).loss(feeds, {name: self._rounded(name, a) for name, a in given.items()})

    def seen(self, weights: Mapping[str, Array] | None = None) -> Mapping[str, Array]:
        """The present weights, or others, as the model computes with them."""
        return self.masters.seen(self._chosen(self.weights if weights is None else weights))

    def _chosen(self, weights: Mapping[str, Array]) -> Mapping[str, Array]:
        """Weights without those that are masked loosely."""
        if not self.is_loose:
            return weights
        return {n: np.where(self.kept[n], a, a.dtype.type(0)) if n in self.kept else a for n, a in weights.items()}

    def _rounded(self, name: str, array: Array) -> Array:
        tensor = self.masters.model.initializers.get(name)
        if tensor is None:
            return array
        stored = self.masters.model.array(tensor).dtype
        return array if stored == array.dtype else array.astype(stored).astype(array.dtype)

    def trained(self, weights: Mapping[str, Array]) -> Model:
        """The model with other weights."""
        return write_back(self.model, self.masters.stored(weights))

    def shapes(self, feeds: Feeds) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """What a training graph is built for: the inputs of the model, and their shapes."""
        return tuple((name, np.shape(feeds[name])) for name in self._entries if name in feeds)

    def graph(self, feeds: Feeds) -> TrainingGraph:
        """Build the training graph for feeds of these shapes."""
        entries = {name: feeds[name] for name in self._entries if name in feeds}
        return build(
            self.masters.model, entries, self._loss, parameters=self._names, freeze=self._options.freeze_blocked
        )

    def _session(self, feeds: Feeds) -> GradientSession:
        shapes = self.shapes(feeds)
        if shapes not in self._sessions:
            self._sessions[shapes] = GradientSession(self.graph(feeds), self._options.setting)
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
