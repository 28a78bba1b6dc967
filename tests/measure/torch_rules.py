"""PyTorch's rules on ONNX's own single-operator tests: outputs against ONNX Runtime, gradients against `autodiff`.

    python -m tests.measure.torch_rules [GLOB ...]

Needs PyTorch. Random operators are left out.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

from onnxprune.autodiff import GradientSession, build_vjp
from onnxprune.errors import OnnxPruneError
from onnxprune.model import Model
from onnxprune.runtime import Session, Setting
from onnxprune.torch import OnnxModule, to_module
from tests.graphs.node_cases import NEWEST_IN_RUNTIME, NodeCase, all_cases, with_history

EQUAL, NO_RULE, NO_RUN, WRONG = "equal", "no rule", "does not run", "wrong"
TOLERANCE, HUGE = 2e-5, 1e30
# Where the model computes in half precision and the module in single.
ROUGH, HALF = 5e-3, ("float16", "bfloat16")
RANDOM = ("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Dropout")
# Node test -> why its gradient has several right answers.
TIES: Mapping[str, str] = {"test_selu_example": "an input of zero, where Selu has a corner"}


@dataclass(frozen=True)
class Outcome:
    """What came of one test: its name, operator, status, and the largest error or the reason."""

    case: str
    operator: str
    status: str
    detail: str


def model_of(case: NodeCase) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """The node as a model: floats that are not options as inputs, everything else as constants."""
    inputs, constants, feeds = [], [], {}
    for slot, (name, value, kind) in enumerate(zip(case.node.input, case.values, case.types, strict=True)):
        if not name or value is None:
            continue
        if isinstance(value, np.ndarray) and slot > 0 and value.dtype.kind in "fiub":
            constants.append(numpy_helper.from_array(value, name))
        else:
            inputs.append(helper.make_value_info(name, kind))
            feeds[name] = value
    outputs = [onnx.ValueInfoProto(name=o) for o in case.node.output if o]
    graph = helper.make_graph([case.node], "case", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=case.opsets(), ir_version=10)
    typed = onnx.shape_inference.infer_shapes(model)
    del model.graph.output[:]
    model.graph.output.extend(typed.graph.output)
    return model, feeds


def examine(case: NodeCase) -> Outcome:
    """Compare outputs and gradients of one test."""
    name = f"{case.name} ({case.version})"
    if case.op in RANDOM:
        return Outcome(name, case.op, NO_RUN, "gives something else at every run")
    model, feeds = model_of(case)
    if any(not isinstance(value, np.ndarray) or value.dtype.kind not in "fiub" for value in feeds.values()):
        return Outcome(name, case.op, NO_RULE, "an input that PyTorch has no tensor for")
    try:
        with Session(Model(model), threads=1, optimised=False) as session:
            expected = session.run(feeds)
    except OnnxPruneError as error:
        return Outcome(name, case.op, NO_RUN, error.message.splitlines()[0])
    try:
        module = to_module(Model(model), parameters=None)
        made = module(**{k: torch.from_numpy(np.array(v)) for k, v in feeds.items()})
    except OnnxPruneError as error:
        return Outcome(name, case.op, NO_RULE, error.message.splitlines()[0])
    made = made if isinstance(made, tuple) else (made,)
    error = max((_error(a.detach().numpy(), b) for a, b in zip(made, expected, strict=True)), default=0.0)
    half = any(isinstance(v, np.ndarray) and v.dtype.name in HALF for v in (*case.values, *expected))
    if error <= (ROUGH if half else TOLERANCE):
        why = TIES.get(case.name, "")
        worst, why = (0.0, why) if why else _gradient_error(model, feeds, expected)
        return Outcome(
            name, case.op, EQUAL if worst <= TOLERANCE else WRONG, f"{error:.1e}, gradient {worst:.1e} {why}"
        )
    return Outcome(name, case.op, WRONG, f"outputs differ by {error:.1e}")


def _error(made: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference as a share of the largest element; infinite where shapes differ."""
    if not isinstance(expected, np.ndarray) or made.shape != expected.shape:
        return np.inf
    if not made.size:
        return 0.0
    a, b = made.astype(np.float64), expected.astype(np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    # A masked score is minus infinity to one, and the lowest number to the other.
    a, b = (np.nan_to_num(np.where(np.abs(v) > HUGE, np.sign(v) * HUGE, v)) for v in (a, b))
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1.0))


def _gradient_error(
    model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], outputs: Sequence[Any]
) -> tuple[float, str]:
    """The worst difference of gradients by the float inputs; and why there are none to compare.

    An output that is infinite, as a masked score, has no gradient: the direction is zero there.
    """
    finite = {value.name: np.isfinite(made) for value, made in zip(model.graph.output, outputs, strict=True)}
    promoted, others = onnx.ModelProto(), dict(feeds)
    promoted.CopyFrom(model)
    names = [n for n, v in feeds.items() if v.dtype == np.float32 and v.size]
    if not names:
        return 0.0, "(no float input)"
    for name in names:
        promoted.graph.initializer.append(numpy_helper.from_array(others.pop(name), name))
    kept = [i for i in promoted.graph.input if i.name in others]
    del promoted.graph.input[:]
    promoted.graph.input.extend(kept)
    rng = np.random.default_rng(0)
    try:
        graph = build_vjp(Model(promoted), others, parameters=names)
        along = {
            name: np.where(finite[name], rng.standard_normal(shape), 0).astype(dtype)
            for name, (shape, dtype) in graph.targets.items()
        }
        with GradientSession(graph, Setting(threads=1)) as session:
            expected = session.evaluate({**others, **along}, graph.parameters).gradients
    except (OnnxPruneError, IndexError) as error:
        return 0.0, f"(autodiff: {str(error).splitlines()[0]})"
    module = to_module(Model(promoted), parameters=names)
    return _worst(expected, torch_gradients(module, others, along)), ""


def _worst(expected: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray]) -> float:
    return max((_error(made[name], array) for name, array in expected.items()), default=0.0)


def torch_gradients(
    module: OnnxModule, feeds: Mapping[str, np.ndarray], along: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Gradients of a projection of the outputs, by autograd; zeros for parameters that it does not reach."""
    outputs = module(**{k: torch.from_numpy(np.array(v)) for k, v in feeds.items()})
    named = dict(zip(module.output_names, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))
    total: Any = 0.0
    for name, output in named.items():
        if f"gradient/{name}" in along and output.is_floating_point():
            total = total + (output * torch.from_numpy(along[f"gradient/{name}"])).sum()
    parameters = dict(module.named_parameters())
    found = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    return {
        name: np.zeros(tuple(p.shape), np.float32) if g is None else g.numpy()
        for (name, p), g in zip(parameters.items(), found, strict=True)
    }


def outcomes(patterns: Sequence[str] = ("*",)) -> Iterator[Outcome]:
    """Compare every test whose operator or name matches."""
    for newest in all_cases():
        if any(fnmatch.fnmatchcase(text, p) for p in patterns for text in (newest.op, newest.name)):
            case = next((c for c in with_history(newest) if c.version <= NEWEST_IN_RUNTIME), None)
            if case is not None:
                yield examine(case)


def main() -> None:
    """Print what came of every test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("globs", nargs="*", default=["*"], help="operators or tests")
    counts: Counter[str] = Counter()
    for outcome in outcomes(parser.parse_args().globs):
        counts[outcome.status] += 1
        if outcome.status != EQUAL:
            print(f"{outcome.status:13} {outcome.case:55} {outcome.detail}", flush=True)
    print(dict(counts))


if __name__ == "__main__":
    main()
