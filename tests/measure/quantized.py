"""Four corners: float, pruned, quantised, and both in every order: the tables in docs/quantisation.md.

    python -m tests.measure.quantized [--bits 8,4,3] [--network NAME ...] [--pictures 10000]

stories260K: 30 % of the neurons of every feed-forward layer go (`wanda`); weights are symmetric, a scale per output,
so that three bits can be measured, too; nats per token on 32 texts that did not calibrate. Classifiers: half of the
multiply-accumulates go (`obs`, the same share of every group); int8 as `onnxprune quantize` writes it; accuracy. Needs
the folder of shared models and data (see tests/graphs/shared.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from onnxprune import calibration, criteria
from onnxprune.allocation import Options
from onnxprune.allocation.fit_budgets import fit
from onnxprune.model import Model, load, to_proto
from onnxprune.model.graph import remove_dead
from onnxprune.pipelines.quantize import quantize_model
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.recovery import RecoveryOptions, recover, requantized
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing import trace
from onnxprune.typing import Feeds
from tests.graphs import shared
from tests.measure import labelled
from tests.measure.accuracy_text import NAME, cost, logits, stories

NETWORKS = ("cifar_resnet20_ts_op11", "mlperf_kws_dscnn")


def per_output(model: Model, bits: int) -> Model:
    """Every stored matrix of a MatMul behind a DequantizeLinear, rounded to the nearest numbers of so many bits."""
    proto = onnx.ModelProto()
    proto.CopyFrom(to_proto(model))
    stored, nodes = {t.name: t for t in proto.graph.initializer}, list(proto.graph.node)
    del proto.graph.node[:]
    top = 2 ** (bits - 1) - 1
    for number, node in enumerate(nodes):
        node.name = node.name or f"node{number}"
        if node.op_type == "MatMul" and len(stored[node.input[1]].dims if node.input[1] in stored else ()) == 2:
            weight, name = numpy_helper.to_array(stored[node.input[1]]), f"{node.output[0]}_weight"
            scale = (np.abs(weight).max(axis=0) / top).astype(np.float32)
            numbers = np.clip(np.round(weight / scale), -top, top).astype(np.int8)
            values = {"_n": numbers, "_s": scale, "_z": np.zeros(scale.shape, np.int8)}
            proto.graph.initializer.extend(numpy_helper.from_array(v, name + end) for end, v in values.items())
            inputs = [name + end for end in values]
            proto.graph.node.append(helper.make_node("DequantizeLinear", inputs, [name], axis=1))
            node.input[1] = name
        proto.graph.node.append(node)
    remove_dead(proto.graph)
    return load(proto)


@dataclass(frozen=True)
class Corners:
    """One model, how it is pruned and quantised, and how good a model is.

    Attributes:
        source: the float model.
        runs: calibration inputs.
        options: how it is pruned.
        nearest: quantises a model with the nearest numbers.
        measure: how good a model is.
    """

    source: Model
    runs: Sequence[Feeds]
    options: Options
    nearest: Callable[[Model], Model]
    measure: Callable[[Model], float]

    def pruned(self, model: Model) -> tuple[Removal, Model, Model]:
        """What went of a model, the smaller one as it was cut, and repaired."""
        groups = trace(model)
        options = self.options
        if options.ratio is not None:  # of the language model: neurons alone
            names = [group.name for group in groups.groups if group.units > 100 and len(group.members) < 9]
            options = Options(criterion=options.criterion, ratio=options.ratio, only=names)
        scores = criteria.score(groups, options.criterion, 0, self.runs)
        removal = Removal(groups, removed_classes(groups, fit(groups, scores, options).removed))
        small = rewrite(groups, removal.removed_classes)
        return removal, small, recover(removal, small, self.runs, RecoveryOptions())[0]

    def fitted(self, removal: Removal, quantised: Model) -> Model:
        """A quantised model with numbers chosen by what its layers make."""
        groups = trace(quantised)
        names = {view.name: view.name.removesuffix("_quant") for view, _ in groups.tracing.views}
        return requantized(removal, groups, names, self.runs)[0]

    def rows(self) -> list[tuple[str, float]]:
        """What every corner is worth."""
        groups = trace(self.source)
        nothing = Removal(groups, np.zeros(groups.classes.count, bool))
        removal, _, small = self.pruned(self.source)
        small = load(to_proto(small))
        whole, both = self.nearest(self.source), self.nearest(small)
        kept = trace(small)
        _, cut, repaired = self.pruned(whole)
        return [
            ("float", self.measure(self.source)),
            ("pruned", self.measure(small)),
            ("quantised, nearest numbers", self.measure(whole)),
            ("quantised, fitted", self.measure(self.fitted(nothing, whole))),
            ("quantised, then cut", self.measure(cut)),
            ("quantised, then pruned with repair on the grid", self.measure(repaired)),
            ("pruned, then quantised, nearest numbers", self.measure(both)),
            (
                "pruned, then quantised, fitted to the pruned",
                self.measure(self.fitted(Removal(kept, np.zeros(kept.classes.count, bool)), both)),
            ),
            ("pruned, then quantised, fitted to the original", self.measure(self.fitted(removal, both))),
        ]


def of_text(parser: argparse.ArgumentParser, bits: int) -> Corners:
    """The language model."""
    source, entry, calibrating, texts = stories(parser)
    runs = calibration.read([{entry: calibrating}], source, samples=32)
    source = _named(source)
    options = Options(criterion="wanda", ratio=0.3)
    return Corners(source, runs, options, lambda m: per_output(m, bits), lambda m: cost(logits(m, entry, texts), texts))


def of_classifier(name: str, pictures: int) -> Corners:
    """A classifier, in int8."""
    source = load(str(shared.entry(f"models/{name}").path))
    data = labelled.of(name, source, 256, pictures)
    runs = calibration.read(data.feeds, source, samples=256, batch=16)
    options = Options(criterion="obs", macs="50%", allocation="uniform")

    def nearest(model: Model) -> Model:
        return quantize_model(model, QuantizeOptions(fit=False), RunInputs(data.feeds)).model

    return Corners(_named(source), runs, options, nearest, data.accuracy)


def _named(model: Model) -> Model:
    proto = to_proto(model)
    for number, node in enumerate(proto.graph.node):
        node.name = node.name or f"node{number}"
    return load(proto)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bits", default="8,4,3")
    parser.add_argument("--network", action="append")
    parser.add_argument("--pictures", type=int, default=10_000)
    given = parser.parse_args()
    cases = [(f"{NAME}, {bits} bits", of_text(parser, int(bits))) for bits in given.bits.split(",") if bits]
    cases += [(name, of_classifier(name, given.pictures)) for name in given.network or NETWORKS]
    for name, corners in cases:
        for what, value in corners.rows():
            print(f"| {name} | {what} | {value:.4f} |", flush=True)


if __name__ == "__main__":
    main()
