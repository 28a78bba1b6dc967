"""What compressing gives: the tables in docs/compress.md.

    python -m tests.measure.compress exact [--tools onnxruntime,onnxscript,onnxslim,onnxsim,onnxprune] [--most 40]
    python -m tests.measure.compress low-rank [--methods plain+scaled+whitened+fitted]
    python -m tests.measure.compress forms [--network cifar_resnet20_ts_op11] [--judging 2000] [--forms channel+spatial]
    python -m tests.measure.compress times [--network cifar_resnet20_ts_op11] [--judging 2000] [--budgets 80%+60%]

The first measures what tools take out of real graphs without a change of their function, the second what products of
weights cost stories260K, a trained language model: 32 texts calibrate, and what the other 32 cost is measured (nats per
token), with 70 % and 50 % of the elements of its weights left. The third measures the accuracy of a network by the form
of its products, with plain decompositions of the weights and with the fit in sequence. The fourth measures the accuracy
(of the language model, nats) and the time of a run on one thread, with products and with fewer channels, under budgets
on time.

Tools that are not installed are left out. Every result is run without optimisations and compared with the original, and
so are its declared inputs and outputs, its metadata and its names.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.allocation import Options
from onnxprune.allocation.ranks import LowRankOptions
from onnxprune.errors import OnnxPruneError
from onnxprune.model import load, to_proto
from onnxprune.model.flatten import flattened
from onnxprune.model.inline import inlined
from onnxprune.model.shapes.infer import infer
from onnxprune.names import FACTOR_FORMS
from onnxprune.pipelines import prune
from onnxprune.pipelines.compress import compressed
from onnxprune.pipelines.low_rank import factorised
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.proof.compare_outputs import differences
from onnxprune.runtime import Session, Setting
from onnxprune.runtime.bench import Place
from onnxprune.runtime.offline import optimised_offline
from onnxprune.runtime.random_inputs import random_feeds
from tests.graphs import shared
from tests.measure import labelled
from tests.measure.accuracy_text import NAME, cost, logits

# Graphs of each exporter, and the most numbers that one may hold.
SAMPLE = {"ts": 14, "dynamo": 8, "tf": 5, "sklearn": 3, "fp16": 2, "ort": 3, "quant": 5}
LARGEST = 10 << 20
Tool = Callable[[onnx.ModelProto], onnx.ModelProto]


def _runtime(proto: onnx.ModelProto) -> onnx.ModelProto:
    made = optimised_offline(load(proto))
    if made is None:
        raise OnnxPruneError("refused")
    return made


def _onnxscript(proto: onnx.ModelProto) -> onnx.ModelProto:
    from onnxscript import optimizer  # type: ignore[import-not-found]

    return optimizer.optimize(proto)


def _onnxslim(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnxslim  # type: ignore[import-not-found]

    return onnxslim.slim(proto)


def _onnxsim(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnxsim  # type: ignore[import-not-found]

    return onnxsim.simplify(proto)[0]


def _own(proto: onnx.ModelProto) -> onnx.ModelProto:
    return to_proto(compressed(load(proto), verify=False).model)


TOOLS: dict[str, Tool] = {
    "onnxruntime": _runtime,
    "onnxscript": _onnxscript,
    "onnxslim": _onnxslim,
    "onnxsim": _onnxsim,
    "onnxprune": _own,
}


@dataclass
class Found:
    """What a tool did to all graphs."""

    failed: list[str] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    declared: int = 0
    notes: int = 0
    sizes: list[float] = field(default_factory=list)
    nodes: list[tuple[int, int]] = field(default_factory=list)
    names: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def row(self, name: str) -> str:
        """A row of the table."""
        left = sum(after for _, after in self.nodes) / max(1, sum(before for before, _ in self.nodes))
        cells = [name, str(len(self.failed)), f"{max(self.errors, default=math.nan):.0e}"]
        cells += [f"{sum(error == 0 for error in self.errors)} of {len(self.errors)}", str(self.declared)]
        cells += [str(self.notes), str(sum(size > 1 for size in self.sizes)), f"{max(self.sizes, default=1):.2f}"]
        cells += [f"{np.mean(self.sizes):.3f}", f"{left:.0%}", f"{np.mean(self.names):.0%}", f"{self.seconds:.0f}"]
        return f"| {' | '.join(cells)} |"


HEADER = ("tool", "failed", "largest error", "exact", "declared otherwise", "notes lost", "larger", "at most", "size")
HEADER = (*HEADER, "nodes left", "names kept", "seconds")


def sample(most: int) -> Iterator[shared.Entry]:
    """Graphs of every exporter, drawn by a seed."""
    rng, count = np.random.default_rng(0), 0
    for folder, wanted in SAMPLE.items():
        fitting = sorted((e for e in shared.entries(f"{folder}/*") if _numbers(e) < LARGEST), key=lambda e: e.name)
        for index in sorted(rng.permutation(len(fitting))[:wanted]):
            if count < most:
                count += 1
                yield fitting[index]


def _numbers(entry: shared.Entry) -> int:
    graph = onnx.load(str(entry.path), load_external_data=False).graph
    return sum(math.prod(tensor.dims) for tensor in graph.initializer)


def _face(proto: onnx.ModelProto) -> list[bytes]:
    stored = {t.name for t in proto.graph.initializer}
    values = [*(v for v in proto.graph.input if v.name not in stored), *proto.graph.output]
    return [v.name.encode() + v.type.SerializeToString(deterministic=True) for v in values]


def judge(proto: onnx.ModelProto, tool: Tool, found: Found, name: str) -> None:
    """Let a tool change a graph, and look at what came of it."""
    copy, model = onnx.ModelProto(), load(proto)
    copy.CopyFrom(proto)
    flat = flattened(inlined(model))
    feeds = random_feeds(flat, infer(flat, {}), np.random.default_rng(0))
    start = time.perf_counter()
    try:
        made = tool(copy)
        found.seconds += time.perf_counter() - start
        onnx.checker.check_model(made, full_check=True)
        with Session(model, optimised=False) as one, Session(load(made, check=False), optimised=False) as other:
            apart = differences(one.outputs, one.run(feeds), other.run(feeds, one.outputs))
    except Exception as error:  # noqa: BLE001 whatever a tool raises
        found.failed.append(f"{name}: {type(error).__name__}")
        return
    found.errors.append(max(apart.values()))
    found.declared += _face(made) != _face(proto)
    found.notes += not {p.key for p in proto.metadata_props} <= {p.key for p in made.metadata_props}
    found.sizes.append(made.ByteSize() / proto.ByteSize())
    found.nodes.append((len(proto.graph.node), len(made.graph.node)))
    known = {o for node in proto.graph.node for o in node.output}
    found.names.append(sum(n.output[0] in known for n in made.graph.node) / max(1, len(made.graph.node)))


def exact(tools: list[str], most: int) -> None:
    """Print the table of all tools."""
    found = {name: Found() for name in tools if name in ("onnxruntime", "onnxprune") or importlib.util.find_spec(name)}
    for entry in sample(most):
        with shared.materialised(entry) as path:
            proto = to_proto(load(path))
        proto.metadata_props.add(key="onnxprune.measured", value="1")
        for name in found:
            judge(proto, TOOLS[name], found[name], entry.name)
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}", flush=True)
    for name, of in found.items():
        print(of.row(name), flush=True)
    for name, of in found.items():
        print(f"{name} fails on: {', '.join(of.failed) or 'none'}", flush=True)


# Name -> options; "fitted" is what `compress` does.
METHODS: dict[str, dict[str, Any]] = {
    "plain": {"method": "plain", "recover": False},
    "scaled": {"method": "scaled", "recover": False},
    "whitened": {"method": "whitened", "recover": False, "in_sequence": False},
    "fitted, one pass": {"in_sequence": False},
    "fitted": {},
}


def low_rank(methods: list[str]) -> None:
    """Print the table of stories260K."""
    folder = shared.folder()
    assert folder is not None
    texts = np.load(folder / "data" / "tinystories" / "self_samples.npy").astype(np.int64)
    source = load(str(shared.entry(f"models/{NAME}").path))
    (name,) = [v.name for v in source.proto.graph.input if v.name not in source.initializers]
    inputs = RunInputs([{name: texts[:32, :-1]}], 32)
    print(f"{NAME}: {cost(logits(source, name, texts[32:]), texts[32:]):.3f} nats", flush=True)
    print("| method | 70 % left | 50 % left | seconds |\n|---|---|---|---|", flush=True)
    for method in methods:
        start, cells = time.perf_counter(), []
        for ratio in (0.3, 0.5):
            options = LowRankOptions(ratio=ratio, round_to=1, allow_slower=True, **METHODS[method])
            done = factorised(source, options, inputs, verify=False)
            cells.append(f"{cost(logits(done.model, name, texts[32:]), texts[32:]):.3f}")
        print(f"| {method} | {' | '.join(cells)} | {(time.perf_counter() - start) / 2:.0f} |", flush=True)


def forms(network: str, judging: int, wanted: list[str]) -> None:
    """Print the table of a network of pictures or sounds."""
    source = load(str(shared.entry(f"models/{network}").path))
    judge = labelled.of(network, source, 256, judging)
    inputs = RunInputs(judge.calibration, 256)
    print(f"{network}: {judge.accuracy(source):.1%}", flush=True)
    print("| form | plain, 70 % left | fitted | plain, 50 % left | fitted |\n|---|---|---|---|---|", flush=True)
    for name in wanted:
        cells = []
        for ratio in (0.3, 0.5):
            for method in (METHODS["plain"], METHODS["fitted"]):
                options = LowRankOptions(
                    ratio=ratio, round_to=1, allow_slower=True, forms=[name] if name in FACTOR_FORMS else [], **method
                )
                try:
                    done = factorised(source, options, inputs, verify=False)
                except OnnxPruneError as error:
                    cells.append(error.message)
                    continue
                used = Counter(w.form for w in done.weights)
                print(f"{name} {ratio} {dict(used)} {done.after.params / done.before.params:.3f}", flush=True)
                cells.append(f"{judge.accuracy(done.model):.1%}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def times(network: str, judging: int, budgets: list[str]) -> None:
    """Print the table of products and channels under budgets on time."""
    source = load(str(shared.entry(f"models/{network}").path))
    if network == NAME:
        texts = np.load(Path(shared.folder() or "") / "data" / "tinystories" / "self_samples.npy").astype(np.int64)
        (name,) = [v.name for v in source.proto.graph.input if v.name not in source.initializers]
        inputs, shapes = RunInputs([{name: texts[:32, :-1]}], 32), {name: texts[:1, :-1].shape}
        measured = lambda model: f"{cost(logits(model, name, texts[32:]), texts[32:]):.3f}"  # noqa: E731
    else:
        judge, shapes = labelled.of(network, source, 256, judging), {}
        inputs, measured = RunInputs(judge.calibration, 256), lambda model: f"{judge.accuracy(model):.1%}"
    place = Place(Setting(threads=1), shapes=shapes)
    print(f"{network}: {measured(source)}", flush=True)
    print("| budget | products | time | forms | channels | time |\n|---|---|---|---|---|---|", flush=True)
    for budget in budgets:
        fewer = prune.run(source, Options(latency=budget), data=inputs.data, samples=inputs.samples, place=place)
        cells = [measured(fewer.model), f"{fewer.timed.ratio.value:.2f}" if fewer.timed else ""]
        try:
            done = factorised(source, LowRankOptions(latency=budget), inputs, place=place)
        except OnnxPruneError as error:
            print(f"| {budget} | {error.message} | | | {' | '.join(cells)} |", flush=True)
            continue
        used = ", ".join(f"{count} {form}" for form, count in Counter(w.form for w in done.weights).items())
        ratio = f"{done.speed.ratio.value:.2f}" if done.speed else ""
        print(f"| {budget} | {measured(done.model)} | {ratio} | {used} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["exact", "low-rank", "forms", "times"])
    parser.add_argument("--network", default="cifar_resnet20_ts_op11")
    parser.add_argument("--judging", type=int, default=2000)
    parser.add_argument("--forms", default="+".join((*FACTOR_FORMS, "chosen by layer")))
    parser.add_argument("--budgets", default="80%+60%")
    parser.add_argument("--methods", default="+".join(METHODS))
    parser.add_argument("--tools", default=",".join(TOOLS))
    parser.add_argument("--most", type=int, default=40)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    if given.what == "exact":
        exact(given.tools.split(","), given.most)
    elif given.what == "times":
        times(given.network, given.judging, given.budgets.split("+"))
    elif given.what == "forms":
        forms(given.network, given.judging, given.forms.split("+"))
    else:
        low_rank(given.methods.split("+"))


if __name__ == "__main__":
    main()
