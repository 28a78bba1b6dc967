"""What zeros cost trained networks, by method and pattern: the tables in docs/sparsity.md.

    python -m tests.measure.sparsity [--network NAME] [--methods magnitude,wanda,wanda+fit,sparsegpt,alps] [--zeros ...]

The network is stories260K (Llama, five layers), and its texts are 64 that it wrote itself: 32 calibrate, and what the
other 32 cost is measured (nats per token). Or it is a classifier of pictures, whose accuracy is measured on 2,000 (256
others calibrate), or `g2p` or `thai`, recurrent networks (see `tests/measure/accuracy_recurrent.py`). `+fit` re-fits
what stays (`--recover`). In sequence, every layer is chosen and fitted on the inputs that the changed model gives; in
one pass, on those of the original.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import OnnxPruneError
from onnxprune.model import Model, load
from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsify import sparsified
from onnxprune.sparsity import METHODS, SparsifyOptions
from onnxprune.sparsity.registry import AUTO
from tests.graphs import shared
from tests.measure import labelled
from tests.measure.accuracy_recurrent import task_of
from tests.measure.accuracy_text import NAME, cost, logits, stories

ZEROS: dict[str, dict[str, Any]] = {
    "50 %": {"sparsity": 0.5},
    "70 %": {"sparsity": 0.7},
    "2:4, channels as they stand": {"pattern": "2:4", "permute": False},
    "2:4": {"pattern": "2:4"},
}
RECURRENT = ("g2p", "thai")


@dataclass(frozen=True)
class _Judged:
    """A network, its calibration inputs, and what is measured of it."""

    source: Model
    inputs: RunInputs
    measured: Callable[[Model], str]


def _judged(name: str, parser: argparse.ArgumentParser) -> _Judged:
    if name == NAME:
        source, entry, calibrating, judging = stories(parser)

        def nats(model: Model) -> str:
            return f"{cost(logits(model, entry, judging), judging):.3f}"

        return _Judged(source, RunInputs([{entry: calibrating}], 32), nats)
    if name in RECURRENT:
        task = task_of(name)
        return _Judged(task.source, RunInputs(task.calibration(256), 256), lambda m: f"{task.accuracy(m):.1%}")
    source = load(str(shared.entry(f"models/{name}").path))
    judge = labelled.of(name, source, 256, 2000)
    return _Judged(source, RunInputs(judge.calibration, 256), lambda m: f"{judge.accuracy(m):.1%}")


def _cell(judged: _Judged, options: SparsifyOptions, data: RunInputs) -> str:
    try:
        return judged.measured(sparsified(judged.source, options, data, verify=False).model)
    except OnnxPruneError as error:
        return error.message


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default=NAME)
    parser.add_argument("--methods", default="magnitude,wanda,wanda+fit,sparsegpt,alps")
    parser.add_argument("--zeros", default=";".join(ZEROS))
    given = parser.parse_args()
    judged, zeros = _judged(given.network, parser), given.zeros.split(";")
    print(f"{given.network}: {judged.measured(judged.source)}", flush=True)
    print(f"| method | {' | '.join(zeros)} | seconds |\n|---|{'---|' * (len(zeros) + 1)}", flush=True)
    for text in given.methods.split(","):
        name, _, fit = text.partition("+")
        looks = name == AUTO or METHODS[name].needs_data or bool(fit)
        data = judged.inputs if looks else RunInputs()
        for in_sequence in (True,) if name == AUTO else (False, True) if looks else (False,):
            start, how = time.perf_counter(), {"method": name, "recover": bool(fit) or None, "in_sequence": in_sequence}
            cells = [_cell(judged, SparsifyOptions(**how, **ZEROS[zero]), data) for zero in zeros]
            seconds = (time.perf_counter() - start) / len(zeros)
            way = f"{text}{', in sequence' if in_sequence else ', one pass' if looks else ''}"
            print(f"| {way} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
