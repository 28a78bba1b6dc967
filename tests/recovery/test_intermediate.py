"""Targets inside of a model: what the loss is, how tensors are paired across a cut, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune import api
from onnxprune.errors import UsageError
from onnxprune.model import Model, load
from onnxprune.pipelines.train import TrainingData, learn, learn_after
from onnxprune.recovery import TrainingOptions, held_out
from onnxprune.recovery.intermediate import matching_tensors, with_tensors
from onnxprune.rewriting import Removal
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Session
from onnxprune.typing import Array

MODELS = Path(__file__).parents[2] / "models"
DIGITS, DATA = MODELS / "digits.onnx", MODELS / "digits_calibration.npz"
QUICK = {"rate": 1e-3, "batch": 16, "threads": 1}


def cut() -> tuple[Removal, Model]:
    groups = api.trace(DIGITS)
    away = np.zeros(groups.classes.count, bool)
    for group in groups.groups:
        away[group.classes[1::2]] = True
    return Removal(groups, away), rewrite(groups, away)


def inner(model: Model) -> str:
    """The second activation that units are read from: the first one is not changed by a cut."""
    return [n.output[0] for n in model.proto.graph.node if n.op_type == "Relu"][1]


def runs() -> list[dict[str, Array]]:
    with np.load(DATA) as data:
        return [{"image": data["image"][i : i + 16]} for i in range(0, 96, 16)]


def values(model: Model, name: str, run: dict[str, Array]) -> list[Array]:
    with Session(with_tensors(model, [name])) as session:
        return list(session.run(run, [model.proto.graph.output[0].name, name]))


def relative(found: Array, wanted: Array) -> float:
    return float(np.square(found - wanted).sum() / np.square(wanted).sum())


def test_the_loss_pairs_tensors_across_the_cut() -> None:
    removal, small = cut()
    name = inner(small)
    done = learn_after(removal, small, runs(), TrainingOptions(1, intermediate=[name], **QUICK))[1]
    plain = learn_after(removal, small, runs(), TrainingOptions(1, **QUICK))[1]
    expected = []
    for run in held_out(runs())[1]:
        (_, one), (_, two) = (values(m, name, run) for m in (small, removal.groups.model))
        expected.append(relative(one, two[:, ::2]))
    assert done.before - plain.before == pytest.approx(np.mean(expected), rel=1e-4) and min(expected) > 0.1


def test_tensors_inside_come_nearer() -> None:
    removal, small = cut()
    name = inner(small)
    trained, done = learn_after(removal, small, runs(), TrainingOptions(40, intermediate=[name], **QUICK))
    assert done.after < done.before
    with np.load(MODELS / "digits_test.npz") as data:
        run = {"image": data["image"]}
    wanted = values(removal.groups.model, name, run)[1][:, ::2]
    before, after = (relative(values(m, name, run)[1], wanted) for m in (small, trained))
    assert after < 0.8 * before
    assert [v.name for v in trained.proto.graph.output] == [v.name for v in small.proto.graph.output]


def test_training_alone_takes_what_was_not_cut() -> None:
    sparse = load(onnxprune.sparsify(DIGITS, 0.7, method="magnitude").model)
    name = inner(sparse)
    options = TrainingOptions(20, intermediate=[name], **QUICK)
    _, done = learn(sparse, TrainingData(DATA, teacher=load(DIGITS)), options)
    assert done.after < done.before
    _, small = cut()
    with pytest.raises(UsageError, match=r"is \[.*\], the teacher's \["):
        learn(small, TrainingData(DATA, teacher=load(DIGITS)), options)


def test_pruning_takes_globs() -> None:
    names = matching_tensors(load(DIGITS), load(DIGITS), ["*elu*"])
    assert len(names) > 1
    glob = names[0][:2] + "*"
    result = onnxprune.prune(DIGITS, 0.5, data=DATA, train=TrainingOptions(4, intermediate=[glob], **QUICK))
    assert result.report.training.after <= result.report.training.before


def test_refused() -> None:
    options = TrainingOptions(4, intermediate=["nowhere*"], **QUICK)
    with pytest.raises(UsageError, match="no tensor that both models make matches 'nowhere"):
        onnxprune.prune(DIGITS, 0.5, data=DATA, train=options)
    with pytest.raises(UsageError, match="tensors are a teacher's"):
        learn(load(DIGITS), TrainingData(MODELS / "digits_test.npz", labels="label"), options)
