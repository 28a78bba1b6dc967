"""Quantise a loaded model: scales by ONNX Runtime's quantiser, numbers by what the layers make of data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
from onnx import version_converter

from onnxprune.calibration import is_random
from onnxprune.criteria import DamageTrial, impacts
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.layers import LinearLayer, layer_weight, linear_layer, weighted_layer
from onnxprune.model import Model, Names, file_size, to_proto
from onnxprune.pipelines.clock import Clock
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.quantized import Quantized
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.progress import Progress
from onnxprune.proof import valid
from onnxprune.recovery import RecoveryReport, held_out, requantized
from onnxprune.rewriting import Removal, with_blocks
from onnxprune.runtime import Agreement, AgreementAccumulator, Deployed, Session, Setting, quantizer
from onnxprune.runtime.bench import Place
from onnxprune.sparsity import measured_speed
from onnxprune.tracing import Groups, NodeView
from onnxprune.tracing import trace as trace_model
from onnxprune.typing import Runs

# The forms that take ranges of activations, and the least opsets: of a scale for every channel, of 4 bits.
STATIC, LEAST_OPSET, LEAST_NARROW = ("qdq", "operators"), 13, 21
KEPT, NOT_TAKEN, TOO_LOSSY = "--keep", "the quantiser leaves it", "it loses too much"


def quantize_model(
    model: Model,
    options: QuantizeOptions,
    inputs: RunInputs | None = None,
    *,
    cut: Removal | None = None,
    place: Place | None = None,
    progress: Progress | None = None,
) -> Quantized:
    """Quantise a model.

    Args:
        model: a float model.
        options: how.
        inputs: calibration inputs.
        cut: what the model was cut from: numbers are fitted to the outputs of that, and judged by these. None where the
            model is the original.
        place: where the models are timed; they are not where None.
        progress: is told about every stage.

    Returns:
        The quantised model and what was done.

    Raises:
        UsageError: the form needs inputs, or a glob matches nothing.
        GoalMissed: no layer can be quantised, or the model is not good enough whatever stays in float.
        RunError: the quantiser refuses the model.
    """
    inputs, clock = inputs or RunInputs(), Clock(progress)
    options = options.settled(data=inputs.data is not None)
    work = _Quantizing(named_nodes(model, form=options.form, narrow=options.is_narrow), options, inputs, clock, cut)
    done = work.good_enough(work.kept())
    if problem := valid(model, done.model):
        raise GoalMissed(f"the quantised model is not valid: {problem}", hint="another --form may do")
    speed = None
    if place is not None:
        with clock("timing"):
            speed = measured_speed(model, done.model, place)
    tells = not is_random(inputs.data)
    return Quantized(
        model=done.model,
        form=options.form,
        layers=tuple(done.whole),
        floats={name: done.left.get(name, NOT_TAKEN) for name in work.views if name not in done.whole},
        sizes=(file_size(model), file_size(done.model)),
        fit=done.report if options.fit else None,
        nearest=done.report.before if done.report is not None and tells else None,
        judged=done.judged if tells else None,
        deployed=work.deployed(done.model) if tells and work.runs else None,
        values=None if options.evaluation is None else (work.value(model), work.value(done.model)),
        speed=speed,
        unfolded=sum(view.node.op_type == "BatchNormalization" for view, _ in work.groups.tracing.views),
        seconds=clock.seconds,
    )


def named_nodes(model: Model, *, form: str = "qdq", narrow: bool = False) -> Model:
    """The model with a name of its own for every node, by which it is found again when it is quantised.

    Quantisers with a scale for every channel are known from opset 13 on, numbers of 4 bits from 21: older models are
    raised.

    Args:
        model: a float model.
        form: how it will be written.
        narrow: whether weights will be of 4 bits.

    Raises:
        UsageError: that cannot be done.
    """
    proto = to_proto(model)
    opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), LEAST_OPSET)
    least = LEAST_NARROW if narrow else LEAST_OPSET
    if form in STATIC and opset < least:
        try:
            proto = version_converter.convert_version(proto, least)
        except Exception as error:  # what ONNX's converter raises for a graph that it was not made for
            raise UsageError(
                f"{model.name} is of opset {opset}, and cannot be raised to {least}: {error}",
                hint="export it with a newer opset, or take --form dynamic or blocks",
            ) from error
    names = Names([])
    for node in proto.graph.node:
        node.name = names.unique(node.name or f"{node.op_type}_{node.output[0] if node.output else ''}")
    return replace(model, proto=proto, values={}, folder=None)


@dataclass(frozen=True, eq=False)
class _Attempt:
    """A model that is quantised but for some layers.

    Attributes:
        model: the model.
        groups: its trace, with the nearest numbers.
        whole: name of a layer of the float model -> what it is here, where it multiplies whole numbers.
        left: names of those that were to stay in float -> why.
        report: what was fitted; None without data.
        judged: agreement of `model` with the float model on held-out samples.
    """

    model: Model
    groups: Groups
    whole: Mapping[str, LinearLayer]
    left: Mapping[str, str]
    report: RecoveryReport | None
    judged: Agreement | None


@dataclass(frozen=True, eq=False)
class _Quantizing:
    """What is worked on.

    Attributes:
        model: the float model, every node of which has a name.
        options: how.
        inputs: what it is run on.
        clock: times the stages.
        cut: what the model was cut from; None where it is the original.
    """

    model: Model
    options: QuantizeOptions
    inputs: RunInputs
    clock: Clock
    cut: Removal | None = None

    @cached_property
    def runs(self) -> Runs:
        """The calibration inputs."""
        return self.inputs.read(self.model)

    @cached_property
    def groups(self) -> Groups:
        """The traced float model."""
        with self.clock("tracing"):
            return trace_model(self.model, sizes=self.inputs.sizes)

    @cached_property
    def removal(self) -> Removal:
        """What was removed, nothing perhaps, of the original against which the quantised model is judged."""
        return self.cut or Removal(self.groups, np.zeros(self.groups.classes.count, bool))

    @cached_property
    def narrow(self) -> Collection[str]:
        """Names of the layers whose weights are of 4 bits.

        Raises:
            UsageError: a glob matches no layer.
        """
        return self._matching("--narrow", self.options.narrow)

    @cached_property
    def views(self) -> Mapping[str, NodeView]:
        """Name of a layer of the main graph with a weight -> its node."""
        names = {node.name for node in self.model.proto.graph.node}
        views = {view.name: view for view, rule in self.groups.tracing.views if rule is not None}
        found = {name: view for name, view in views.items() if name in names and linear_layer(view) is not None}
        if not found:
            raise GoalMissed("nothing to quantise: no layer of the graph multiplies with a stored float weight")
        return found

    def kept(self) -> Mapping[str, str]:
        """The nodes that stay in float because the user says so.

        Raises:
            UsageError: a glob matches no layer.
        """
        return dict.fromkeys(self._matching("--keep", self.options.keep), KEPT)

    def _matching(self, option: str, globs: Collection[str]) -> list[str]:
        """The layers that globs name."""
        for glob in globs:
            if not any(fnmatchcase(name, glob) for name in self.views):
                some = ", ".join(list(self.views)[:3])
                raise UsageError(f"{option}: no layer is called {glob!r}", hint=f"there are {some}")
        return [name for name in self.views if any(fnmatchcase(name, glob) for glob in globs)]

    def good_enough(self, kept: Mapping[str, str]) -> _Attempt:
        """The model with as few further layers in float as the constraint asks for, those first that lose most.

        Raises:
            GoalMissed: it is not good enough with all of them in float.
        """
        whole = self._attempt(kept)
        if self.options.constraint is None or self.holds(whole):
            return whole
        order = self._most_lossy(whole)

        def without(count: int) -> _Attempt:
            self.clock.progress(f"{count} of {len(order)} layers in float")
            return self._attempt({**kept, **dict.fromkeys(order[:count], TOO_LOSSY)})

        low, high, most = 0, 1, len(order) - 1
        while not (high <= most and self.holds(found := without(high))):
            if high >= most:
                raise GoalMissed(
                    f"not good enough with {max(most, 0)} of {len(order)} layers in float",
                    hint="allow more damage, or take another --form",
                )
            low, high = high, min(2 * high, most)
        while high - low > 1:
            middle = (low + high) // 2
            tried = without(middle)
            low, high, found = (low, middle, tried) if self.holds(tried) else (middle, high, found)
        return found

    def _most_lossy(self, attempt: _Attempt) -> list[str]:
        """The quantised layers, by what their rounded weights alone do to the outputs, as it is measured."""
        if not self.runs:
            return list(attempt.whole)
        trials = {}
        for name, layer in attempt.whole.items():
            matrix = layer.as_matrix(layer_weight(attempt.groups.tracing, layer)) * layer.scale
            shift = np.zeros(matrix.shape[0] * matrix.shape[2])
            trials[name] = [DamageTrial(self.views[name], matrix, shift)]
        with self.clock("weighing"):
            errors = impacts(self.groups, held_out(self.runs)[1], trials, self.clock.progress)
        return sorted(attempt.whole, key=lambda name: -errors.get(name, -1.0))

    def holds(self, attempt: _Attempt) -> bool:
        """Whether a model is good enough."""
        constraint = self.options.constraint
        assert constraint is not None
        if constraint.metric == "value":
            return constraint.holds({"value": self.value(attempt.model)}, {"value": self._value})
        judged = attempt.judged
        known = judged is not None and judged.is_known
        return constraint.holds({"sqnr": judged.sqnr, "error": judged.error} if judged and known else {}, {})

    def value(self, model: Model) -> float:
        """The user's measure of a model."""
        assert self.options.evaluation is not None
        return self.options.evaluation.of(model)

    def deployed(self, model: Model) -> Agreement:
        """Agreement with the float model on held-out samples, as the runtime runs it where it counts."""
        held, tally = held_out(self.runs)[1], AgreementAccumulator()
        with self.clock("judging"), Session(self.removal.groups.model) as one, Deployed(model, Setting()) as two:
            for feeds in held:
                tally.add(one.run(feeds), two.run(feeds))
        return tally.agreement()

    @cached_property
    def _value(self) -> float:
        return self.value(self.model)

    # --- one attempt -------------------------------------------------------------------------------------

    def _attempt(self, left: Mapping[str, str]) -> _Attempt:
        """Quantise all but some nodes.

        Raises:
            GoalMissed: nothing was quantised.
        """
        with self.clock("quantising"):
            model = _FORMS[self.options.form](self, left)
        groups = trace_model(model, sizes=self.inputs.sizes)
        origins = {view.name: self._origin(view.name) for view, _ in groups.tracing.views}
        layers = ((view, weighted_layer(view)) for view, _ in groups.tracing.views if linear_layer(view) is None)
        whole = {origins[v.name]: layer for v, layer in layers if layer is not None and origins[v.name] in self.views}
        if not whole:
            hint = "blocks are for MatMul: take another --form" if self.options.form == "blocks" else ""
            raise GoalMissed("nothing is quantised: no layer is left that the quantiser takes", hint=hint)
        report, judged = None, None
        if self.runs:
            with self.clock("rounding"):
                fitted, report = requantized(self.removal, groups, origins, self.runs, progress=self.clock.progress)
            model = fitted if self.options.fit else model
            judged = report.final if self.options.fit else report.before
        return _Attempt(model, groups, whole, left, report=report, judged=judged)

    def _origin(self, name: str) -> str:
        """The node that a node of the quantised model was made of."""
        name = name.removesuffix(quantizer.REPLACED)
        return name if name in self.views else name.removesuffix(quantizer.OF_GEMM)

    def static(self, left: Collection[str]) -> Model:
        """By ONNX Runtime's quantiser, activations by their ranges on all but the held-out samples."""
        options = self.options
        runs, operators = held_out(self.runs)[0], options.form == "operators"
        given = {"weights": options.weights, "activations": options.activations, "per_channel": options.per_channel}
        return quantizer.quantized_static(
            self.model, runs, [*left], operators=operators, narrow=[*self.narrow], **given
        )

    def dynamic(self, left: Collection[str]) -> Model:
        """By ONNX Runtime's quantiser, activations by their own ranges."""
        options = self.options
        return quantizer.quantized_dynamic(
            self.model, [*left], weights=options.weights, per_channel=options.per_channel
        )

    def in_blocks(self, left: Collection[str]) -> Model:
        """Weights of matrix products in blocks."""
        names = [name for name, view in self.views.items() if name not in left and self._fits_blocks(view)]
        return with_blocks(self.model, names, self.options.blocks)

    def _fits_blocks(self, view: NodeView) -> bool:
        return view.node.op_type == "MatMul" and view.is_weight(1) and len(view.shape(1)) == 2


_FORMS: Mapping[str, Callable[[_Quantizing, Collection[str]], Model]] = {
    "qdq": _Quantizing.static,
    "operators": _Quantizing.static,
    "dynamic": _Quantizing.dynamic,
    "blocks": _Quantizing.in_blocks,
}
