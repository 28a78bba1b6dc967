"""Labels in the names of folders and in columns of tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from onnxprune import calibration
from onnxprune.calibration import InputSpec, LabelSource, is_label_source
from onnxprune.errors import UsageError
from onnxprune.model import load
from onnxprune.pipelines.train import TrainingData, learn
from onnxprune.recovery import TrainingOptions

MODELS = Path(__file__).parents[2] / "models"
DIGITS = MODELS / "digits.onnx"
NAMES = ("four", "one", "three")


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures in each of three folders; every picture is of one colour, its number."""
    image = pytest.importorskip("PIL.Image")
    for i, name in enumerate(NAMES):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for j in range(4):
            image.new("L", (8, 8), 10 * i + j).save(tmp_path / "pictures" / name / f"{j}.png")
    return tmp_path / "pictures"


def labels(data: object, text: str, *, numbers: bool = False, samples: int = 256) -> list[tuple[float, float]]:
    """(first element of the input, label) of every sample."""
    kind = np.dtype(np.float32 if numbers else np.int64)
    source = LabelSource(InputSpec(text, kind, ("batch",)), data)
    given = calibration.Source(data, preprocess="raw") if isinstance(data, Path) and data.is_dir() else data
    runs = calibration.read(given, load(DIGITS), samples=samples, also=[source])
    return [(float(x.reshape(-1)[0]), y) for run in runs for x, y in zip(run["image"], run[text], strict=True)]


def arrays(folder: Path, count: int = 6) -> Path:
    path = folder / "data.npz"
    np.savez(path, image=np.arange(count, dtype=np.float32)[:, None, None, None] * np.ones((1, 1, 8, 8), np.float32))
    return path


def test_what_is_a_source_of_labels() -> None:
    assert is_label_source("folder") and is_label_source("a/b.csv:class") and is_label_source("x.JSONL:y")
    assert not any(map(is_label_source, ("label", "labels.csv", "a.npz:label", "csv:label")))


def test_folders(pictures: Path) -> None:
    found = labels(pictures, "folder")
    assert len(found) == 12 and all(label == colour // 10 for colour, label in found)
    few = labels(pictures, "folder", samples=6)
    assert sorted({label for _, label in few}) == [0, 1, 2] and all(label == colour // 10 for colour, label in few)


@pytest.mark.parametrize("column", ["file", "path"])
def test_rows_that_name_pictures(pictures: Path, column: str) -> None:
    """By name, however they are ordered."""
    rows = [(f"{name}/{j}.png", 100 * i + j) for i, name in enumerate(NAMES) for j in range(4)][::-1]
    table = pictures.parent / "t.csv"
    table.write_text(f"{column},class\n" + "".join(f"{file},{label}\n" for file, label in rows))
    found = labels(pictures, f"{table}:class", samples=5)
    assert len(found) == 5 and all(label == 10 * (colour - colour % 10) + colour % 10 for colour, label in found)


def test_rows_in_the_order_of_samples(tmp_path: Path) -> None:
    data, table = arrays(tmp_path), tmp_path / "t.jsonl"
    table.write_text("\n".join(json.dumps({"kind": "cat" if i % 2 else "ant", "size": i / 2}) for i in range(6)))
    assert all(label == number % 2 for number, label in labels(data, f"{table}:kind")), "classes by their names"
    assert all(label == number / 2 for number, label in labels(data, f"{table}:size", numbers=True))


def test_training_with_labels_of_a_table(tmp_path: Path) -> None:
    with np.load(MODELS / "digits_test.npz") as stored:
        np.savez(tmp_path / "d.npz", image=stored["image"][:64])
        (tmp_path / "t.csv").write_text("class\n" + "".join(f"{n}\n" for n in stored["label"][:64]))
    options = TrainingOptions(2, rate=1e-4, batch=16, threads=1)
    by_table, by_key = (
        learn(load(DIGITS), TrainingData(data, samples=64, labels=text), options)[1]
        for data, text in (
            (tmp_path / "d.npz", f"{tmp_path / 't.csv'}:class"),
            (_with_key(tmp_path), "label"),
        )
    )
    assert by_table.loss == by_key.loss == "cross-entropy"
    assert by_table.before == by_key.before > 0


def _with_key(folder: Path) -> Path:
    with np.load(MODELS / "digits_test.npz") as stored:
        np.savez(folder / "k.npz", image=stored["image"][:64], label=stored["label"][:64])
    return folder / "k.npz"


@pytest.mark.parametrize(
    ("text", "content", "problem"),
    [
        ("t.csv:class", "kind\n1\n", "there is no such column"),
        ("t.csv:class", "class\n1\n2\n", "2 rows, and 6 samples or more"),
        ("t.csv:class", "class\n1\n\n \n3\n4\n5\n6\n", "a row has no number|rows, and 6 samples"),
        ("t.jsonl:class", "{", "cannot be read"),
        ("t.jsonl:class", "[1, 2]\n", "cannot be read"),
        ("t.csv:class", None, "cannot be read"),
        ("folder", "", "is no folder of pictures"),
    ],
)
def test_refused(tmp_path: Path, text: str, content: str | None, problem: str) -> None:
    name = text.partition(":")[0]
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=problem):
        labels(arrays(tmp_path), text if text == "folder" else f"{tmp_path / text}")


def test_pictures_without_a_label(pictures: Path) -> None:
    table = pictures.parent / "t.csv"
    table.write_text("file,class\none/0.png,1\n")
    with pytest.raises(UsageError, match="no row is for "):
        labels(pictures, f"{table}:class")
    table.write_text("class\n1\n")
    with pytest.raises(UsageError, match="no column names the pictures"):
        labels(pictures, f"{table}:class")
    (pictures / "one" / "0.png").rename(pictures / "0.png")
    with pytest.raises(UsageError, match="lies in no folder of"):
        labels(pictures, "folder")
