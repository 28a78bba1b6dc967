"""CIFAR-10 of the shared folder, for measurements from the command line.

    onnxprune prune ../shared/models/cifar_resnet20_ts_op11.onnx -o small.onnx \\
        --data tests.cifar:calibration --max-drop 1% --eval tests.cifar:accuracy
"""

from __future__ import annotations

import numpy as np

from onnxprune.labels import Array
from onnxprune.model import load
from onnxprune.runtime import Session
from tests import shared
from tests.accuracy import pictures


def calibration() -> Array:
    """256 training pictures, drawn with seed 1, without labels."""
    raw = _data("train_2000")["x"]
    return pictures(raw[np.random.default_rng(1).permutation(len(raw))[:256]])


def accuracy(path: str) -> float:
    """Share of the 10,000 test pictures whose class is found."""
    test = _data("test")
    inputs, labels = pictures(test["x"]), test["y"].reshape(-1)
    with Session(load(path)) as session:
        (name,) = session.inputs
        found = [session.run({name: inputs[i : i + 250]})[0].argmax(axis=1) for i in range(0, len(inputs), 250)]
    return float((np.concatenate(found) == labels).mean())


def _data(name: str) -> dict[str, Array]:
    folder = shared.folder()
    assert folder is not None, shared.ABSENT
    with np.load(folder / "data" / "cifar10" / f"{name}.npz") as data:
        return dict(data)
