"""What a model is run on."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import UsageError
from onnxprune.model import Model, load
from onnxprune.pipelines.run_inputs import RunInputs
from tests.graphs.net import Net


def model() -> Model:
    net = Net()
    net.output(net.add("MatMul", net.input(["n", 4]), net.weight(4, 3)), ["n", 3])
    return load(net.proto())


DATA = np.arange(80, dtype=np.float32).reshape(20, 4)


def test_without_data_there_are_no_runs() -> None:
    assert list(RunInputs().read(model())) == []


@pytest.mark.parametrize(("batch", "sizes"), [(5, [5, 5, 5, 5]), (8, [8, 8, 4])])
def test_runs_have_the_batch_that_is_asked_for(batch: int, sizes: list[int]) -> None:
    runs = RunInputs(DATA).read(model(), batch=batch)
    assert [len(run["x"]) for run in runs] == sizes
    np.testing.assert_array_equal(np.concatenate([run["x"] for run in runs]), DATA)


def test_no_more_samples_than_asked_for() -> None:
    assert sum(len(run["x"]) for run in RunInputs(DATA, samples=6).read(model())) == 6


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError):
        RunInputs(np.ones((3, 5), np.float32)).read(model())


def test_a_quarter_of_the_samples_judges_what_a_search_tries() -> None:
    fitting, judging = RunInputs(DATA, samples=16).parted(model())
    assert sum(len(run["x"]) for run in fitting) == 12 and sum(len(run["x"]) for run in judging) == 4
    rows = [row.tobytes() for run in (*fitting, *judging) for row in run["x"]]
    assert len({*rows}) == 16 and {*rows} <= {row.tobytes() for row in DATA}
    assert RunInputs().parted(model()) == ([], [])
    with pytest.raises(UsageError, match="too few samples"):
        RunInputs(DATA, samples=2).parted(model())
