"""Gradients of `onnxprune.autodiff` held against PyTorch's autograd.

    python -m tests.measure.torch_gradients [--write docs/gradients.md] [NAME ...]

Networks of PyTorch go through both exporters. The gradients of a random projection of the outputs by every weight are
computed in single precision by the training graph, and in double precision by autograd: of the network itself, for
weights that the exporter left as they were, and of `onnxprune.torch.to_module` for all. A weight's error is the norm of
the difference as a share of the norm of the gradient. Gradients that are zero but for rounding (biases in front of a
softmax) are left out where both say so. Where an activation lies so near to the corner of a ReLU that single precision
takes the other side, another batch is drawn, up to three: a wrong rule is wrong on all of them.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch

from onnxprune.autodiff import GradientSession, build_vjp
from onnxprune.model import Model
from onnxprune.runtime import Setting
from onnxprune.torch import to_module
from tests.graphs.torch_networks import EXPORTERS, NETWORKS, Exporter, Network, exported
from tests.measure.torch_rules import torch_gradients

BATCH, BATCHES = 2, 3
TOLERANCE = 1e-5
# Share of the largest gradient's norm per element below which a gradient is zero but for rounding.
NOTHING = 1e-6
BEGIN, END = "<!-- torch_gradients -->", "<!-- /torch_gradients -->"
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """What came of one network through one exporter.

    Attributes:
        network: its name.
        kind: what it is made of.
        exporter: the exporter.
        weights: number of weights compared with the same graph run by PyTorch.
        worst: the largest error among them.
        own: number of weights compared with the network itself.
        own_worst: the largest error among them.
        batch: the batch that counts, from 0.
    """

    network: str
    kind: str
    exporter: str
    weights: int
    worst: float
    own: int
    own_worst: float
    batch: int = 0


def compare(network: Network, exporter: Exporter) -> Comparison:
    """Compare the gradients of one network."""
    module, inputs = network.module(), network.inputs(BATCH)
    proto = exported(module, inputs, exporter)
    names = [i.name for i in proto.graph.input]
    graph = build_vjp(Model(proto), {n: t.numpy() for n, t in zip(names, inputs, strict=True)})
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    own = {n: p.detach().numpy() for n, p in module.named_parameters()}
    unchanged = [n for n in graph.gradients if n in own and np.array_equal(own[n], stored.get(n))]
    same, module = to_module(Model(proto), parameters=list(graph.gradients)).double(), module.double()
    best = Comparison(network.name, network.kind, exporter, len(graph.gradients), np.inf, len(unchanged), np.inf)
    with GradientSession(graph, Setting(threads=1)) as session:
        for seed in range(BATCHES):
            feeds = {n: _other(t, seed).numpy() for n, t in zip(names, inputs, strict=True)}
            rng = np.random.default_rng(seed)
            along = {n: rng.standard_normal(shape).astype(dtype) for n, (shape, dtype) in graph.targets.items()}
            found = session.evaluate({**feeds, **along}, graph.parameters).gradients
            wide, wide_along = _wide(feeds), _wide(along)
            theirs = _own(module, wide, next(iter(wide_along.values())))
            errors = (
                worst(found, torch_gradients(same, wide, wide_along)),
                worst(found, {n: theirs[n] for n in unchanged}),
            )
            if max(errors) < max(best.worst, best.own_worst):
                best = replace(best, worst=errors[0], own_worst=errors[1], batch=seed)
            if max(errors) <= TOLERANCE:
                break
    return best


def _other(tensor: torch.Tensor, seed: int) -> torch.Tensor:
    """The inputs of a batch: those of the network, and reordered ones after the first."""
    return torch.from_numpy(np.random.default_rng(seed).permuted(tensor.numpy(), axis=-1)) if seed else tensor


def _wide(arrays: Arrays) -> dict[str, np.ndarray]:
    return {n: v.astype(np.float64) if v.dtype.kind == "f" else v for n, v in arrays.items()}


def _own(module: torch.nn.Module, feeds: Arrays, along: np.ndarray) -> dict[str, np.ndarray]:
    """The gradients of the network itself, in double precision."""
    module.zero_grad()
    output = module(*(torch.from_numpy(value) for value in feeds.values()))
    (output * torch.from_numpy(along)).sum().backward()
    return {n: p.grad.numpy() for n, p in module.named_parameters() if p.grad is not None}


def worst(found: Arrays, expected: Arrays) -> float:
    """The largest error of a weight's gradient."""
    rms = {name: float(np.linalg.norm(g)) / np.sqrt(max(g.size, 1)) for name, g in expected.items()}
    nothing = NOTHING * max(rms.values(), default=0.0)
    errors = [0.0]
    for name, gradient in expected.items():
        difference = float(np.linalg.norm(found[name] - gradient)) / np.sqrt(max(gradient.size, 1))
        errors.append(
            difference / max(rms[name], nothing, 1e-300) if rms[name] > nothing or difference > nothing else 0
        )
    return float(max(errors))


def comparisons(patterns: Sequence[str] = ("*",)) -> Iterator[Comparison]:
    """Compare all networks whose name matches and whose library is installed."""
    for network in NETWORKS.values():
        if network.is_there and any(fnmatch.fnmatchcase(network.name, p) for p in patterns):
            for exporter in EXPORTERS:
                yield compare(network, exporter)


def table(rows: Sequence[Comparison]) -> str:
    """The comparisons as a table of a page."""
    lines = [
        "| network | made of | exporter | weights | worst error | of them unchanged | worst error | batch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        own = f"{r.own_worst:.1e}" if r.own else "-"
        lines.append(
            f"| {r.network} | {r.kind} | {r.exporter} | {r.weights} | {r.worst:.1e} | {r.own} | {own} | {r.batch + 1} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the comparisons, and write them into a page if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["*"], help="globs of networks")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args()
    rows = []
    for row in comparisons(options.names):
        rows.append(row)
        print(row, flush=True)
    print(table(rows))
    if options.write:
        page = options.write.read_text(encoding="utf-8")
        head, rest = page.split(BEGIN)
        options.write.write_text(f"{head}{BEGIN}\n\n{table(rows)}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
