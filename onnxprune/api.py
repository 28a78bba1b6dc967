"""The library: prune a model, or each step of it alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from onnxprune.allocation import Options
from onnxprune.errors import UsageError
from onnxprune.keywords import ChoiceKeywords, UnitKeywords, accepts_synonyms, check_keywords
from onnxprune.lazy import on_first_use
from onnxprune.model import load, same_kind
from onnxprune.model.shapes.symbols import check_sizes
from onnxprune.pipelines.prune import Outcome, check_proven, plan_for, run
from onnxprune.pipelines.run_asked import run_asked
from onnxprune.progress import Progress, shown
from onnxprune.proof import Verdict
from onnxprune.recovery import RecoveryOptions
from onnxprune.rewriting import Plan
from onnxprune.runtime.bench import Place
from onnxprune.shown import Shown
from onnxprune.tracing import Groups
from onnxprune.tracing import trace as trace_model

if TYPE_CHECKING:
    from onnxprune.pipelines.apply import execute
    from onnxprune.pipelines.user_training import OwnTrainer, UserTraining
    from onnxprune.pipelines.verify import prove
    from onnxprune.recovery import TrainingOptions

__all__ = [
    "Outcome",
    "PruneResult",
    "apply",
    "execute",
    "make_plan",
    "plan_for",
    "prove",
    "prune",
    "run",
    "trace",
    "verify",
]

# Plans may hold steps of every verb: who only prunes does not wait for those who carry them out and judge them.
__getattr__ = on_first_use(__name__, {"execute": "onnxprune.pipelines.apply", "prove": "onnxprune.pipelines.verify"})

# Input -> its shape, where the file leaves it open; a None leaves an axis as it is.
Shapes = Mapping[str, Sequence[int | None]]
# Parameters that may be meant by a name that is none.
_PARAMETERS = ("ratio", "criterion", "sizes", "shapes", "data", "samples", "place", "progress")


@dataclass(frozen=True, repr=False)
class PruneResult(Shown):
    """What `prune` returns.

    Attributes:
        model: the smaller model, of the kind that was given (a ModelProto for a path or bytes).
        plan: what was removed.
        report: costs before and after, the proof, and the groups that were rolled back.

    Example:
        >>> import onnxprune
        >>> result = onnxprune.prune("models/digits.onnx", 0.5)
        >>> result.report.after.params < 0.3 * result.report.before.params
        True
    """

    model: Any
    plan: Plan
    report: Outcome


def trace(source: Any, *, shapes: Shapes | None = None, **options: Any) -> Groups:
    """Groups, units and barriers of a model.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        shapes: of inputs, as for `prune`.
        options: those of `tracing.trace`: heads, head_dims, allow_io_changes, rows, sizes.

    Returns:
        What must be removed together, and why some of it cannot be.

    Example:
        >>> import onnxprune
        >>> groups = onnxprune.trace("models/digits.onnx")
        >>> [(group.name, group.units) for group in groups.groups]
        [('conv.weight', 32), ('conv_1.weight', 64), ('residual.conv.weight', 64), ('fc.weight', 96)]
    """
    model = load(source, shapes=shapes)
    check_sizes(model.proto.graph, options.get("sizes") or {})
    return trace_model(model, **options)


@accepts_synonyms(ChoiceKeywords)
def make_plan(
    source: Any,
    ratio: float | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
    shapes: Shapes | None = None,
    data: Any = None,
    samples: int = 256,
    place: Place | None = None,
    progress: Progress | bool = False,
    **options: Unpack[ChoiceKeywords],
) -> Plan:
    """Plan what `prune` would carry out, without carrying it out.

    Args:
        source: a model, as for `prune`.
        ratio: the fraction of the units to remove.
        sizes: numbers for symbolic dims.
        shapes: of inputs that the file leaves open.
        data: unlabelled calibration inputs.
        samples: how many of them to use.
        place: where times are measured.
        progress: True shows a bar with the time that is left; a function is told every stage.
        **options: the other fields of `Options`.

    Returns:
        The plan.

    Example:
        >>> import onnxprune
        >>> plan = onnxprune.make_plan("models/digits.onnx", 0.25)
        >>> [(step.group, len(step.remove)) for step in plan.steps]
        [('conv.weight', 8), ('conv_1.weight', 16), ('residual.conv.weight', 16), ('fc.weight', 24)]
    """
    check_keywords(options, ChoiceKeywords, *_PARAMETERS)
    model, options_ = load(source, shapes=shapes), Options(ratio=ratio, **options)
    with shown(progress) as told:
        return plan_for(model, options_, sizes=sizes, data=data, samples=samples, place=place, progress=told)[1]


@accepts_synonyms()
def apply(
    source: Any,
    plan: Plan,
    *,
    zero: bool = False,
    verify: bool = True,
    shapes: Shapes | None = None,
    data: Any = None,
    samples: int = 256,
    recovery: str = "least-squares",
    progress: Progress | bool = False,
) -> Any:
    """Carry out `plan` on a model, prove the result, and repair it where there is data.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        plan: what goes.
        zero: keep the sizes and set what goes to zero; there is nothing to prove then.
        verify: prove the result, before its repair, equal to the masked original.
        shapes: of inputs, as for `prune`.
        data: unlabelled calibration inputs, as for `prune`.
        samples: how many of them to use.
        recovery: how to repair, as for `prune`.
        progress: True shows a bar with the time that is left; a function is told every stage.

    Returns:
        The kind that was given (a ModelProto for a path or bytes).

    Raises:
        UsageError: the plan does not fit the model.
        ModelError: the model is invalid.
        GoalMissed: the result is not proven.

    Example:
        >>> import onnxprune
        >>> plan = onnxprune.make_plan("models/digits.onnx", 0.25)
        >>> smaller = onnxprune.apply("models/digits.onnx", plan)
        >>> {tensor.name: list(tensor.dims) for tensor in smaller.graph.initializer}["conv.weight"]
        [24, 1, 3, 3]
    """
    from onnxprune.pipelines.apply import execute

    _check_plan(plan)
    given: dict[str, Any] = {"zero": zero, "verify": verify, "data": data, "samples": samples}
    with shown(progress) as told:
        done = execute(load(source, shapes=shapes), plan, recovery=RecoveryOptions(recovery), progress=told, **given)
    check_proven(done.groups, done.verdict)
    return same_kind(done.model, source)


@accepts_synonyms(UnitKeywords)
def prune(
    source: Any,
    ratio: float | None = None,
    criterion: Any = "auto",
    *,
    verify: bool = True,
    sizes: Mapping[str, int] | None = None,
    shapes: Shapes | None = None,
    data: Any = None,
    samples: int = 256,
    recovery: str = "least-squares",
    train: TrainingOptions | None = None,
    fine_tune: OwnTrainer | None = None,
    place: Place | None = None,
    progress: Progress | bool = False,
    **options: Unpack[UnitKeywords],
) -> PruneResult:
    """Prune a model and prove the result.

    Args:
        source: a path, bytes, a ModelProto, or what else `model.load` takes.
        ratio: fraction of every group's units to remove; half if neither it nor a budget (`macs="50%"`) is given.
        criterion: name of a criterion, or a function from `Groups` and a generator to scores; "auto" is "obs" or "l2".
        verify: prove the result; groups that fail are left whole.
        sizes: numbers to assume for symbolic dims, which stay symbolic.
        shapes: of inputs that the file leaves open, for the result too; None for an axis that stays as it is.
        data: unlabelled calibration inputs (see `calibration.read`): for criteria that need them, and the layers behind
            what was cut are re-fitted to what the original computes on them.
        samples: how many calibration samples to use.
        recovery: "none", or a way to repair, of which "bias" and "merge" do something without data, too.
        train: gradient steps towards the original's outputs after the repair, and how; none if None.
        fine_tune: your own training in its place: a function from a ModelProto to the trained one, or a shell command
            with {model} and {output} in it.
        place: where the result is timed; nowhere if None, unless a latency or `round_to="auto"` is asked for.
        progress: True shows a bar; a function is told every stage.
        options: the other fields of `Options`.

    Returns:
        The smaller model, the plan and the report. A budget that was missed is in `report.goals`, no error.

    Raises:
        UsageError: an option is out of range, or a glob matches nothing.
        ModelError: the model is invalid.
        GoalMissed: there is nothing to prune, or the result is not proven.

    Example:
        >>> import onnx, onnxprune
        >>> result = onnxprune.prune("models/digits.onnx", macs="50%", criterion="l2")
        >>> onnx.save(result.model, "smaller.onnx")
        >>> [(goal.kind, goal.met) for goal in result.report.goals]
        [('macs', True)]
    """
    check_keywords(options, UnitKeywords, *_PARAMETERS, "recovery", "train", "fine_tune", "verify")
    chosen = Options(ratio=ratio, criterion=criterion, **options)
    how = RecoveryOptions(recovery, train=train, tune=None if fine_tune is None else _user_training(fine_tune))
    given: dict[str, Any] = {"sizes": sizes, "data": data, "samples": samples, "place": place}
    with shown(progress) as told:
        outcome = run_asked(load(source, shapes=shapes), chosen, verify=verify, recovery=how, progress=told, **given)
    check_proven(outcome.groups, outcome.verdict)
    return PruneResult(same_kind(outcome.model, source), outcome.plan, outcome)


def _user_training(how: OwnTrainer) -> UserTraining:
    from onnxprune.pipelines.user_training import UserTraining

    return UserTraining(how)


def verify(
    original: Any, pruned: Any, plan: Plan, *, shapes: Shapes | None = None, data: Any = None, samples: int = 256
) -> Verdict:
    """Prove that `pruned` is valid, runs, and equals the masked `original` under `plan`.

    Args:
        original: a path, bytes, a ModelProto, or what else `model.load` takes.
        pruned: the model that came of it, of any of these kinds.
        plan: what went.
        shapes: of inputs of the original, as for `prune`.
        data: inputs (see `calibration.read`); the proof runs on them where the original does not run on random ones.
        samples: how many of them to read.

    Returns:
        What was compared, and what is wrong, if anything is.

    Example:
        >>> import onnxprune
        >>> plan = onnxprune.make_plan("models/digits.onnx", 0.5)
        >>> smaller = onnxprune.apply("models/digits.onnx", plan)
        >>> onnxprune.verify("models/digits.onnx", smaller, plan).ok
        True
    """
    from onnxprune.pipelines.verify import prove

    _check_plan(plan)
    return prove(load(original, shapes=shapes), load(pruned), plan, data=data, samples=samples)


def _check_plan(plan: object) -> None:
    if not isinstance(plan, Plan):
        raise UsageError(f"the plan is a {type(plan).__name__}", hint="onnxprune.Plan.from_json(text) reads one")
