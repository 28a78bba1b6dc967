"""Statistics of BatchNormalization are estimated on what was trained on, and taken only where that is better."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import TrainingOptions
from onnxprune.autodiff import write_back
from onnxprune.layers import bn_matching
from onnxprune.model import Model
from onnxprune.recovery import from_teacher, norm_statistics
from onnxprune.recovery.distill import Teacher
from onnxprune.recovery.norm_statistics import with_better_statistics
from tests.graphs.net import Net

X = np.random.default_rng(0).standard_normal((48, 3, 8, 8)).astype(np.float32)
OPTIONS = TrainingOptions(2, batch=8, threads=1)


def network() -> Model:
    """A convolution with a norm whose statistics are those of X."""
    net = Net()
    y = net.add("Conv", net.input(("n", 3, 8, 8), name="x"), net.weight(4, 3, 3, 3))
    stored = [net.const(np.asarray(v, np.float32)) for v in (np.ones(4), np.zeros(4), np.zeros(4), np.ones(4))]
    net.output(net.add("BatchNormalization", y, *stored))
    return bn_matching.with_statistics_of(net.model(), [{"x": X}])


def mean_of(model: Model) -> str:
    return next(n.input[3] for n in model.proto.graph.node if n.op_type == "BatchNormalization")


@pytest.mark.parametrize(("shift", "is_better"), [(2.0, True), (0.0, False)])
@pytest.mark.parametrize("largest", [1 << 20, 1])
def test_the_better_statistics_are_kept(
    monkeypatch: pytest.MonkeyPatch, shift: float, is_better: bool, largest: int
) -> None:
    monkeypatch.setattr(norm_statistics, "LARGEST_ESTIMATED", largest)
    seen: list[int] = []
    estimate = bn_matching.with_statistics_of

    def noted(model: Model, runs: list[dict[str, np.ndarray]]) -> Model:
        seen.append(sum(len(run["x"]) for run in runs))
        return estimate(model, runs)

    monkeypatch.setattr(bn_matching, "with_statistics_of", noted)
    wanted = network()
    seen.clear()
    name = mean_of(wanted)
    model = write_back(wanted, {name: wanted.array(name) + shift})
    teacher = Teacher(wanted)
    objective = from_teacher(model, ([{"x": X[:40]}], [{"x": X[40:]}]), OPTIONS, teacher)
    held = 4.0 if shift else 0.0
    found, loss = with_better_statistics(model, objective, OPTIONS, held, progress=lambda _: None)
    teacher.close()
    assert seen == [40 if largest > 1 else 8], "no more inputs than are quickly held"
    assert (found is not model) == is_better and (loss < held) == is_better
    assert np.allclose(found.array(name), wanted.array(name), atol=0.3), "from 2 away"
