"""Prove every operator rule between two contractions, on the node tests of the `onnx` package.

    python -m tests.measure.operators [--jobs 2] [--json results.json] [--write docs/operators.md] [GLOB ...]

For every input axis of every node test, under every definition of the operator since opset 7: the input is made by
a MatMul whose columns are the positions of that axis, brought into the range of the test's own values; every axis of
every output is contracted with a weight. Half of the positions is pruned under every policy of every split, and the
result compared with the masked reference in ONNX Runtime (in `onnx.reference` where the runtime has no kernel).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnxprune import criteria
from onnxprune.allocation import Options, select
from onnxprune.errors import GoalMissed, OnnxPruneError, RunError
from onnxprune.model import load
from onnxprune.proof import compare_outputs, prove, valid
from onnxprune.proof.masked import masked
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import Groups, Tracer, trace
from onnxprune.tracing.describe import describe
from onnxprune.tracing.labels import Constraints
from onnxprune.tracing.partition import form
from onnxprune.typing import Array
from tests.graphs.node_cases import NodeCase, all_cases, alone, run, with_history
from tests.graphs.own_cases import own_cases
from tests.graphs.readings import allowed
from tests.measure.gradients import outcomes
from tests.measure.gradients_table import replaced
from tests.measure.operators_table import merged, page, summary

WIDTH = 3  # of what is put in front and behind
LARGEST = 1000.0
TOO_LARGE = 1e30  # of an output, to be summed in 32 bits
WHERE = 9  # the opset that brought it
DIFFERS = "differs"
NO_PART = "its values play no part"
# Of weights and inputs, until what goes makes a difference: the first from the range of the test's values, then from
# these values alone (numbers that are equal, infinities, what lies on the edge of a threshold).
DRAWS = 16
RANGED = 6
# Operators that look at sizes and types alone.
BLIND = ("Shape", "Size", "CastLike")
PROVEN, BARRIER, NOT_RUNNABLE, WRONG = "proven", "barrier", "not runnable", "wrong"


@dataclass(frozen=True)
class Result:
    """What became of one axis.

    Attributes:
        case: name of the backend test.
        op: the operator.
        version: its opset version.
        slot: the input.
        axis: the axis.
        shape: of the input.
        constant: the other inputs are weights; otherwise they are inputs of the graph.
        allowed: the independent reading lets it lose positions.
        status: one of the four.
        why: the reason of a barrier, what cannot run, what is wrong; the policy that was proven last.
        exact: whether the values at the other positions stay.
    """

    case: str
    op: str
    version: int
    slot: int
    axis: int
    shape: tuple[int, ...]
    constant: bool
    allowed: bool
    status: str
    why: str = ""
    exact: bool = True


# --- the sandwich ----------------------------------------------------------------------------------------------


class Sandwich:
    """A model with the node of `case` between contractions: its input `slot` is made along `axis`."""

    def __init__(
        self, case: NodeCase, outputs: dict[str, Any], slot: int, axis: int, *, constant: bool, seed: int = 0
    ) -> None:
        self.case, self.seed, self.rng = case, seed, np.random.default_rng(seed)
        self.graph = onnx.GraphProto(name="sandwich")
        self.feeds: dict[str, Any] = {}
        for index, name in enumerate(case.node.input):
            value = case.values[index]
            if not name or index == slot:
                continue
            if constant and isinstance(value, np.ndarray):
                self.const(value, name)
            else:
                self.graph.input.append(onnx.ValueInfoProto(name=name, type=case.types[index]))
                self.feeds[name] = value
        self.make(np.asarray(case.values[slot]), axis, case.node.input[slot])
        self.graph.node.append(case.node)
        for name, value in outputs.items():
            self.read(name, value)

    def proto(self) -> onnx.ModelProto:
        return helper.make_model(self.graph, opset_imports=self.case.opsets(), ir_version=10)

    def const(self, value: Any, name: str) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, **attrs: Any) -> str:
        self.graph.node.append(helper.make_node(op, inputs, [output], name=output, **attrs))
        return output

    def scalar(self, value: float) -> str:
        return self.const(np.float32(value), f"scalar{len(self.graph.initializer)}")

    def make(self, like: Array, axis: int, name: str) -> None:
        """A tensor of the shape and type of `like`, in the range of its values, computed along `axis`."""
        rest = [s for a, s in enumerate(like.shape) if a != axis]
        self.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT, [*rest, WIDTH]))
        self.feeds["x"] = self.rng.standard_normal([*rest, WIDTH]).astype(np.float32)
        weight = self.rng.standard_normal((WIDTH, like.shape[axis])).astype(np.float32)
        made = self.add("MatMul", ["x", self.const(weight, "w_in")], "around_made")
        order = list(range(like.ndim - 1))
        order.insert(axis, like.ndim - 1)
        made = self.add("Transpose", [made], "around_turned", perm=order)
        if like.dtype.kind == "b":
            self.add("Greater", [made, self.scalar(0)], name)
            return
        made = self.add("Sigmoid", [made], "around_squashed")
        if self.seed >= RANGED:
            self.pick(made, like, name)
            return
        values = np.clip(like.astype(np.float64), -LARGEST, LARGEST)
        values = values[np.isfinite(values)]
        if values.size and (values != 0).all():  # it may be divided by
            values = np.abs(values) if values.min() < 0 < values.max() else values
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        whole = like.dtype.kind in "iu"
        high = min(high, low + 2.0) if whole else high  # few integers, so that some are equal
        high += 1.0 if whole or low == high else 0.0
        made = self.add("Mul", [made, self.scalar(high - low)], "around_scaled")
        made = self.add("Add", [made, self.scalar(low)], "around_moved")
        if whole:
            made = self.add("Floor", [made], "around_whole")
        self.add("Cast", [made], name, to=helper.np_dtype_to_tensor_dtype(like.dtype))

    def pick(self, made: str, like: Array, name: str) -> None:
        """Numbers between 0 and 1 say which of the values of the test's inputs of this type to take."""
        alike = [v.ravel() for v in self.case.values if isinstance(v, np.ndarray) and v.dtype == like.dtype]
        values = np.unique(np.concatenate(alike))
        made = self.add("Mul", [made, self.scalar(len(values) - 0.01)], "around_scaled")
        made = self.add("Cast", [made], "around_index", to=TensorProto.INT64)
        self.add("Gather", [self.const(values, "around_values"), made], name)

    def read(self, name: str, value: Any) -> None:
        """Contract every axis of an output with a weight; what has none becomes an output as it is."""
        if isinstance(value, np.ndarray) and not value.size and len(self.case.node.output) > 1:
            return
        if not isinstance(value, np.ndarray) or value.dtype.kind in "OUS" or not value.ndim or not value.size:
            self.graph.output.append(onnx.ValueInfoProto(name=name, type=_type_of(value)))
            return
        made = self.add("Cast", [name], f"{name}_float", to=TensorProto.FLOAT)
        small = value.dtype.kind not in "fV" or (np.abs(value.astype(np.float64)) <= TOO_LARGE).all()
        if not small and self.case.opset >= WHERE:
            nan = self.add("IsNaN", [made], f"{name}_nan")
            made = self.add("Where", [nan, self.scalar(LARGEST / 2), made], f"{name}_number")
            made = self.add("Max", [made, self.scalar(-LARGEST)], f"{name}_low")
            made = self.add("Min", [made, self.scalar(LARGEST)], f"{name}_high")
        turn = [*range(1, value.ndim), 0]
        for axis, size in enumerate(value.shape):
            made = self.add("Transpose", [made], f"{name}_turned{axis}", perm=turn)
            weight = self.const(self.rng.standard_normal((size, WIDTH)).astype(np.float32), f"w_{name}_{axis}")
            made = self.add("MatMul", [made, weight], f"{name}_read{axis}")
        self.graph.output.append(helper.make_tensor_value_info(made, TensorProto.FLOAT, [WIDTH] * value.ndim))


def _type_of(value: Any) -> onnx.TypeProto:
    if isinstance(value, list):
        inner = _type_of(value[0]) if value else helper.make_tensor_type_proto(TensorProto.FLOAT, None)
        if inner.HasField("tensor_type"):
            inner.tensor_type.ClearField("shape")
        return helper.make_sequence_type_proto(inner)
    array = np.asarray(value)
    kind = TensorProto.STRING if array.dtype.kind in "OUS" else helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_type_proto(kind, array.shape)


# --- examining -------------------------------------------------------------------------------------------------


def examine(case: NodeCase, *, quick: bool = False) -> Iterator[Result]:
    """Every axis of every input of a case, under its definition; `quick` makes all other inputs constants."""
    feeds = {n: v for n, v in zip(case.node.input, case.values, strict=True) if n}
    try:
        outputs = run(alone(case), feeds)
        problem = ""
    except RunError as error:
        outputs, problem = {}, error.message
    several = not quick and sum(v is not None for v in case.values) > 1
    for slot, value in enumerate(case.values):
        if not isinstance(value, np.ndarray) or not value.size:
            continue
        readable = allowed(case, slot)
        for axis, size in enumerate(value.shape):
            if size < 2:
                continue
            for constant in (True, False) if several else (True,):
                found = (NOT_RUNNABLE, problem, True)
                if value.dtype.kind in "OUSc":
                    found = (NOT_RUNNABLE, "text and complex numbers come from no contraction", True)
                elif not problem:
                    found = confirmed(
                        lambda seed, s=slot, a=axis, c=constant: attempt(  # type: ignore[misc]
                            Sandwich(case, outputs, s, a, constant=c, seed=seed)
                        )
                    )
                yield Result(
                    case.name, case.op, case.version, slot, axis, value.shape, constant, axis in readable, *found
                )


def confirmed(draw: Callable[[int], tuple[str, str, bool]]) -> tuple[str, str, bool]:
    """What a draw says: the first in which the values play a part, and no difference that a second one does not have.

    A number that is rounded to steps may lie on the edge of two in one draw (about one in a thousand), where noise of
    1e-7 makes a whole step; a rule that is wrong is wrong in any draw.
    """
    differed = False
    for seed in range(DRAWS):
        found = draw(seed)
        once = found[0] == WRONG and found[1].startswith(DIFFERS) and not differed
        if not once and found[1] != NO_PART:
            return found
        differed |= once
    return found


def attempt(sandwich: Sandwich) -> tuple[str, str, bool]:
    """(status, why, exact) of one model, under every policy and with everything else pruned too."""
    proto = sandwich.proto()
    try:
        groups = trace(load(proto))
        if not any(_mine(g) for g in policies(groups)):
            found, why, _ = _compare(groups, sandwich, everything=True)
            return (WRONG, why, True) if found == WRONG else (BARRIER, _reasons(groups), True)
        return _proved(groups, sandwich)
    except Exception as error:  # noqa: BLE001 a traceback is what must never come
        return WRONG, f"{type(error).__name__}: {error}", True


def _proved(groups: Groups, sandwich: Sandwich) -> tuple[str, str, bool]:
    exact = True
    for variant, everything in [*((g, False) for g in policies(groups)), (groups, True)]:
        if not _mine(variant):
            continue
        found, why, same = _compare(variant, sandwich, everything=everything)
        exact &= same
        if found != PROVEN:
            return found, why, exact
        if why and not everything and sandwich.case.op not in BLIND:
            return NOT_RUNNABLE, why, exact
    return PROVEN, "", exact


def _reasons(groups: Groups) -> str:
    """Why the positions of `w_in` must stay, those reasons included that are no news to a user."""
    labels = groups.tracing.axes["w_in"][1].reshape(-1)
    mine = groups.classes.of[labels[labels >= 0]]
    found = groups.classes.fixes[np.isin(groups.classes.fixes[:, 0], mine), 1]
    texts = {groups.tracing.ledger.reasons[i].text for i in found}
    return "; ".join(sorted(texts)) or "units cannot be halved"


def _mine(groups: Groups) -> list[Any]:
    return [g for g in groups.groups if g.units > 1 and any((m.tensor, m.axis) == ("w_in", 1) for m in g.members)]


def policies(groups: Groups) -> Iterator[Groups]:
    """The trace as it is, and with every split's other axes: one split at a time, and all of them."""
    yield groups
    choices = groups.tracing.ledger.choices
    for choice in choices:
        for taken in range(len(choice.candidate_axes)):
            if taken != choice.shrinking:
                yield _traced(groups, {choice.key: taken})
    for taken in range(max((len(c.candidate_axes) for c in choices), default=0)):
        wanted = {c.key: min(taken, len(c.candidate_axes) - 1) for c in choices}
        if sum(wanted[c.key] != c.shrinking for c in choices) > 1:
            yield _traced(groups, wanted)


def _traced(groups: Groups, wanted: dict[Any, int]) -> Groups:
    """The groups of the same model under another policy."""
    tracer = Tracer(groups.tracing.model, groups.static, Constraints({**groups.policy, **wanted}))
    tracing, classes = tracer.run()
    parts, classes = form(tracing, classes)
    return Groups(groups.model, describe(tracing, classes, parts, {}), tracing, classes, tracing.ledger.policy)


def _compare(groups: Groups, sandwich: Sandwich, *, everything: bool) -> tuple[str, str, bool]:
    """Prune half of the units of the groups of `w_in` (or of all groups) and compare with the masked reference."""
    try:
        chosen = select(groups, criteria.score(groups, "random", sandwich.seed), Options(ratio=0.5)).removed
    except GoalMissed:
        return NOT_RUNNABLE, "units cannot be halved", True
    mine = {g.name for g in (groups.groups if everything else _mine(groups))}
    removed = np.zeros(groups.classes.count, bool)
    exact = True
    for group in groups.groups:
        if group.name in mine and group.name in chosen:
            removed[group.classes[chosen[group.name]]] = True
            exact &= group.exact
    if not removed.any():
        return NOT_RUNNABLE, "units cannot be halved", exact
    original = sandwich.proto()
    try:
        small, reference = rewrite(groups, removed), masked(groups, removed)
    except OnnxPruneError as error:
        return WRONG, error.message, exact
    if problem := valid(groups.model, small):
        return WRONG, problem, exact
    try:
        plain, wanted = run(original, sandwich.feeds), run(reference.proto, sandwich.feeds)
    except RunError as error:
        return NOT_RUNNABLE, error.message, exact
    try:
        found = run(small.proto, sandwich.feeds)
    except RunError as error:
        return WRONG, f"does not run: {error.message}", exact
    return *_judge(plain, wanted, found, prove.tolerance_of(groups)), exact


def _judge(plain: dict[str, Any], wanted: dict[str, Any], found: dict[str, Any], tolerance: float) -> tuple[str, str]:
    errors = {n: compare_outputs.difference(wanted[n], found[n]) for n in wanted}
    worst = max(errors.values(), default=np.inf)
    if not worst <= tolerance:
        return WRONG, f"{DIFFERS} by {worst:.1e}"
    floats = [v for v in wanted.values() if isinstance(v, np.ndarray) and v.dtype.kind == "f"]
    if not all(np.isfinite(v).all() for v in floats):
        return NOT_RUNNABLE, "values are not finite"
    if all(compare_outputs.difference(plain[n], wanted[n]) <= tolerance for n in wanted):
        return PROVEN, NO_PART
    return PROVEN, ""


# --- all of them -----------------------------------------------------------------------------------------------


def examine_all(case: NodeCase) -> list[Result]:
    """A case under every definition of its operator; under the older ones, other inputs are constants only."""
    return [r for version in with_history(case) for r in examine(version, quick=version is not case)]


def examine_newest(case: NodeCase) -> list[Result]:
    """A case under its newest definition alone."""
    return list(examine(case, quick=True))


def sweep(cases: Sequence[NodeCase], jobs: int = 1, *, quick: bool = False) -> list[Result]:
    """The results of all cases."""
    work = examine_newest if quick else examine_all
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return [r for found in pool.imap_unordered(work, cases, chunksize=4) for r in found]


def main() -> None:
    parser = argparse.ArgumentParser(description="Prove every operator rule on the node tests of onnx.")
    parser.add_argument("globs", nargs="*", default=["*"], help="operators")
    parser.add_argument("--quick", action="store_true", help="newest definitions, all other inputs constant")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    cases = [c for c in (*all_cases(), *own_cases()) if any(fnmatchcase(c.op, g) for g in options.globs)]
    rows = [asdict(r) for r in sweep(cases, options.jobs, quick=options.quick)]
    rows.sort(key=lambda r: (r["op"], -r["version"], r["case"], r["slot"], r["axis"], r["constant"]))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=0))
    if options.write:
        gradients = [asdict(outcome) for outcome in outcomes(history=True)]
        options.write.write_text(replaced(page(merged(rows)), gradients))
    for row in rows:
        if row["status"] == WRONG:
            print(row)
    print(summary(merged(rows)))


if __name__ == "__main__":
    main()
