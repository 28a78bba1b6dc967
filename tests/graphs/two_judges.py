"""Hold a plan's exact groups against the original with the weights of removed units set to zero."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from onnxprune import api
from onnxprune.model import Model, load, unsaturated
from onnxprune.model.flatten import flattened
from onnxprune.model.inline import inlined
from onnxprune.model.shapes.infer import infer
from onnxprune.proof.compare_outputs import difference
from onnxprune.proof.layer_run import NUDGES
from onnxprune.proof.prove import NOISE_MARGIN, TOLERANCES
from onnxprune.rewriting import Plan
from onnxprune.runtime import Session
from onnxprune.runtime.random_inputs import random_feeds
from tests.graphs.net import with_arrays


def exact_part(plan: Plan) -> Plan:
    """The plan without what it removes of approximate groups."""
    return replace(plan, steps=tuple(s if s.exact else replace(s, remove=()) for s in plan.steps))


def far(model: Model, plan: Plan, *, seed: int = 0) -> float:
    """How far the pruned model is from the zeroed original, in tolerances; 0.0 where the plan removes nothing.

    Sums of bytes that saturate on some processors depend on the positions, so they are made without.
    """
    if not any(step.remove for step in plan.steps):
        return 0.0
    plan = Plan.from_json(plan.to_json())
    small, zeroed = (api.execute(model, plan, zero=zero, verify=False).model for zero in (False, True))
    static = infer(flattened(inlined(model)), plan.options.get("sizes"))
    feeds = random_feeds(flattened(inlined(model)), static, np.random.default_rng(seed))
    floats = {static.dtypes.get(t) for t in (*model.initializers, *static.shapes)}
    tolerance = max((TOLERANCES[d] for d in floats if d in TOLERANCES), default=1e-4)
    zeroed, small = (unsaturated(made, static.dtypes) for made in (zeroed, small))
    with Session(zeroed) as reference, Session(small) as session:
        wanted = reference.run(feeds)
        errors = [difference(a, b) for a, b in zip(wanted, session.run(feeds, reference.outputs), strict=True)]
        if max(errors) <= tolerance:
            return max(errors) / tolerance
        nudged = {n: x * (1 + NUDGES[x.dtype.name]) if x.dtype.kind == "f" else x for n, x in feeds.items()}
        again = reference.run({n: x.astype(feeds[n].dtype) for n, x in nudged.items()})
        noise = [NOISE_MARGIN * difference(a, b) for a, b in zip(wanted, again, strict=True)]
    return max(e / max(tolerance, n) for e, n in zip(errors, noise, strict=True))


def masked_by_hand(proto: onnx.ModelProto, plan: Plan) -> onnx.ModelProto | None:
    """The original with `plan.masks` multiplied to its initializers; None where a use of several has its own."""
    masks = plan.masks(proto)
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    if not masks.keys() <= stored.keys():
        return None
    return with_arrays(proto, {n: (stored[n] * m).astype(stored[n].dtype) for n, m in masks.items()})


def check(source: onnx.ModelProto | Model, plan: Plan) -> bool:
    """Assert that what the plan removes of exact groups is what the zeroed original says; whether it removes any."""
    exact = exact_part(Plan.from_json(plan.to_json()))
    reasons = {s.group: s.approximate for s in plan.steps}
    assert all(bool(reasons[s.group]) != s.exact for s in plan.steps)
    assert far(load(source), exact) <= 1.0
    return any(step.remove for step in exact.steps)
