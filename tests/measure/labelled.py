"""Labelled data as the trained classifiers of the shared folder take it, a part of it for calibration.

Which data a classifier was trained on is in the folder's manifest. CIFAR-10 has training pictures, which are drawn with
seed 1 to calibrate; what has test samples alone (MNIST, keywords) gives some of these, drawn with seed 1, and the
others judge.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from onnxprune.model import Model
from onnxprune.runtime import Session
from onnxprune.typing import Array
from tests.graphs import shared

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# What maps raw values to what a classifier was trained on: (value - mean) / deviation.
SCALES: Mapping[str, tuple[object, object]] = {
    "mlperf_resnet8_cifar10": (0, 1),
    "marabou_cifar_wide_kw": (np.multiply(255, IMAGENET[0]), 255 * 0.225),
    "winml_pytorch_imageclassifier": (127.5, 127.5),
    "cntk_mnist8": (0, 1),
    "marabou_mnist_cnn_max": (0, 255),
    "marabou_selfattn_mnist": (0, 255),
    "mlperf_kws_dscnn": (83, 1 / 0.5847029089927673),
}
DEFAULTS: Mapping[str, tuple[object, object]] = {
    "cifar10": (np.multiply(255, IMAGENET[0]), np.multiply(255, IMAGENET[1])),
    "mnist": (255 * 0.1307, 255 * 0.3081),
}
# Raw values [n, height, width, channels] with their classes: those that calibrate, and those that judge.
Raw = tuple[tuple[Array, Array], tuple[Array, Array]]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Data of one classifier.

    Attributes:
        entry: name of the input.
        calibration: inputs to choose, repair and train with.
        classes: theirs, which only training against labels looks at.
        inputs: those that judge.
        labels: their classes.
    """

    entry: str
    calibration: Array
    classes: Array
    inputs: Array
    labels: Array

    @property
    def feeds(self) -> list[dict[str, Array]]:
        """The calibration inputs as `data=` takes them."""
        return [{self.entry: self.calibration}]

    def accuracy(self, model: Model) -> float:
        """Share of the inputs whose class is found."""
        batch = model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 250
        parts = (self.inputs[i : i + batch] for i in range(0, len(self.inputs), batch))
        with Session(model) as session:
            found = [session.run({self.entry: part})[0].reshape(len(part), -1).argmax(axis=1) for part in parts]
        return float((np.concatenate(found) == self.labels).mean())


def of(name: str, model: Model, samples: int = 256, count: int = 10_000) -> Labelled:
    """The data of a trained classifier: `samples` for calibration, at most `count`, drawn with seed 0, that judge."""
    kind = str((shared.manifest()[name].get("metric") or {}).get("eval"))
    root = shared.folder()
    assert root is not None
    (seen, classes), (raw, labels) = SOURCES[kind](root / "data", samples)
    judged = np.random.default_rng(0).permutation(len(raw))[:count]
    (entry,) = [v for v in model.proto.graph.input if v.name not in model.initializers]
    last = entry.type.tensor_type.shape.dim[-1].dim_value == raw.shape[-1]
    mean, deviation = (np.asarray(v, np.float32) for v in SCALES.get(name) or DEFAULTS[kind])

    def ready(values: Array) -> Array:
        scaled = (values.astype(np.float32) - mean) / deviation
        return np.ascontiguousarray(scaled if last else scaled.transpose(0, 3, 1, 2))

    return Labelled(entry.name, ready(seen), classes, ready(raw[judged]), labels[judged])


def _cifar10(folder: Path, samples: int) -> Raw:
    train, test = (np.load(folder / "cifar10" / f"{name}.npz") for name in ("train_2000", "test"))
    chosen = np.random.default_rng(1).permutation(len(train["x"]))[:samples]
    return (train["x"][chosen], train["y"].reshape(-1)[chosen]), (test["x"], test["y"].reshape(-1))


def pictures_of_mnist(folder: Path) -> tuple[Array, Array]:
    """uint8[10000, 28, 28, 1], and the labels, in the folder of data."""

    def read(name: str, offset: int) -> Array:
        return np.frombuffer(gzip.decompress((folder / "mnist" / name).read_bytes()), np.uint8, offset=offset)

    return read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1), read("t10k-labels-idx1-ubyte.gz", 8)


def _mnist(folder: Path, samples: int) -> Raw:
    return _parted(*pictures_of_mnist(folder), samples)


def _keywords(folder: Path, samples: int) -> Raw:
    lines = (folder / "kws01" / "y_labels.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split(",") for line in lines if line.strip()]
    raw = np.stack([np.fromfile(folder / "kws01" / row[0].strip(), np.int8) for row in rows]).reshape(-1, 49, 10, 1)
    return _parted(raw, np.array([int(row[2]) for row in rows]), samples)


def _parted(raw: Array, labels: Array, samples: int) -> Raw:
    """Some for calibration; the others judge."""
    order = np.random.default_rng(1).permutation(len(raw))
    seen, judging = order[:samples], order[samples:]
    return (raw[seen], labels[seen]), (raw[judging], labels[judging])


SOURCES: Mapping[str, Callable[[Path, int], Raw]] = {
    "cifar10": _cifar10,
    "mnist": _mnist,
    "kws": _keywords,
}
