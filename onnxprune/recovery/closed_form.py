"""Recovery without training: every layer behind a cut is fitted again to the outputs that the original gave.

The original and the pruned model take the calibration inputs through their graphs side by side. Layers are fitted in
graph order, each on the inputs that the layers in front of it, already fitted, give. A fit is kept only if it lowers
the error on samples that it has not seen. The fits themselves are in `recovery/fits.py`.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from onnxprune.calibration import count_samples
from onnxprune.errors import UsageError
from onnxprune.layers import (
    NORMS,
    Parameters,
    bn_matching,
    linear_layer,
    quantized_parameters,
    weighted_layer,
)
from onnxprune.model import Model
from onnxprune.progress import WorkPart
from onnxprune.recovery.downstream import downstream_of
from onnxprune.recovery.fits import DAMPINGS, METHODS, Method
from onnxprune.recovery.joint import JointTarget, with_branches
from onnxprune.recovery.norm_scales import NormTarget
from onnxprune.recovery.on_grid import QuantizedTarget
from onnxprune.recovery.recurrent import RecurrentTarget
from onnxprune.recovery.shared_layer import SharedTarget, in_order
from onnxprune.recovery.targets import WIDEST, Fit, FitEvidence, LayerTarget, Pair, Target
from onnxprune.rewriting import Removal, agreement, io_changes
from onnxprune.rewriting.rewrite import nested, rewrite, rewritten
from onnxprune.runtime import MEMORY, ActivationReader, Agreement, routes_of
from onnxprune.tracing import Groups, NodeView
from onnxprune.typing import Feeds

if TYPE_CHECKING:
    from onnxprune.recovery.training_options import TrainingOptions

logger = logging.getLogger(__name__)

_Item = TypeVar("_Item")

# Shares of the runs, at even steps, that judge the fits, and that no fit sees at all.
JUDGES, HELD_OUT = 0.2, 0.1
# With fewer samples than these, larger ridge weights are tried, too: what so few show of a layer's inputs says little.
FEW, LARGER = 32, (1.0, 10.0)
# So few held-out samples do not tell whether the repaired model is the better one: all samples do.
FEW_HELD = 16
# The choice of no recovery.
NO_RECOVERY = "none"


@dataclass(frozen=True)
class RecoveryOptions:
    """How to recover what a removal cost.

    Attributes:
        method: name of one of `fits.METHODS`, or "none".
        dampings: ridge weights that are tried, in ascending order, relative to the mean of a moment's diagonal.
        onward: look at what becomes of a layer's output: sums, and activations that are flat somewhere.
        memory: bytes of activations that are kept in memory; what is more lies in temporary files.
        train: gradient steps towards the original's outputs, after the fits; none if None.
        tune: the user's own training in their place: from a model to the same graph with other weights.
    """

    method: str = "least-squares"
    dampings: tuple[float, ...] = DAMPINGS
    onward: bool = True
    memory: int = MEMORY
    train: TrainingOptions | None = None
    tune: Callable[[Model], Model] | None = None

    def __post_init__(self) -> None:
        known = (NO_RECOVERY, *METHODS)
        if self.method not in known:
            raise UsageError(f"no way to recover is called {self.method!r}", hint=f"known: {', '.join(known)}")
        if self.train is not None and self.tune is not None:
            raise UsageError("there are two trainings", hint="leave out --train or --fine-tune-command")

    @property
    def how(self) -> Method:
        """The recovery method; there must be one."""
        return METHODS[self.method]

    def numbered(self, number: int) -> RecoveryOptions:
        """How to train in one round of several, counted from 1; see `TrainingOptions.numbered`."""
        return self if self.train is None else replace(self, train=self.train.numbered(number))

    def ridges(self, samples: int) -> tuple[float, ...]:
        """The ridge weights that are tried where so many samples fit and judge."""
        return (*self.dampings, *LARGER) if samples < FEW else self.dampings

    def can_act(self, *, data: bool) -> bool:
        """Whether there is a method, and the data that it needs."""
        return self.method != NO_RECOVERY and (data or not self.how.needs_data)


@dataclass(frozen=True)
class RecoveryReport:
    """What recovery did.

    Attributes:
        fits: every layer behind a cut that could be fitted.
        before: agreement with the original on held-out samples, as the model was cut.
        after: the same after recovery.
        kept: whether the recovered model is the better one, and so was kept; where no output tells, if any fit is.
        method: how it was done.
        fitted: samples that the fits saw, or that chose among them.
        held: samples that no fit saw, which `before` and `after` are measured on.
    """

    fits: tuple[Fit, ...]
    before: Agreement
    after: Agreement
    kept: bool
    method: str = "least-squares"
    fitted: int = 0
    held: int = 0

    @property
    def final(self) -> Agreement:
        """The agreement of the model that was kept."""
        return self.after if self.kept else self.before

    @property
    def damage(self) -> Mapping[str, tuple[float, float]]:
        """Group -> relative squared error of the layers that read it, before and after: the mean over these."""
        readers: dict[str, list[Fit]] = {}
        for fitted in self.fits:
            for group in fitted.groups:
                readers.setdefault(group, []).append(fitted)
        return {
            group: (
                sum(f.before for f in fits) / len(fits),
                sum(f.after if f.kept else f.before for f in fits) / len(fits),
            )
            for group, fits in readers.items()
        }


def recover(
    removal: Removal,
    pruned: Model,
    runs: Sequence[Feeds],
    options: RecoveryOptions | None = None,
    *,
    matched: Groups | None = None,
    progress: Callable[[str], None] = logger.info,
) -> tuple[Model, RecoveryReport]:
    """Re-fit the layers of `pruned` behind what was cut.

    Memory is `options.memory` for activations, and the moments of one layer (8 D^2 bytes).

    Args:
        removal: what was removed, with the traced original.
        pruned: the smaller model.
        runs: calibration inputs, at least two; some of them judge what is kept.
        options: how to recover.
        matched: the trace of a stand-in for the original that takes `runs` for real inputs
            (see `layers/bn_matching.py`).
        progress: is told about every layer.

    Returns:
        The recovered model (the pruned one if that is no worse), and what was done.

    Raises:
        UsageError: there are fewer than two runs.
    """
    options = options or RecoveryOptions()
    if matched is not None and matched is not removal.groups:
        like = rewrite(matched, removal.removed_classes)
        fitted, done = recover(Removal(matched, removal.removed_classes), like, runs, options, progress=progress)
        return bn_matching.restored(fitted, pruned), done
    if len(runs) < 2:
        raise UsageError("calibration data: one batch is not enough to fit and to judge", hint="give more samples")
    original, has_bodies = removal.groups.tracing.model, removal.groups.tracing.model is not removal.groups.model
    given = runs
    runs, held = held_out(given)
    routes = routes_of(original, runs)
    parameters = Parameters(removal.laid_out or rewritten(removal) if has_bodies else pruned, routes)
    found = in_order(list(targets(removal, parameters, options)), parameters)
    found = ready(found, options, parameters)
    found = with_branches(removal, parameters, found) if options.how.joint else found
    fits = fit_targets(removal, parameters, found, runs, options, progress=progress)
    model = parameters.finished() if removal.laid_out or not has_bodies else nested(parameters.finished())
    sliced, after = (agreement(removal, m, held) for m in (pruned, model))
    counts = {"fitted": count_samples(original, runs), "held": count_samples(original, held)}
    one, two = sliced, after
    if sliced.is_known and counts["held"] < FEW_HELD:
        one, two = (agreement(removal, m, [*runs, *held]) for m in (pruned, model))
    kept = two.error < one.error if sliced.is_known else any(f.kept for f in fits)
    report = RecoveryReport(tuple(fits), sliced, after, kept, options.method, **counts)
    if options.how.joint and sliced.is_known:
        single = recover(removal, pruned, given, replace(options, method="least-squares"), progress=progress)
        if single[1].final.error < report.final.error:
            return single
    return model if kept else pruned, report


def fit_targets(
    removal: Removal,
    parameters: Parameters,
    found: Sequence[Target],
    runs: Sequence[Feeds],
    options: RecoveryOptions,
    *,
    progress: Callable[[str], None],
) -> list[Fit]:
    """Fit layers or norms one after the other, in graph order.

    Args:
        removal: what was removed, with the traced original.
        parameters: the pruned model, which gets the fitted parameters, with the routes of `runs`.
        found: what is fitted.
        runs: calibration inputs, some of which judge each fit.
        options: how to recover.
        progress: is told about every layer.

    Returns:
        What became of each.
    """
    original = removal.groups.tracing.model
    fitting, judging = split_runs([*zip(runs, parameters.routes, strict=True)], JUDGES)
    ordered, train = [*fitting, *judging], len(fitting)
    runs, routes = [feeds for feeds, _ in ordered], [route for _, route in ordered]
    fits: list[Fit] = []
    given = [io_changes.feeds(removal, feeds) for feeds in runs]
    one, two = ([name for target in found for name in target.tapped_tensors[side]] for side in (0, 1))
    two += [name for target in found if isinstance(target, JointTarget) for name in target.entering]
    with (
        ActivationReader(original, runs, one, routes=routes, memory=options.memory // 2) as whole,
        ActivationReader(parameters.model, given, two, routes=routes, memory=options.memory // 2) as left,
    ):
        for number, target in enumerate(found, 1):
            progress(WorkPart.of("repairing layer", number, len(found)))
            follows = options.how.sequential or isinstance(target, NormTarget)
            pairs = _pairs(target, whole, left if follows else None)
            ridges = options.ridges(count_samples(original, runs))
            fits += target.fit(removal, parameters, options.how, FitEvidence(pairs, train, ridges))
            if isinstance(target, JointTarget):
                left.renew([target.end], target.entering)
    return fits


def judge(removal: Removal, pruned: Model, runs: Sequence[Feeds]) -> Agreement:
    """Compare a model that is not recovered with the original, on the samples that a recovery would hold out.

    Args:
        removal: what was removed, with the traced original.
        pruned: the smaller model.
        runs: calibration inputs.

    Returns:
        The agreement of their outputs.
    """
    return agreement(removal, pruned, held_out(runs)[1])


def held_out(runs: Sequence[Feeds]) -> tuple[Sequence[Feeds], Sequence[Feeds]]:
    """Divide calibration inputs.

    Returns:
        The runs without those that judge a result, and these; one run serves as both.
    """
    return split_runs(runs, HELD_OUT)


def _pairs(target: Target, whole: ActivationReader, left: ActivationReader | None) -> Iterator[list[Pair]]:
    """The values of a target's tapped tensors in the original and in the pruned model, run by run, at every visit."""
    olds, news = target.tapped_tensors
    others = itertools.repeat(None) if left is None else left.visits(news)
    for visits, after in zip(whole.visits(olds), others, strict=False):
        pairs = zip(visits, itertools.repeat({}) if after is None else after, strict=False)
        yield [([old[n] for n in olds], [] if after is None else [new[n] for n in news]) for old, new in pairs]


def split_runs(runs: Sequence[_Item], share: float) -> tuple[Sequence[_Item], Sequence[_Item]]:
    """Split runs in two.

    Args:
        runs: the runs, or what there is of each.
        share: how many of them judge.

    Returns:
        The runs without some at even steps, and these; one run serves as both.
    """
    if len(runs) == 1:
        return runs, runs
    count = max(1, round(len(runs) * share))
    held = {(2 * i + 1) * len(runs) // (2 * count) for i in range(count)}
    return [r for i, r in enumerate(runs) if i not in held], [r for i, r in enumerate(runs) if i in held]


# --- what is fitted --------------------------------------------------------------------------------------


def targets(removal: Removal, parameters: Parameters, options: RecoveryOptions) -> Iterator[Target]:
    """Layers (or norms) behind a cut, in graph order, with parameters of their own."""
    made = {n.output[0]: n for n in parameters.proto.graph.node if n.output}
    behind = removal.behind
    sharing: dict[str, list[LayerTarget]] = {}
    for view, rule in removal.groups.tracing.views:
        node = made.get(view.node.output[0]) if view.node.output else None
        if node is None or rule is None or node.op_type != view.node.op_type:
            continue
        if node.output[0] not in parameters.reached:
            continue
        if options.how.of_norms:
            if view.node.input[0] in behind and parameters.scale_and_bias(node) and not _loses_positions(removal, view):
                yield NormTarget(view, node)
            continue
        recurrent = RecurrentTarget.of(removal, parameters, view, node)
        if recurrent is not None and not options.how.merges:
            yield recurrent
        old, new = weighted_layer(view), weighted_layer(view, node)
        if old is None or new is None or old.input not in behind:
            continue
        if removal.shrinks(old.input, old.drawn):  # its rows in the two models are not those of the same positions
            continue
        downstream = downstream_of(removal, parameters, new) if options.onward else None
        own = quantized_parameters(parameters, new)
        if own is not None:
            if own.grid.entry.shape[1] > WIDEST:  # rounding to a grid needs the moments themselves
                continue
            yield QuantizedTarget(view, node, old, own.layer, downstream, own=own)
        elif parameters.is_stored(name := node.input[new.weight]) and linear_layer(view) is not None:
            alone = LayerTarget(view, node, old, new, downstream)
            sharing.setdefault(name, []).append(alone)
            together = alone if parameters.is_own(name) else SharedTarget.of(sharing[name], removal, parameters)
            if together is not None:
                yield together


def _loses_positions(removal: Removal, norm: NodeView) -> bool:
    """Whether the output of a norm shrinks on another axis than that of its channels."""
    rank = len(norm.out_shape())
    axis = NORMS[norm.node.op_type].axis % rank
    return removal.shrinks(norm.node.output[0], [a for a in range(rank) if a != axis])


def ready(targets: Sequence[Target], options: RecoveryOptions, parameters: Parameters) -> list[Target]:
    """Leave out of targets the sums whose other operand waits for a layer that is fitted later, or is not computed.

    Args:
        targets: what is to be fitted, in graph order.
        options: how.
        parameters: the pruned model.

    Returns:
        The targets, some of which look at less.
    """
    waiting: set[str] = set()
    found: list[Target] = []
    for target in reversed(targets):
        waiting.update(target.outputs)
        if isinstance(target, LayerTarget) and target.downstream and target.downstream.residual:
            known = options.how.sequential and waiting.isdisjoint(parameters.ancestors([target.downstream.residual]))
            target = target if known else replace(target, downstream=replace(target.downstream, residual=""))
        found.insert(0, target)
    return found
