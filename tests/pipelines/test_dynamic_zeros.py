"""Zeros that are chosen while the model trains: patterns hold, what went may return, and the better model is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import onnxprune
from onnxprune import api
from onnxprune.errors import UsageError
from onnxprune.pipelines.dynamic_zeros import WAYS, ZeroCourse
from onnxprune.recovery import TrainingOptions
from onnxprune.sparsity import NofM, contraction_weights, pattern_of
from onnxprune.typing import Array
from tests.cli.conftest import DIGITS, MODELS, Run, run

__all__ = ["run"]
DATA = str(MODELS / "digits_calibration.npz")
QUICK = {"rate": 1e-3, "batch": 32, "threads": 1, "patience": 0}


def course(way: str, pattern: str = "unstructured", share: float = 0.5) -> tuple[ZeroCourse, dict[str, Array]]:
    """On the weights of digits, a share of each zero by magnitude."""
    groups, pairs, values = api.trace(DIGITS), [], {}
    for weight in contraction_weights(groups)[0]:
        value = groups.model.array(weight.name).copy()
        kept = pattern_of(pattern).keep(weight.as_matrix(np.abs(value)), share, channels=weight.channels)
        pairs.append((weight, weight.tensor(kept)))
        values[weight.name] = value
    return WAYS[way](pairs, pattern_of(pattern), TrainingOptions(30, while_training=way, every=1)), values


def zeros(masks: Mapping[str, Array]) -> float:
    return 1 - sum(m.sum() for m in masks.values()) / sum(m.size for m in masks.values())


def test_gradual_zeros_grow() -> None:
    found, values = course("gradual")
    shares = [zeros(found.chosen(step, values) or {}) for step in range(found.until)]
    assert shares[0] == 0 and shares == sorted(shares) and shares[2] > 0.1
    assert shares[-1] == pytest.approx(0.5, abs=0.01) == zeros(found.target(values))
    name = next(iter(values))
    values[name] = -values[name][::-1].copy()
    again = found.target(values)[name]
    assert np.abs(values[name][again]).min() >= np.median(np.abs(values[name][~again])), "by what weights are by then"


def test_exchanged_zeros_follow_the_gradients() -> None:
    found, values = course("rigl")
    first = {n: m.copy() for n, m in found.target(values).items()}
    for name, value in values.items():
        value[~first[name]] = 0
    rng = np.random.default_rng(7)
    slopes = {name: rng.standard_normal(value.shape) for name, value in values.items()}
    assert zeros(found.chosen(0, values) or {}) == zeros(first), "no gradient was seen"
    found.observe(values, slopes)
    masks = found.chosen(1, values) or {}
    for name, mask in masks.items():
        came, went = mask & ~first[name], first[name] & ~mask
        assert came.sum() == went.sum() > 0 and mask.sum() == first[name].sum()
        assert went.sum() / mask.sum() <= 0.3
        assert np.abs(slopes[name][came]).mean() > 1.2 * np.abs(slopes[name][~mask]).mean()
        assert np.abs(values[name][went]).mean() < np.abs(values[name][mask & first[name]]).mean()
    found.observe(values, slopes)
    late = found.chosen(found.until - 1, values) or {}
    assert sum((late[n] & ~masks[n]).sum() for n in late) < 0.05 * sum(m.sum() for m in masks.values()), "ever fewer"
    found.shrink(1, values, 1e-3)
    assert all((values[n][~late[n]] == 0).all() for n in late)


def test_a_penalty_reaches_the_share() -> None:
    found, values = course("l1")
    assert found.chosen(0, values) == {} and found.chosen(1, values) is None
    for step in range(1, found.until):
        found.shrink(step, values, 1e-3)
    for name, value in values.items():
        kept = found.target(values)[name]
        assert (value[~kept] == 0).all() and (value[kept] != 0).mean() > 0.99


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("pattern", ["2:4", "block 2x2"])
def test_patterns_hold(way: str, pattern: str) -> None:
    found, values = course(way, pattern)
    rng = np.random.default_rng(0)
    for step in range(found.until):
        masks = found.chosen(step, values)
        found.observe(values, {n: rng.standard_normal(v.shape) for n, v in values.items()})
        found.shrink(step + 1, values, 1e-3)
    masks = found.target(values)
    for name, mask in masks.items():
        weight = found.weights[name]
        if pattern == "2:4":
            assert NofM(2, 4).holds(weight.as_matrix(mask), channels=weight.channels)
        assert mask.mean() == pytest.approx(1 - found.shares[name], abs=1e-6)


@pytest.mark.parametrize(("way", "pattern"), [("", "2:4"), ("gradual", "2:4"), ("rigl", "unstructured"), ("l1", "2:4")])
def test_sparsified_and_trained(way: str, pattern: str) -> None:
    asked = {"method": "magnitude", "samples": 64} | ({} if pattern == "2:4" else {"sparsity": 0.9})
    train = TrainingOptions(16, while_training=way, **QUICK)
    done = onnxprune.sparsify(DIGITS, data=DATA, pattern=pattern, train=train, **asked).report
    plain = onnxprune.sparsify(DIGITS, data=DATA, pattern=pattern, **asked).report
    assert done.verdict is not None and done.verdict.ok and done.training is not None
    for step in done.plan.zeros:
        assert (done.model.array(step.tensor)[~step.keep] == 0).all()
    zero, before = (sum(w.zeros for w in d.weights) for d in (done, plain))
    assert before <= zero <= 1.02 * before
    assert done.judged is not None and plain.judged is not None
    assert done.judged.error < 1.1 * plain.judged.error, "never clearly worse than what was there"
    if pattern == "2:4":
        assert all(w.zeros == b.zeros for w, b in zip(done.weights, plain.weights, strict=True))


def test_the_command(run: Run, tmp_path: Path) -> None:
    given = ("sparsify", DIGITS, "-o", tmp_path / "z.onnx", "--sparsity", 0.5, "--data", DATA, "--no-time")
    given = (*given, "--samples", 64, "--method", "magnitude")
    ran = run(*given, "--train", 10, "--rate", 1e-3, "--while-training", "rigl", "--every", 2, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["training"]["steps"] == 10 and ran.json["proof"]["ok"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (("--train", 5), "--train has no effect: there is no data"),
        (("--data", DATA, "--samples", 32, "--train", 2, "--while-training", "rigl"), "in so few steps"),
        (("--data", "random", "--train", 5), "training needs inputs"),
        (("--data", DATA, "--while-training", "rigl"), "nothing is trained"),
    ],
)
def test_refused(run: Run, tmp_path: Path, given: tuple[object, ...], problem: str) -> None:
    ran = run("sparsify", DIGITS, "-o", tmp_path / "z.onnx", "--no-time", *given)
    assert ran.code == 2 and problem in ran.err and not list(tmp_path.iterdir())


def test_ways_of_the_other_verb_are_refused() -> None:
    few = {"data": DATA, "samples": 32}
    soft, rigl = (TrainingOptions(8, while_training=way, **QUICK) for way in ("soft", "rigl"))
    with pytest.raises(UsageError, match="soft is for units"):
        onnxprune.sparsify(DIGITS, 0.5, method="magnitude", train=soft, **few)
    with pytest.raises(UsageError, match="rigl is for single weights"):
        onnxprune.prune(DIGITS, 0.5, "l2", train=rigl, **few)
