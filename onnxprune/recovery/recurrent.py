"""Recurrent layers (LSTM, GRU, RNN) fitted to the gates that the original computed.

Every gate of a recurrent layer is an activation of z = W x + R h + b, with x the input of a step and h the hidden units
after the step before. So every gate is a layer y = xW + b whose rows are steps: the input that the pruned model gives
beside the hidden units of the *original* that remain, and the pre-activation that the original had there. Source of
the original's states in place of the layer's own (teacher forcing): Williams and Zipser, "A Learning Algorithm for
Continually Running Fully Recurrent Neural Networks", 1989, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
import onnx

from onnxprune.layers import Parameters, RecurrentLayer, recurrent_layer
from onnxprune.recovery import fits
from onnxprune.recovery.targets import Fit, FitEvidence, Pair, Target, lost_groups
from onnxprune.rewriting import Removal
from onnxprune.runtime import NodeRunner, PairMoments, blas_threads
from onnxprune.tracing import NodeView
from onnxprune.typing import Array

# Slots of what enters beside the weights and the bias: the input, lengths, and states; peepholes are stored.
ENTERING = (0, 4, 5, 6)
PEEPHOLES = 7
# Weights of a layer: of its inputs [ways, gates * hidden, inputs], its recurrence [ways, gates * hidden, hidden], and
# its bias [ways, 2 * gates * hidden], which may be empty.
Weights = tuple[Array, Array, Array]


@dataclass(frozen=True)
class _Part:
    """Gates that read the same things.

    Attributes:
        gates: their places in the weights.
        reads_input: whether they read the input.
        reads_state: whether they read the hidden units before.
        is_reset: whether the reset gate multiplies these first.
    """

    gates: tuple[int, ...]
    reads_input: bool = True
    reads_state: bool = True
    is_reset: bool = False


def _parts_of(node: onnx.NodeProto, gates: int) -> Sequence[_Part]:
    """The gates of a recurrent node that can be fitted, together where they read the same things."""
    if node.op_type != "GRU":
        return [_Part(tuple(range(gates)))]
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    both = _Part((0, 1))
    if given.get("linear_before_reset"):
        return [both, _Part((2,), reads_state=False), _Part((2,), reads_input=False)]
    plain = all(name.lower() == b"sigmoid" for name in given.get("activations", ())[::2]) and not given.get("clip")
    return [both, _Part((2,), is_reset=True)] if plain else [both]


@dataclass(frozen=True, eq=False)
class _Steps:
    """One run of a recurrent layer.

    Attributes:
        entering: inputs of the pruned node by slot, beside its weights.
        outputs: of the original, for the hidden units that remain, float32[ways, steps, hidden].
        counts: bool[steps], a step of each sequence of the batch: those that are no padding.
        rows: per part, what its gates read and their pre-activations of the original, at drawn steps.
    """

    entering: Mapping[int, Array]
    outputs: Array
    counts: Array
    rows: Sequence[fits.Rows]


@dataclass(frozen=True, eq=False)
class RecurrentTarget(Target):
    """A recurrent layer whose inputs or hidden units became fewer, or others.

    Attributes:
        old: the layer in the original.
        new: the layer in the pruned model.
    """

    old: RecurrentLayer
    new: RecurrentLayer

    @classmethod
    def of(cls, removal: Removal, parameters: Parameters, view: NodeView, node: onnx.NodeProto) -> Self | None:
        """The target; None where the node is not recurrent, shares weights, or lost steps or sequences."""
        old, new = recurrent_layer(view), recurrent_layer(view, node)
        if old is None or new is None or removal.behind.isdisjoint((view.inputs[0], *node.output)):
            return None
        if not all(map(parameters.is_own, new.weights)) or removal.shrinks(view.inputs[0], (0, 1)):
            return None
        return cls(view, node, old, new)

    def _computed(self, node: onnx.NodeProto) -> list[int]:
        """The slots of what enters beside the weights, and is computed; states of zeros are not."""
        state = self.view.state
        there = [s for s in ENTERING if s < len(node.input) and node.input[s]]
        return [s for s in there if not self.view.is_weight(s) and not (s > 4 and state.is_zero(self.view.inputs[s]))]

    @property
    def tapped_tensors(self) -> tuple[list[str], list[str]]:
        """What enters beside the weights in the original and in the pruned model."""
        old, new = self.view.node, self.node
        return [old.input[s] for s in self._computed(old)], [new.input[s] for s in self._computed(new)]

    def entering(self, pair: Pair, removal: Removal) -> tuple[dict[int, Array], dict[int, Array]]:
        """What enters in both models by slot; without the pruned one, what remains of the original's."""
        olds = dict(zip(self._computed(self.view.node), pair[0], strict=True))
        if pair[1]:
            return olds, dict(zip(self._computed(self.node), pair[1], strict=True))
        axes = removal.groups.tracing.axes
        return olds, {s: removal.sliced(value, axes[self.view.inputs[s]]) for s, value in olds.items()}

    def fit(
        self, removal: Removal, parameters: Parameters, method: fits.Method, evidence: FitEvidence
    ) -> Iterator[Fit]:
        """Fit all gates to the runs that fit, and keep them if the outputs of the others get better."""
        layer, rng = _Recurrence.of(self, removal, parameters, method), np.random.default_rng(0)
        runs: tuple[list[_Steps], list[_Steps]] = ([], [])
        for judges, visits, most in evidence.visits():
            runs[judges].extend(layer.steps(pair, most, rng) for pair in visits)
        if not all(runs):
            return
        fitting, judging = runs
        before = layer.error(layer.sliced, judging)
        dampings = evidence.dampings if method.ridge else (0.0,)
        tried = ((d, layer.error(layer.fitted(fitting, d), judging)) for d in dampings)
        ((damping, _), after) = [*fits.falling(tried, lambda one: one[1])][-1]
        if kept := after < before:
            layer.write(layer.fitted([*fitting, *judging], damping))
        yield Fit(self.view.name, before, after, kept, lost_groups(removal, self.view.node.input[0]))


@dataclass(frozen=True, eq=False)
class _Recurrence:
    """A recurrent layer of both models.

    Attributes:
        target: its node.
        removal: what goes of the traced original.
        parameters: the pruned model.
        method: the recovery method.
        whole: the weights of the original.
        sliced: those that remain.
        kept: bool[ways, hidden]: the hidden units that remain.
    """

    target: RecurrentTarget
    removal: Removal
    parameters: Parameters
    method: fits.Method
    whole: Weights
    sliced: Weights
    kept: Array

    @classmethod
    def of(cls, target: RecurrentTarget, removal: Removal, parameters: Parameters, method: fits.Method) -> Self:
        """The layer, with the weights of both models."""
        view, node, tracing, old = target.view, target.node, removal.groups.tracing, target.old

        def both(slot: int) -> tuple[Array, Array]:
            if not view.has(slot):
                return np.zeros((1, 0), np.float32), np.zeros((1, 0), np.float32)
            stored = tracing.stored_value(view.inputs[slot])
            assert stored is not None
            return stored.astype(np.float32), parameters.value(node.input[slot]).astype(np.float32)

        (w, w_left), (r, r_left), (b, b_left) = (both(slot) for slot in (old.INPUT, old.RECURRENCE, old.BIAS))
        mask = removal.mask(r.shape, view.labels(old.RECURRENCE))
        kept: Array = np.asarray(np.broadcast_to(True if mask is None else mask, r.shape).any(axis=1))
        return cls(
            target=target,
            removal=removal,
            parameters=parameters,
            method=method,
            whole=(w, r, b),
            sliced=(w_left, r_left, b_left),
            kept=kept,
        )

    @cached_property
    def parts(self) -> Sequence[_Part]:
        """The gates that are fitted."""
        _, gated, hidden = self.whole[1].shape
        return _parts_of(self.target.node, gated // hidden)

    @cached_property
    def _runners(self) -> tuple[NodeRunner, NodeRunner]:
        """The node of the original and of the pruned model, with all of their outputs."""
        nodes = []
        for node in (self.target.view.node, self.target.node):
            alone = onnx.NodeProto()
            alone.CopyFrom(node)
            alone.output[:] = ["Y"]
            nodes.append(alone)
        model = self.removal.groups.tracing.model
        return NodeRunner(model, nodes[0]), NodeRunner(model, nodes[1])

    # --- what happens at every step -------------------------------------------------------------------------

    def _stored(self, node: onnx.NodeProto, value: Callable[[str], Array]) -> dict[int, Array]:
        """What enters by slot, and is stored: peepholes, and perhaps lengths and states."""
        slots = (
            s
            for s in (*ENTERING[1:], PEEPHOLES)
            if self.target.view.is_weight(s) and s < len(node.input) and node.input[s]
        )
        return {s: value(node.input[s]) for s in slots}

    def _outputs(self, which: int, entering: Mapping[int, Array], weights: Weights) -> Array:
        """The first output of the node alone, in the original (0) or in the pruned model (1)."""
        (w, r, b), layer = weights, self.target.old
        given = {**entering, layer.INPUT: w, layer.RECURRENCE: r} | ({layer.BIAS: b} if b.size else {})
        return np.asarray(self._runners[which]({s: _single(given[s]) for s in sorted(given)})[0])

    def steps(self, pair: Pair, most: int, rng: np.random.Generator) -> _Steps:
        """A run, of which at most so many steps are looked at."""
        old, new = self.target.entering(pair, self.removal)
        tracing, layer = self.removal.groups.tracing, self.target.old
        old |= self._stored(self.target.view.node, tracing.stored_value)  # type: ignore[arg-type]
        new |= self._stored(self.target.node, self.parameters.value)
        y = self._outputs(0, old, self.whole)
        count, _, batch, _ = y.shape
        counts = (np.arange(count)[:, None] < old.get(4, np.full(batch, count))).reshape(-1)
        places = rng.permutation(np.flatnonzero(counts))[:most]
        x, read = (layer.input_rows(given[0])[places] for given in (old, new))
        states = layer.states_before(y, old.get(5))[:, places]
        reset = self._reset(x, states)
        rows = [self._of_part(part, (x, read), states, reset) for part in self.parts]
        return _Steps(new, self._taken(layer.output_rows(y)), counts, rows)

    def _taken(self, values: Array) -> Array:
        """The hidden units that remain, along the last axis of [ways, steps, hidden]."""
        return np.stack([one[:, which] for one, which in zip(values, self.kept, strict=True)])

    def _reset(self, x: Array, states: Array) -> Array | None:
        """The reset gate of the original; None where no part asks for it."""
        if not any(part.is_reset for part in self.parts):
            return None
        hidden = states.shape[2]
        z = _product(self.whole, (1,), x, states)
        bias = self.whole[2]
        if bias.size:
            z = z + (bias[:, hidden : 2 * hidden] + bias[:, 4 * hidden : 5 * hidden])[:, None]
        return np.asarray(1 / (1 + np.exp(-z)), np.float32)

    def _of_part(self, part: _Part, inputs: tuple[Array, Array], states: Array, reset: Array | None) -> fits.Rows:
        """What the gates of a part read in the pruned model, and their pre-activations of the original."""
        (x, read), states = inputs, states * reset if part.is_reset and reset is not None else states
        z = _product(self.whole, part.gates, x if part.reads_input else None, states if part.reads_state else None)
        mask = np.tile(self.kept, len(part.gates))
        both = [np.broadcast_to(read, (len(z), *read.shape))] * part.reads_input
        both += [self._taken(states)] * part.reads_state
        wanted = np.stack([one[:, which] for one, which in zip(z, mask, strict=True)])
        return fits.Rows(np.concatenate(both, axis=2), wanted)

    # --- fits -----------------------------------------------------------------------------------------------

    def fitted(self, runs: Sequence[_Steps], damping: float) -> Weights:
        """Fit all gates."""
        found = tuple(np.array(value, np.float64) for value in self.sliced)
        for number, part in enumerate(self.parts):
            rows = fits.Rows.joined([run.rows[number] for run in runs])
            shifted, sliced = bool(self.sliced[2].size), _matrix(self.sliced, part)
            with blas_threads(rows.x.shape[2]):
                moments = PairMoments.of(rows.x, rows.y, shifted=shifted)
                problem = fits.FitProblem(moments, None, sliced, sliced, shifted=shifted, damping=damping)
                _put(found, part, self.method.closed_form(problem))
        return found  # type: ignore[return-value]

    def error(self, weights: Weights, runs: Sequence[_Steps]) -> float:
        """Squared error of the outputs, relative to the squared deviation from their mean."""
        wrong, wanted = 0.0, []
        for run in runs:
            y = self.target.new.output_rows(self._outputs(1, run.entering, weights))[:, run.counts]
            wanted.append(run.outputs[:, run.counts])
            wrong += float(np.square(y - wanted[-1], dtype=np.float64).sum())
        joined = np.concatenate(wanted, axis=1)
        spread = float(np.square(joined - joined.mean(axis=1, keepdims=True), dtype=np.float64).sum())
        return wrong / max(spread, 1e-30)

    def write(self, weights: Weights) -> None:
        """Put fitted weights into the pruned model."""
        for name, value in zip(self.target.new.weights, weights, strict=False):
            self.parameters.store(name, value)


def _single(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype.kind == "f" else value


def _gates(value: Array, gates: Sequence[int], hidden: int) -> Array:
    """The rows of some gates, along the second axis."""
    return np.concatenate([value[:, g * hidden : (g + 1) * hidden] for g in gates], axis=1)


def _product(weights: Weights, gates: Sequence[int], x: Array | None, states: Array | None) -> Array:
    """What gates make of inputs [n, inputs] and of hidden units [ways, n, hidden], without a bias."""
    w, r, _ = weights
    hidden = r.shape[2]
    found: Array = np.zeros((), np.float32)
    if x is not None:
        found = found + x @ _gates(w, gates, hidden).transpose(0, 2, 1)
    if states is not None:
        found = found + states @ _gates(r, gates, hidden).transpose(0, 2, 1)
    return found


def _matrix(weights: Weights, part: _Part) -> Array:
    """The weights of a part, float64[ways, D, gates * hidden]."""
    w, r, _ = weights
    both = [w] * part.reads_input + [r] * part.reads_state
    turned = [_gates(value, part.gates, r.shape[2]).transpose(0, 2, 1) for value in both]
    return np.concatenate(turned, axis=1).astype(np.float64)


def _put(weights: Sequence[Array], part: _Part, fitted: fits.Fitted) -> None:
    """Write the weights of a part, and add to its biases."""
    (w, r, b), (matrix, shift) = weights, fitted
    hidden, inputs = r.shape[2], w.shape[2] if part.reads_input else 0
    for place, gate in enumerate(part.gates):
        of, to = slice(place * hidden, (place + 1) * hidden), slice(gate * hidden, (gate + 1) * hidden)
        turned = matrix[:, :, of].transpose(0, 2, 1)
        if part.reads_input:
            w[:, to] = turned[:, :, :inputs]
        if part.reads_state:
            r[:, to] = turned[:, :, inputs:]
        if b.size:
            start = 0 if part.reads_input else b.shape[1] // 2
            b[:, start + gate * hidden : start + (gate + 1) * hidden] += shift[:, of]
