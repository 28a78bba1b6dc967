"""A loaded model trained, after a cut or alone."""

from __future__ import annotations

import numpy as np
import pytest

import onnxprune
from onnxprune import api
from onnxprune.errors import UsageError
from onnxprune.model import Model
from onnxprune.recovery.training_options import TrainingOptions
from tests.graphs.net import Net
from tests.recovery.test_fine_tune import DATA, QUICK, gemm, original

__all__ = ["original"]  # the fixtures


def test_pruning_trains_after_the_repair(original: Model) -> None:
    recovery = api.RecoveryOptions(train=TrainingOptions(40, **QUICK))
    plain = api.run(original, onnxprune.Options(ratio=0.75), data=DATA, verify=False)
    outcome = api.run(original, onnxprune.Options(ratio=0.75), data=DATA, recovery=recovery)
    assert outcome.training is not None and outcome.training.best > 0
    assert outcome.verdict is not None and outcome.verdict.ok
    assert outcome.judged is not None and plain.judged is not None and outcome.judged.error < plain.judged.error


def test_pruning_needs_real_inputs_to_train(original: Model) -> None:
    recovery = api.RecoveryOptions(train=TrainingOptions(4))
    for data in (None, "random"):
        with pytest.raises(UsageError, match="training needs inputs"):
            api.run(original, onnxprune.Options(ratio=0.5), data=data, recovery=recovery)


def test_inputs_and_outputs_that_shrink_are_paired() -> None:
    net = Net()
    x = net.input(("n", 8))
    h = net.add("Relu", gemm(net, x, 8, 16))
    net.output(gemm(net, h, 16, 8))
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((64, 8)).astype(np.float32)}]
    recovery = api.RecoveryOptions(train=TrainingOptions(10, rate=1e-3))
    options = onnxprune.Options(ratio=0.25, allow_io_changes=True)
    outcome = api.run(net.model(), options, data=data, recovery=recovery)
    assert outcome.io_changes and outcome.training is not None
    assert outcome.training.after <= outcome.training.before
