"""What zeros cost a trained language model, by method and pattern: the table in docs/sparsity.md.

    python -m tests.measure.sparsity [--methods magnitude,wanda,wanda+fit,sparsegpt,alps]

The model is stories260K (Llama, five layers), its texts are 64 that it wrote itself: 32 calibrate, and what the other
32 cost is measured (nats per token). `+fit` re-fits what stays (`--recover`). In sequence, every layer is chosen and
fitted on the inputs that the changed model gives; in one pass, on those of the original.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from onnxprune.pipelines.run_inputs import RunInputs
from onnxprune.pipelines.sparsify import sparsified
from onnxprune.sparsity import METHODS, SparsifyOptions
from tests.measure.accuracy_text import NAME, cost, logits, stories

ZEROS: dict[str, dict[str, Any]] = {
    "50 %": {"sparsity": 0.5},
    "70 %": {"sparsity": 0.7},
    "2:4, channels as they stand": {"pattern": "2:4", "permute": False},
    "2:4": {"pattern": "2:4"},
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="magnitude,wanda,wanda+fit,sparsegpt,alps")
    given = parser.parse_args()
    source, entry, calibrating, judging = stories(parser)
    print(f"{NAME}: {cost(logits(source, entry, judging), judging):.3f} nats", flush=True)
    print(f"| method | {' | '.join(ZEROS)} | seconds |\n|---|{'---|' * (len(ZEROS) + 1)}", flush=True)
    for text in given.methods.split(","):
        name, _, fit = text.partition("+")
        looks = METHODS[name].needs_data or bool(fit)
        data = RunInputs([{entry: calibrating}], 32) if looks else RunInputs()
        for in_sequence in (False, True) if looks else (False,):
            start, cells = time.perf_counter(), []
            for zeros in ZEROS.values():
                options = SparsifyOptions(method=name, recover=bool(fit) or None, in_sequence=in_sequence, **zeros)
                done = sparsified(source, options, data, verify=False)
                cells.append(f"{cost(logits(done.model, entry, judging), judging):.3f}")
            seconds = (time.perf_counter() - start) / len(ZEROS)
            how = f"{text}{', in sequence' if in_sequence else ', one pass' if looks else ''}"
            print(f"| {how} | {' | '.join(cells)} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
