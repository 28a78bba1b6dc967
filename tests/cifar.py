"""CIFAR-10 of the shared folder, for measurements from the command line.

    onnxprune prune ../shared/models/cifar_resnet20_ts_op11.onnx -o small.onnx \\
        --data tests.cifar:calibration --max-drop 1% --eval tests.cifar:accuracy
"""

from __future__ import annotations

from onnxprune.labels import Array
from onnxprune.model import load
from tests import accuracy as networks


def calibration() -> Array:
    """256 training pictures, drawn with seed 1, without labels."""
    return networks.pictures(networks.drawn(256)["calibration"])


def accuracy(path: str) -> float:
    """Share of the 10,000 test pictures whose class is found."""
    model, data = load(path), networks.drawn(0)
    return networks.accuracy(model, networks.entry_of(model), networks.pictures(data["test"]), data["labels"])
