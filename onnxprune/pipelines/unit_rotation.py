"""Linear groups turned to their principal components before units are chosen, proven to change no output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from onnxprune.allocation import Options, max_counts
from onnxprune.cost import counts
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.model import Model
from onnxprune.model.run_order import counted
from onnxprune.pipelines.equal_steps import largest_equal
from onnxprune.pipelines.principal_axes import principal_axes
from onnxprune.proof import Trials, equals
from onnxprune.rewriting import Plan, RotateStep, rotatable_groups, with_rotation
from onnxprune.rewriting import plan as plans
from onnxprune.runtime import routes_of
from onnxprune.tracing import Groups, retrace, trace
from onnxprune.typing import Array, Runs


@dataclass(frozen=True, eq=False)
class Rotated:
    """A model whose linear groups were rotated, if any were.

    Attributes:
        original: the traced original.
        groups: the trace of the rotated model.
        steps: the directions of every group that was rotated.
        sizes: numbers for symbolic dims.
    """

    original: Groups
    groups: Groups
    steps: tuple[RotateStep, ...] = ()
    sizes: Mapping[str, int] | None = None

    def plan(self, removed: Mapping[str, Array], scores: Array, options: Options) -> Plan:
        """The plan for the original.

        Args:
            removed: group name -> indices of what goes of the rotated model.
            scores: float64[classes].
            options: what was asked for.
        """
        made = plans.make(self.groups, removed, scores, options.as_json(), self.sizes)
        return replace(made, rotations=self.steps, source=plans.source_of(self.original.model)) if self.steps else made

    def budgeted(self, options: Options) -> Options:
        """The options with budgets that count from the original, where weights of the rotated model are copies."""
        if len(self.groups.model.initializers) == len(self.original.model.initializers):
            return options
        whole = counts.of_trace(self.original.tracing, self.original.model)
        params, size = (options.budgets.get(name) for name in ("params", "size"))
        return replace(
            options,
            params=None if params is None else params.limit(whole.params),
            size=None if size is None else size.limit(whole.size),
        )


def trace_rotated(
    model: Model,
    options: Options,
    runs: Runs,
    *,
    sizes: Mapping[str, int] | None,
    verify: bool = True,
    random: bool = False,
) -> Rotated:
    """Trace a model, and rotate it where the options ask for that.

    Args:
        model: the model.
        options: what may be pruned.
        runs: calibration inputs; the trace knows which branches they take.
        sizes: numbers for symbolic dims.
        verify: prove that the rotated model gives the outputs of the original.
        random: the inputs are drawn.

    Returns:
        The traces of the original and of the rotated model, and the directions.

    Raises:
        UsageError: directions are asked for, and there are no inputs to find them on.
    """
    groups = trace(model, **options.policy, sizes=sizes)
    groups.tracing.fed = counted(routes_of(groups.tracing.model, runs))
    return with_principal_axes(groups, options, [] if random else runs, sizes=sizes, verify=verify)


def with_principal_axes(
    groups: Groups, options: Options, runs: Runs, *, sizes: Mapping[str, int] | None = None, verify: bool = True
) -> Rotated:
    """Rotate the linear groups that may lose units, if the options ask for it, as far as that is proven.

    Args:
        groups: the traced original.
        options: what may be pruned.
        runs: calibration inputs; none where they are random.
        sizes: numbers for symbolic dims.
        verify: prove that the rotated model gives the outputs of the original.

    Returns:
        The rotated model, traced as the original was, and its directions.

    Raises:
        UsageError: there are no inputs to find directions on.
    """
    if not options.rotate:
        return Rotated(groups, groups, sizes=sizes)
    if not runs:
        raise UsageError("--rotate needs inputs as the model gets them", hint="give --data a file of real inputs")
    most = dict(zip((g.name for g in groups.groups), max_counts(groups, options), strict=True))
    chosen = [group for name, group in rotatable_groups(groups).items() if most[name] > 0]
    steps = tuple(principal_axes(groups, chosen, runs).values()) if chosen else ()
    if verify:
        model, steps = largest_equal(groups, steps, with_rotation, Trials(sizes=sizes or {}, samples=runs[:1]))
    else:
        model = with_rotation(groups, steps) if steps else groups.model
    if not steps:
        return Rotated(groups, groups, sizes=sizes)
    turned = retrace(replace(groups, model=model), dict(groups.static.sizes))
    turned.tracing.fed = groups.tracing.fed
    return Rotated(groups, turned, steps, sizes)


def trace_turned(groups: Groups, steps: Sequence[RotateStep]) -> Groups:
    """Trace a model whose groups are rotated as a plan says.

    Args:
        groups: the traced model.
        steps: the directions.

    Returns:
        The trace of the rotated model; of the model as it is, where there are no directions.
    """
    if not steps:
        return groups
    return retrace(replace(groups, model=with_rotation(groups, steps)), dict(groups.static.sizes))


def proven_rotation(
    groups: Groups, steps: Sequence[RotateStep], *, sizes: Mapping[str, int] | None = None, verify: bool = True
) -> Model:
    """Rotate groups as a plan says.

    Args:
        groups: the traced model.
        steps: the directions.
        sizes: numbers for symbolic dims.
        verify: prove the outputs equal to the original's.

    Returns:
        The rotated model.

    Raises:
        UsageError: a step does not fit the model.
        GoalMissed: the outputs are not equal.
    """
    found = with_rotation(groups, steps)
    verdict = equals(groups, found, Trials(sizes=sizes or {})) if verify else None
    if verdict is not None and not verdict.ok:
        raise GoalMissed(f"the rotated model is not proven: {verdict.problem}", hint="plan without --rotate")
    return found
