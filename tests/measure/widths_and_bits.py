"""Widths and bits at equal size of the file, and at equal time of a run: the tables in docs/quantisation.md.

    python -m tests.measure.widths_and_bits [--network NAME ...] [--size 0.7] [--latency 0.7] [--pictures 2000]

*Size.* "Bits alone" is 4 bits in all layers with no unit removed: no choice of bits alone makes the file smaller. The
size that is asked for is a share of that. "Widths alone" is 8 bits in all layers and as much removed as it takes,
"together" what `onnxprune quantize --size` makes. Signal to noise of the outputs on the samples that judge, and
accuracy.

*Time* (`--latency`, a share of the float model's). All that `onnxprune quantize --latency` tries, with the measured
time and the accuracy of each: float everywhere is "widths alone"; "bits alone" is int8 in all layers with no unit
removed, whatever time that takes. What is chosen is chosen by the outputs on held-out calibration samples alone.

Needs the folder of shared models and data (see tests/graphs/shared.py).
"""

from __future__ import annotations

import argparse

import numpy as np

from onnxprune.allocation import Options
from onnxprune.errors import GoalMissed
from onnxprune.model import Model, file_size, load
from onnxprune.pipelines import prune
from onnxprune.pipelines.quantize import named_nodes, quantize_model
from onnxprune.pipelines.quantize_options import QuantizeOptions
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.search_targets import QualityConstraint
from onnxprune.pipelines.user_metric import Evaluation
from onnxprune.pipelines.widths_and_bits import quantize_within
from onnxprune.rewriting import Removal
from onnxprune.runtime import Session, Setting
from onnxprune.runtime.bench import Place
from tests.graphs import shared
from tests.measure import labelled

NETWORKS = (
    "mlperf_resnet8_cifar10",
    "mlperf_kws_dscnn",
    "marabou_cifar_wide_kw",
    "winml_pytorch_imageclassifier",
    "cifar_resnet20_ts_op11",
    "marabou_mnist_cnn_max",
    "ort_cnn_mnist_pytorch",
    "onnxmlir_mnist",
    "rten_mnist_external",
)
ONE = Place(Setting(threads=1))
# No value is refused: the values are told, and play no part in the choice.
ANY = QualityConstraint("value", 1e9)


def sqnr(model: Model, original: Model, data: labelled.Labelled) -> float:
    """Signal to noise of the first output, in dB."""
    batch = model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 250
    signal = noise = 0.0
    with Session(original) as one, Session(model) as two:
        for start in range(0, min(len(data.inputs), 1000), batch):
            feeds = {data.entry: data.inputs[start : start + batch]}
            wanted, found = (np.asarray(s.run(feeds)[0], np.float64) for s in (one, two))
            signal, noise = signal + np.square(wanted).sum(), noise + np.square(found - wanted).sum()
    return float(10 * np.log10(signal / noise))


def rows(name: str, size: float, pictures: int) -> None:
    """Print the rows of a classifier at equal size."""
    source = load(str(shared.entry(f"models/{name}").path))
    data = labelled.of(name, source, 256, pictures)
    inputs, original = RunInputs(data.feeds), named_nodes(source, narrow=True)

    def show(what: str, model: Model, how: str = "") -> None:
        cells = (what, f"{file_size(model):,}", f"{sqnr(model, source, data):.1f}", f"{data.accuracy(model):.2%}", how)
        print(f"| {name} | {' | '.join(cells)} |", flush=True)

    print(f"| {name} | float | {file_size(source):,} | | {data.accuracy(source):.2%} | |", flush=True)
    bits = quantize_model(original, QuantizeOptions(narrow=("*",)), inputs).model
    show("bits alone", bits)
    done = quantize_within(source, QuantizeOptions(size=f"{int(size * file_size(bits))}B"), inputs)
    show("together", done.model, f"{done.share:.0%} of the parameters, {len(done.narrow)} of {len(done.layers)} layers")
    share = done.tried[0].share
    cut = prune.run(original, Options(params=f"{100 * share:.4f}%"), data=data.feeds)
    removal = Removal(cut.groups, cut.plan.removed(cut.groups))
    show("widths alone", quantize_model(cut.model, QuantizeOptions(), inputs, cut=removal).model, f"{share:.0%}")


def timed_rows(name: str, share: float, pictures: int) -> None:
    """Print the rows of a classifier at equal time."""
    source = load(str(shared.entry(f"models/{name}").path))
    data = labelled.of(name, source, 256, pictures)
    inputs = RunInputs(data.feeds)
    evaluation = Evaluation(lambda path: data.accuracy(load(path)))
    print(f"| {name} | float | 100% | | {data.accuracy(source):.2%} | |", flush=True)
    whole = quantize_model(source, QuantizeOptions(), inputs, place=ONE)
    assert whole.speed is not None
    ratio, value = whole.speed.ratio.value, data.accuracy(whole.model)
    print(f"| {name} | bits alone | {ratio:.0%} | {sqnr(whole.model, source, data):.1f} | {value:.2%} | |", flush=True)
    options = QuantizeOptions(latency=f"{share:.2%}", constraint=ANY, evaluation=evaluation)
    try:
        done = quantize_within(source, options, inputs, place=ONE)
    except GoalMissed as missed:
        print(f"| {name} | {missed} |", flush=True)
        return
    total = len(done.layers) + len(done.floats)
    best = min(done.tried, key=lambda tried: tried.outputs.error)
    for tried in done.tried:
        what = "widths alone" if tried.floats == total else f"int8 in {total - tried.floats} of {total} layers"
        assert tried.speed is not None
        cells = (what, f"{tried.speed.ratio.value:.0%}", f"{tried.outputs.sqnr:.1f}", f"{tried.value:.2%}")
        chosen = "chosen, " if tried is best else ""
        print(f"| {name} | {' | '.join(cells)} | {chosen}{tried.share:.0%} of the parameters |", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append")
    parser.add_argument("--size", type=float, default=0.7)
    parser.add_argument("--latency", type=float, help="at equal time, in place of size")
    parser.add_argument("--pictures", type=int, default=2000)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    for name in given.network or NETWORKS:
        if given.latency is None:
            rows(name, given.size, given.pictures)
        else:
            timed_rows(name, given.latency, given.pictures)


if __name__ == "__main__":
    main()
