"""CIFAR-10 of the shared folder, for measurements from the command line.

    onnxprune prune ../shared/models/cifar_resnet20_ts_op11.onnx -o small.onnx \\
        --data tests.measure.cifar:calibration --max-drop 1% --eval tests.measure.cifar:accuracy
"""

from __future__ import annotations

from onnxprune.model import load
from onnxprune.typing import Array
from tests.graphs import shared
from tests.measure import labelled

NETWORK = "cifar_resnet20_ts_op11"


def calibration() -> Array:
    """256 training pictures, drawn with seed 1, without labels."""
    return labelled.of(NETWORK, load(str(shared.entry(f"models/{NETWORK}").path))).calibration


def accuracy(path: str) -> float:
    """Share of the 10,000 test pictures whose class is found."""
    model = load(path)
    return labelled.of(NETWORK, model, 0).accuracy(model)
