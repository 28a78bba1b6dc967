"""Gradients of ONNX's own single-operator tests, held against finite differences.

    python -m tests.measure.gradients [--history] [--json results.json] [--write] [GLOB ...]

Every float input of a test becomes a parameter, nudged away from ties; the gradient of a random projection of the
outputs is compared with central differences in random directions, at several distances of which the best counts. Single
precision and corners within the distance set the tolerance. A corner is met in one draw and not in the next, so a
gradient is wrong where it is in two. `--write` writes the part on gradients of docs/operators.md.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune.autodiff import TrainingGraph, build_vjp
from onnxprune.autodiff.session import GradientSession
from onnxprune.errors import OnnxPruneError, RunError
from onnxprune.model import Model
from onnxprune.runtime import Session, Setting
from tests.graphs.fused_cases import fused_cases
from tests.graphs.node_cases import NEWEST_IN_RUNTIME, NodeCase, all_cases, with_history
from tests.graphs.own_cases import own_cases
from tests.graphs.recurrent_cases import recurrent_cases
from tests.measure.gradients_table import NO_MEASURE, NO_RULE, NO_RUN, NOTHING, PASSED, WRONG, replaced, summary

PAGE = Path(__file__).parents[2] / "docs" / "operators.md"
DISTANCES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
TOLERANCE = 1e-2
# Error of a loss that is computed in single precision, as a share of it.
ROUNDING = 1e-6
TINY = 1e-12
DIRECTIONS = 3
# Of the outputs of the training graph, as a share of the largest number of the operator's own.
FORWARD = 1e-4
RANDOM = ("Bernoulli", "Dropout", "Multinomial", "RandomNormalLike", "RandomUniformLike")

# Inputs that are statistics or options, not parameters: they have no gradient.
STATISTICS: Mapping[str, Sequence[int]] = {
    "BatchNormalization": (3, 4),
    "Dropout": (1,),
    "MatMulNBits": (2, 3),
    "OneHot": (0, 1),
    "Resize": (1, 2),
    "Upsample": (1,),
}
# Node test -> why its gradient cannot be compared by differences.
NOT_DIFFERENTIABLE: Mapping[str, str] = {
    **dict.fromkeys(
        ("test_training_dropout", "test_training_dropout_default"), "every run drops other positions at random"
    ),
    **dict.fromkeys(
        ("test_training_dropout_mask", "test_training_dropout_default_mask"),
        "every run drops other positions at random",
    ),
    "test_l2normalization_axis_0": "a column near zero, where the norm has a corner",
    "test_maxpool_3d_dilations_use_ref_impl_large": "16 distinct values: windows tie within the distances",
}


@dataclass(frozen=True)
class Outcome:
    """What came of one test.

    Attributes:
        case: name of the test, with the version of the operator.
        operator: the operator.
        status: one of the statuses of this module.
        detail: the largest relative error, or the reason.
    """

    case: str
    operator: str
    status: str
    detail: str


def examine(case: NodeCase) -> Outcome:
    """Compare the gradient of one test with finite differences."""
    found = _examined(case, seed=0)
    if found.status == WRONG and case.name not in NOT_DIFFERENTIABLE:
        second = _examined(case, seed=1)
        return second if second.status == PASSED else found
    return found


def _examined(case: NodeCase, seed: int) -> Outcome:
    name = f"{case.name} ({case.version})"
    model, feeds, parameters = case_model(case, np.random.default_rng(seed))
    if not parameters:
        return Outcome(name, case.op, NOTHING, "no float input")
    if any(not isinstance(value, np.ndarray) for value in feeds.values()):
        return Outcome(name, case.op, NO_RULE, "a sequence or an optional is an input")
    try:
        graph = build_vjp(Model(model), feeds, parameters=parameters)
    except OnnxPruneError as error:
        kinds = (("blocks", NO_RULE), ("reaches", NOTHING), ("no float output", NOTHING))
        status = next((status for word, status in kinds if word in error.message), NO_RUN)
        return Outcome(name, case.op, status, error.message.splitlines()[0])
    apart = forward_error(model, graph, feeds)
    if apart > FORWARD:
        return Outcome(name, case.op, WRONG, f"the outputs are {apart:.1e} from those of the operator")
    with GradientSession(graph, Setting(threads=1)) as session:
        error = _largest_error(session, feeds, seed)
    if math.isnan(error):
        return Outcome(name, case.op, NO_MEASURE, "the differences are smaller than the rounding of the loss")
    if error > TOLERANCE and case.name in NOT_DIFFERENTIABLE:
        return Outcome(name, case.op, NO_MEASURE, NOT_DIFFERENTIABLE[case.name])
    return Outcome(name, case.op, PASSED if error <= TOLERANCE else WRONG, f"{error:.1e}")


def forward_error(model: onnx.ModelProto, graph: TrainingGraph, feeds: Mapping[str, object]) -> float:
    """How far the outputs of a training graph are from the model's, as a share of the largest number."""
    if any(node.op_type in RANDOM for node in model.graph.node):
        return 0.0
    try:
        original = Session(Model(model), threads=1, optimised=False)
    except RunError:  # the runtime has no kernel, and runs what the operator's function says
        return 0.0
    with original as session:
        wanted = dict(zip(session.outputs, session.run(dict(feeds)), strict=True))
    ready = onnx.ModelProto()
    ready.CopyFrom(graph.model)
    given = {**feeds, **{n: np.zeros(shape, kind) for n, (shape, kind) in graph.targets.items()}, **graph.parameters}
    with Session(Model(ready), threads=1, optimised=False) as session:
        names = [n for n in graph.outputs if isinstance(wanted.get(n), np.ndarray) and wanted[n].dtype.kind in "fiub"]
        fed = {n: given[n] for n in session.inputs}
        found = session.run(fed, [graph.outputs[n] for n in names])
    worst = 0.0
    for name, value in zip(names, found, strict=True):
        a, b = np.asarray(value, np.float64), np.asarray(wanted[name], np.float64)
        with np.errstate(invalid="ignore"):
            error = np.abs(np.where(a == b, 0.0, a - b))
        error = np.where(np.isnan(a) & np.isnan(b), 0.0, error)
        size = max(float(np.abs(b).max(initial=0)), TINY)
        worst = max(worst, float(np.nan_to_num(error, nan=np.inf).max(initial=0)) / size)
    return worst


def case_model(case: NodeCase, rng: np.random.Generator) -> tuple[onnx.ModelProto, dict[str, np.ndarray], list[str]]:
    """The node as a model whose float inputs are initializers."""
    inputs, initializers, constants, feeds = [], [], [], {}
    frozen = STATISTICS.get(case.node.op_type, ())
    for slot, (name, value, kind) in enumerate(zip(case.node.input, case.values, case.types, strict=True)):
        if not name or value is None:
            continue
        if slot not in frozen and _is_differentiable(value):
            spread = 0.02 * float(np.abs(value).mean() or 1)
            moved = value + rng.uniform(-spread, spread, value.shape)
            initializers.append(numpy_helper.from_array(moved.astype(value.dtype), name))
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiubV":
            constants.append(numpy_helper.from_array(value, name))
        else:
            inputs.append(helper.make_value_info(name, kind))
            feeds[name] = value
    outputs = [onnx.ValueInfoProto(name=o) for o in case.node.output if o]
    graph = helper.make_graph([case.node], "case", inputs, outputs, [*initializers, *constants])
    model = helper.make_model(graph, opset_imports=case.opsets(), ir_version=10)
    typed = onnx.shape_inference.infer_shapes(model)
    del model.graph.output[:]
    model.graph.output.extend(typed.graph.output)
    return model, feeds, [t.name for t in initializers]


def _is_differentiable(value: object) -> bool:
    floats = isinstance(value, np.ndarray) and value.dtype in (np.float32, np.float64)
    return floats and bool(value.size and np.isfinite(value).all())


def _largest_error(session: GradientSession, feeds: Mapping[str, np.ndarray], seed: int) -> float:
    graph, rng = session.graph, np.random.default_rng([seed, 1])
    extra = {name: rng.standard_normal(shape).astype(kind) for name, (shape, kind) in graph.targets.items()}
    start = dict(graph.parameters)
    gradients = session.evaluate({**feeds, **extra}, start).gradients
    worst = 0.0
    for _ in range(DIRECTIONS):
        steps = {n: rng.standard_normal(a.shape) * float(np.abs(a).mean() or 1) for n, a in start.items()}
        slope = sum(float((g.astype(np.float64) * steps[n]).sum()) for n, g in gradients.items())

        def loss(distance: float, steps: Mapping[str, np.ndarray] = steps) -> float:
            moved = {n: np.asarray(a + distance * steps[n], a.dtype) for n, a in start.items()}
            return session.evaluate({**feeds, **extra}, moved).loss

        scale = sum(float(np.abs(g.astype(np.float64) * steps[n]).sum()) for n, g in gradients.items())
        errors = []
        for distance in DISTANCES:
            high, low = loss(distance), loss(-distance)
            measured = (high - low) / (2 * distance)
            rounding = ROUNDING * max(abs(high), abs(low)) / distance
            if rounding > scale:
                continue
            errors.append(
                max(abs(measured - slope) - rounding, 0.0) / max(abs(slope), abs(measured), 0.1 * scale, TINY)
            )
        worst = max(worst, min(errors, default=math.nan))
    return worst


def outcomes(globs: Sequence[str] = (), *, history: bool = False) -> Iterator[Outcome]:
    """Examine every test that matches."""
    for newest in (*all_cases(), *own_cases(), *fused_cases(), *recurrent_cases()):
        if globs and not any(fnmatch.fnmatchcase(newest.name, g) for g in globs):
            continue
        runnable = [case for case in with_history(newest) if case.version <= NEWEST_IN_RUNTIME]
        for case in runnable if history else runnable[:1]:
            yield examine(case)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("globs", nargs="*", help="names of tests; all if none is given")
    parser.add_argument("--history", action="store_true", help="under older definitions of the operators too")
    parser.add_argument("--json", type=Path, help="file for all outcomes")
    parser.add_argument("--write", action="store_true", help="write the part on gradients of docs/operators.md")
    given = parser.parse_args()
    rows = []
    for outcome in outcomes(given.globs, history=given.history):
        rows.append(asdict(outcome))
        if outcome.status not in (PASSED, NOTHING):
            print(outcome.status, outcome.case, outcome.operator, outcome.detail, sep="\t", flush=True)
    print(summary(rows))
    if given.json:
        given.json.write_text(json.dumps(rows, indent=0), encoding="utf-8")
    if given.write:
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")
    return int(any(row["status"] == WRONG for row in rows))


if __name__ == "__main__":
    sys.exit(main())
