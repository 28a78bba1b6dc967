"""Find what stands best for blocks that were taken out, one after the other, each on what those before it give."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from onnxprune.layers import Parameters
from onnxprune.model import Model
from onnxprune.recovery.closed_form import JUDGES, split_runs
from onnxprune.recovery.fits import DAMPINGS, METHODS, FitProblem, Fitted, Rows, best
from onnxprune.recovery.spans import FOLD, MAP, NOTHING, SCALE, Span, StandIn
from onnxprune.recovery.stand_in_forms import StandInFit, stand_in_fits
from onnxprune.recovery.targets import ROWS
from onnxprune.runtime import ActivationReader, PairMoments, routes_of
from onnxprune.tracing import Groups
from onnxprune.typing import Runs

# Outputs must come nearer by so much for a form that adds a node.
WORTH_A_NODE = 0.98
# Whether a form may be used, by the number of parameters that it adds.
Allowed = Callable[[str, int], bool]


def fitted_forms(
    groups: Groups, model: Model, span: Span, runs: Runs, allowed: Allowed
) -> Iterator[tuple[Model, StandIn]]:
    """Fit every form that may stand for a span.

    Args:
        groups: the traced original.
        model: the flat model in which a node hands on what enters the span; it is not changed.
        span: what was taken out.
        runs: calibration inputs; some of them judge how much ridge there is.
        allowed: whether a form may be used.

    Yields:
        A model with a stand-in, and what it is.
    """
    whole = stand_in_fits(groups, Parameters(model), span)
    forms = [(i, fit) for i, fit in enumerate(whole) if allowed(fit.form, fit.params)]
    rows = _rows(groups, model, span, runs, [fit for _, fit in forms]) if forms else []
    for (index, fit), sides in zip(forms, rows, strict=True):
        if all(sides):
            own = next(itertools.islice(stand_in_fits(groups, Parameters(model), span), index, None))
            fitted = _fitted(fit, *sides)
            own.write(fitted)
            yield own.parameters.finished(), own.stated(fitted)


def _rows(
    groups: Groups, model: Model, span: Span, runs: Runs, fits: Sequence[StandInFit]
) -> list[tuple[list[Rows], list[Rows]]]:
    """For every form, the rows that it is fitted to, and those that judge."""
    fitting, judging = split_runs(runs, JUDGES)
    runs, train = [*fitting, *judging], len(fitting)
    tapped_tensors = list(dict.fromkeys([span.entry, *(tensor for fit in fits for tensor in fit.tapped_tensors)]))
    found: list[tuple[list[Rows], list[Rows]]] = [([], []) for _ in fits]
    rng, most = np.random.default_rng(0), max(1, ROWS // max(1, train))
    routes = routes_of(groups.tracing.model, runs)
    with (
        ActivationReader(groups.tracing.model, runs, [span.exit], routes=routes) as whole,
        ActivationReader(model, runs, tapped_tensors, routes=routes) as left,
    ):
        for number, (old, new) in enumerate(zip(whole.read([span.exit]), left.read(tapped_tensors), strict=True)):
            if span.exit in old and len(new) == len(tapped_tensors):
                for fit, sides in zip(fits, found, strict=True):
                    sides[number >= train].append(fit.rows(new, old[span.exit], most, rng))
    return found


def _fitted(fit: StandInFit, fitting: Sequence[Rows], judging: Sequence[Rows]) -> Fitted:
    """The parameters."""
    rows, count = Rows.joined([*fitting, *judging]), sum(part.x.shape[1] for part in fitting)
    seen = rows.parted(count)[0]
    moments = PairMoments.of(seen.x, seen.y, shifted=fit.shifted)
    sliced = fit.start[0]
    problem = FitProblem(moments, None, sliced, sliced, fit.shifted)
    return best(METHODS["least-squares"], problem, rows, count, dampings=DAMPINGS).fitted


def with_stand_ins(
    groups: Groups,
    model: Model,
    spans: Sequence[Span],
    runs: Runs,
    distance: Callable[[Model], float],
    allowed: Allowed = lambda form, params: True,
) -> tuple[Model, list[StandIn]]:
    """Put a stand-in in the place of every span, in graph order, each fitted on what those before it give.

    Args:
        groups: the traced original.
        model: what `bypassed` gave of it.
        spans: what was taken out, in graph order.
        runs: calibration inputs, at least two.
        distance: how far the outputs of a flat model are from the original's; what does not lower it is not kept.
        allowed: whether a form may be used.

    Returns:
        The flat model, and what stands for every span.
    """
    found: list[StandIn] = []
    least = distance(model)
    for span in spans:
        made = StandIn(tuple(block.name for block in span.blocks), span.exit)
        for rest in ((FOLD, MAP, SCALE), (MAP, SCALE)):  # on top of a fold, another one
            before = made
            for other, what in list(fitted_forms(groups, model, span, runs, _among(rest, allowed))):
                apart = distance(other)
                if apart < least * (WORTH_A_NODE if what.params else 1):
                    form = what.form if before.form == NOTHING else f"{before.form}+{what.form}"
                    least, best_model, made = apart, other, replace(what, form=form)
            if made is before:
                break
            model = best_model
            if made.form != FOLD:
                break
        found.append(made)
    return model, found


def _among(forms: Sequence[str], allowed: Allowed) -> Allowed:
    """Allowed forms among some."""
    return lambda form, params: form in forms and allowed(form, params)
