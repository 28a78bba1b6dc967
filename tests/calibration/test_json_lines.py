"""Token ids from JSONL: padding, masks, labels, and what is no sample."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from onnxprune import TrainingOptions, calibration
from onnxprune.calibration import InputSpec
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.pipelines.train import TrainingData, learn
from tests.graphs.net import Net
from tests.recovery.test_fine_tune import damage

NAMES = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def model(*names: str, length: int | str = "sequence") -> Model:
    """A model that adds up its inputs."""
    net = Net()
    inputs = [net.input(("batch", length), name=name, dtype=TensorProto.INT64) for name in names]
    found = inputs[0]
    for other in inputs[1:]:
        found = net.add("Add", found, other)
    net.output(found)
    return net.model()


def written(folder: Path, *lines: Any) -> str:
    path = folder / "tokens.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    return str(path)


def test_rows_are_padded_and_masks_are_made(tmp_path: Path) -> None:
    source = written(tmp_path, {"input_ids": [5, 6, 7, 8], "other": "x"}, {"input_ids": [9]}, [3, 4])
    runs = calibration.read(source, model(*NAMES))
    found = {name: np.concatenate([run[name] for run in runs]).tolist() for name in NAMES}
    assert found["input_ids"] == [[5, 6, 7, 8], [9, 0, 0, 0], [3, 4, 0, 0]]
    assert found["attention_mask"] == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0]]
    assert found["token_type_ids"] == [[0] * 4] * 3
    assert found["position_ids"] == [[0, 1, 2, 3], [0] * 4, [0, 1, 0, 0]]


def test_masks_that_are_given_count(tmp_path: Path) -> None:
    source = written(tmp_path, {"input_ids": [5, 6, 7], "attention_mask": [1, 1, 0]}, {"input_ids": [9, 1]})
    runs = calibration.read(source, model("input_ids", "attention_mask", length=2))
    found = np.concatenate([run["attention_mask"] for run in runs])
    assert found.tolist() == [[1, 1], [1, 1]], "cut to the model's length"
    runs = calibration.read(source, model("input_ids", "attention_mask"), sizes={"sequence": 5})
    assert np.concatenate([run["attention_mask"] for run in runs]).tolist() == [[1, 1, 0, 0, 0], [1, 1, 0, 0, 0]]


def test_labels_are_padded_with_no_class(tmp_path: Path) -> None:
    source = written(tmp_path, {"input_ids": [5, 6, 7], "tags": [1, 0, 2]}, {"input_ids": [9], "tags": [4]})
    spec = InputSpec("tags", np.dtype(np.int64), ("batch", "sequence"))
    runs = calibration.read(source, model("input_ids"), also=[spec])
    assert np.concatenate([run["tags"] for run in runs]).tolist() == [[1, 0, 2], [4, -1, -1]]
    whole = InputSpec("kind", np.dtype(np.int64), ("batch",))
    source = written(tmp_path, {"input_ids": [5, 6], "kind": 3}, {"input_ids": [9, 9], "kind": 1})
    runs = calibration.read(source, model("input_ids"), also=[whole])
    assert np.concatenate([run["kind"] for run in runs]).tolist() == [3, 1]


def test_no_more_lines_are_read_than_count(tmp_path: Path) -> None:
    source = written(tmp_path, [1, 2], [3], [4, 5, 6, 7], "no sample")
    runs = calibration.read(source, model("input_ids"), samples=2)
    assert np.concatenate([run["input_ids"] for run in runs]).tolist() == [[1, 2], [3, 0]]


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_text("[1, 2]\n[3]\n"), daemon=True).start()
    runs = calibration.read(str(pipe), model("input_ids"))
    assert np.concatenate([run["input_ids"] for run in runs]).tolist() == [[1, 2], [3, 0]]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"input_ids": [1, 2', "line 2 .* is no sample"),
        ("7", "line 2 .* is no sample: it is '7', neither an object nor a list"),
        ('"input_ids"', "neither an object nor a list"),
        ('{"input_ids": [[1], [2]]}', "'input_ids' is nested 2 deep, the model wants 1"),
        ('{"input_ids": ["a"]}', "'input_ids' holds what is no number"),
        ('{"input_ids": [null]}', "'input_ids' holds what is no number"),
        ('{"input_ids": [1000000000000000000000000]}', "or one of more than 64 bits"),
        ('{"input_ids": []}', "'input_ids' is empty"),
        ('{"input_ids": [[1], [2, 3]]}', "the lists in 'input_ids' differ in length"),
        ('{"ids": [1, 2]}', "input 'input_ids' is missing"),
        ('{"input_ids": [1.5, 2]}', "is float64, the model wants int64"),
        ("[" * 100000, "line 2 .* is no sample"),
    ],
)
def test_what_is_no_sample(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "tokens.jsonl"
    path.write_text(f"[1, 2]\n{line}\n")
    with pytest.raises(UsageError, match=problem):
        calibration.read(str(path), model("input_ids"))


def test_a_mask_has_as_many_numbers_as_tokens(tmp_path: Path) -> None:
    source = written(tmp_path, {"input_ids": [5, 6]}, {"input_ids": [5, 6, 7], "attention_mask": [1, 1]})
    with pytest.raises(UsageError, match=r"line 2 .*'attention_mask' holds 2 numbers, 'input_ids' 3"):
        calibration.read(source, model("input_ids", "attention_mask"))


def test_a_mark_of_the_byte_order_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "tokens.jsonl"
    path.write_text("[1, 2]\n[3, 4]\n", encoding="utf-8-sig")
    runs = calibration.read(str(path), model("input_ids"))
    assert np.concatenate([run["input_ids"] for run in runs]).tolist() == [[1, 2], [3, 4]]


def tagger() -> Model:
    """A class for every token, by its number alone."""
    net = Net()
    ids, mask = (net.input(("batch", "sequence"), name=name, dtype=TensorProto.INT64) for name in NAMES[:2])
    h = net.add("Relu", net.add("MatMul", net.add("Gather", net.weight(10, 6), ids), net.weight(6, 8)))
    y = net.add("MatMul", h, net.weight(8, 4))
    net.output(net.add("Add", y, net.add("Unsqueeze", net.add("Cast", mask, to=TensorProto.FLOAT), net.ints(2))))
    return net.model()


@pytest.mark.parametrize("learned", ["teacher", "labels"])
def test_how_much_is_padded_makes_no_difference_to_a_loss(tmp_path: Path, learned: str) -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 7, 40)
    lines = [{"input_ids": rng.integers(0, 10, n).tolist(), "tags": rng.integers(0, 4, n).tolist()} for n in lengths]
    source, teacher = written(tmp_path, *lines), tagger()
    student = damage(teacher)
    how = {"teacher": teacher} if learned == "teacher" else {"labels": "tags"}
    options = TrainingOptions(12, rate=1e-2, batch=8, threads=1, padding="attention_mask" if "teacher" in how else None)
    losses = []
    for length in (6, 9):
        data = TrainingData(source, sizes={"sequence": length}, **how)
        losses.append([(j.loss, j.held) for j in learn(student, data, options)[1].course])
    assert losses[0][-1][1] < losses[0][0][1]
    assert np.allclose(*losses, rtol=1e-4)
    if learned == "teacher":
        plain = replace(options, padding=None)
        data = TrainingData(source, sizes={"sequence": 9}, **how)
        whole = [(j.loss, j.held) for j in learn(student, data, plain)[1].course]
        assert not np.allclose(losses[0], whole, rtol=1e-2), "without the mask padding counts"
