"""Scores of different groups as errors of the model's outputs."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import criteria
from onnxprune.criteria.obs import _outward
from onnxprune.criteria.output_damage import DamageTrial, impacts, parted
from onnxprune.model import Model, load
from onnxprune.tracing import Groups, trace
from onnxprune.typing import Array
from tests.graphs.net import Net, run


def two_branches(weight: float, end: str = "") -> Model:
    """Two equal branches, one of which counts `weight` in the sum; perhaps with an activation at the end."""
    rng = np.random.default_rng(0)
    up, down = rng.normal(size=(8, 16)).astype(np.float32), rng.normal(size=(16, 4)).astype(np.float32)
    net = Net()
    x, parts = net.input([4, 8], name="x"), []
    for name, factor in (("loud", 1.0), ("faint", weight)):
        hidden = net.add("Relu", net.add("MatMul", x, net.const(up, name=name)))
        read = net.add("MatMul", hidden, net.const(down, name=f"{name}_read"))
        parts.append(net.add("Mul", read, net.const(np.float32(factor))))
    total = net.add("Add", *parts)
    net.output(net.add(end, total) if end else total)
    return load(net.proto())


def data(count: int = 48) -> list[dict[str, Array]]:
    return [{"x": np.random.default_rng(i).normal(size=(4, 8)).astype(np.float32)} for i in range(count)]


def last_scores(groups: Groups, **given: bool) -> dict[str, float]:
    scores = criteria.score(groups, "obs", 0, data(), **given)
    return {group.name: float(scores[group.classes].max()) for group in groups.groups}


def test_what_counts_little_in_the_output_scores_little() -> None:
    """The damage to the readers is the same; that to the outputs goes with the square of the weight."""
    groups = trace(two_branches(0.1))
    alone = last_scores(groups, compared=False)
    assert alone["loud"] == pytest.approx(alone["faint"], rel=1e-6)
    together = last_scores(groups, compared=True)
    assert together["faint"] == pytest.approx(0.01 * together["loud"], rel=0.05)


@pytest.mark.parametrize("end", ["Softmax", "Sigmoid"])
def test_what_squeezes_the_outputs_makes_no_difference(end: str) -> None:
    """Large errors would look alike behind it."""
    plain, squeezed = (last_scores(trace(two_branches(0.1, e)), compared=True) for e in ("", end))
    assert squeezed == pytest.approx(plain, rel=1e-6)


def test_the_order_within_a_group_stays() -> None:
    """It is that of the runs that do not judge."""
    groups = trace(two_branches(0.3))
    one = criteria.score(groups, "obs", 0, parted(groups, data())[0], compared=False)
    two = criteria.score(groups, "obs", 0, data(), compared=True)
    for group in groups.groups:
        assert (np.argsort(one[group.classes]) == np.argsort(two[group.classes])).all()


def test_inputs_beyond_the_samples_are_not_free() -> None:
    """A layer with more inputs than samples can be re-fitted exactly to these, whatever is taken from it."""
    net = Net()
    x = net.input([8, 3, 12, 12], name="x")
    few = net.add("Relu", net.add("Conv", x, net.weight(6, 3, 3, 3, name="few")))
    many = net.add("Relu", net.add("Conv", few, net.weight(6, 6, 3, 3, name="many")))
    net.output(net.add("Gemm", net.add("Flatten", many), net.weight(6 * 64, 10)))
    runs = [{"x": np.random.default_rng(i).normal(size=(8, 3, 12, 12)).astype(np.float32)} for i in range(8)]
    groups = trace(load(net.proto()))
    scores = criteria.score(groups, "obs", 0, runs)
    middle = {group.name: float(np.median(scores[group.classes])) for group in groups.groups}
    assert middle["many"] > 0.1


def layers(size: int | str, count: int = 2) -> Groups:
    """A model of any or of so many samples at a time, with `count` groups."""
    net = Net()
    x = net.input([size, 8], name="x")
    for _ in range(count):
        x = net.add("Relu", net.add("MatMul", x, net.weight(8, 8)))
    net.output(net.add("MatMul", x, net.weight(8, 8)), [size, 8])
    found = trace(load(net.proto()))
    assert len(found.groups) == count
    return found


def test_parted_runs() -> None:
    """Just enough samples judge, at even steps, in never more than half of the runs; a single run does both."""
    groups = layers(4)
    assert [len(part) for part in parted(groups, data(48))] == [40, 8]
    assert [len(part) for part in parted(groups, data(3))] == [2, 1]
    fitting, judging = parted(groups, data(16))
    assert [len(fitting), len(judging)] == [8, 8]
    assert not {id(run) for run in fitting} & {id(run) for run in judging}
    (only,) = data(1)
    assert parted(groups, [only]) == ([only], [only])


def test_runs_are_cut_where_a_model_takes_any_number_of_samples() -> None:
    runs = [{"x": np.arange(8.0 * 40).reshape(40, 8) + 1000 * i} for i in range(3)]
    fitting, judging = parted(layers("n"), runs)
    assert [len(run["x"]) for run in judging] == [32]
    assert sorted(len(run["x"]) for run in fitting) == [8, 40, 40]
    rows = [tuple(row) for run in (*fitting, *judging) for row in run["x"]]
    assert sorted(rows) == sorted(tuple(row) for run in runs for row in run["x"]), "every sample is in one part"
    assert [len(run["x"]) for run in parted(layers(40), runs)[1]] == [40]


@pytest.mark.parametrize(("groups", "judges"), [(2, 32), (8, 15), (12, 10), (40, 8)])
def test_trials_of_many_groups_run_on_fewer_samples(groups: int, judges: int) -> None:
    """All together they take about as long as a run of all samples: of 120 here."""
    runs = [{"x": np.zeros((40, 8), np.float32)} for _ in range(3)]
    assert sum(len(run["x"]) for run in parted(layers("n", groups), runs)[1]) == judges


def test_errors_run_through_what_was_measured() -> None:
    """From zero to each known point in straight lines, then as far as at the last; never down."""
    damage = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.8])
    got = _outward(damage, {0.4: 1.0, 0.2: 0.1}, 7.0)
    np.testing.assert_allclose(got, [0, 0.05, 0.1, 0.55, 1.0, 2.0], rtol=1e-3)
    assert (np.diff(_outward(damage, {0.2: 0.5, 0.4: 0.1}, 7.0)) >= 0).all()
    np.testing.assert_allclose(_outward(damage, {}, 7.0), 7 * damage)


def test_an_impact_is_the_error_of_the_outputs() -> None:
    """Against the outputs of a model with the weights written into it."""
    model = two_branches(0.5)
    groups, runs = trace(model), data(32)
    view = next(s for s, _ in groups.tracing.views if "loud_read" in s.node.input)
    weight = np.array(model.array("loud_read"))
    weight[:9] = 0
    found = impacts(groups, runs, {"loud": [DamageTrial(view, weight, np.zeros(4))]}, lambda text: None)
    wanted = np.stack([next(iter(run(model, feeds=feeds).values())) for feeds in runs])
    changed = load(model.proto.SerializeToString())
    for tensor in changed.proto.graph.initializer:
        if tensor.name == "loud_read":
            tensor.raw_data = weight.tobytes()
    other = np.stack([next(iter(run(changed, feeds=feeds).values())) for feeds in runs])
    wanted, other = wanted.reshape(-1, 4), other.reshape(-1, 4)
    error = np.square(wanted - other).sum() / np.square(wanted - wanted.mean(axis=0)).sum()
    assert found["loud"] == pytest.approx(error, rel=1e-4)


def test_what_reaches_no_output_makes_no_error() -> None:
    net = Net()
    hidden = net.add("Relu", net.add("MatMul", net.input([4, 8], name="x"), net.weight(8, 16)))
    net.output(net.add("MatMul", hidden, net.weight(16, 4)))
    net.add("MatMul", hidden, net.weight(16, 4, name="idle"))
    groups = trace(load(net.proto()))
    view = next(s for s, _ in groups.tracing.views if "idle" in s.node.input)
    given = {"idle": [DamageTrial(view, np.zeros((16, 4), np.float32), np.zeros(4))]}
    assert impacts(groups, data(4), given, lambda text: None) == {"idle": 0.0}


def test_the_weights_are_put_back() -> None:
    model = two_branches(0.5)
    before = model.proto.SerializeToString(deterministic=True)
    groups = trace(model)
    last_scores(groups, compared=True)
    assert model.proto.SerializeToString(deterministic=True) == before


def test_a_bias_that_a_trial_made_is_taken_back() -> None:
    """Convolutions without a bias get one for a trial; the next group must not see it."""
    net = Net()
    x = net.input([4, 3, 9, 9], name="x")
    for index in range(3):
        x = net.add("Relu", net.add("Conv", x, net.weight(8, 3 if not index else 8, 3, 3, name=f"w{index}")))
    net.output(net.add("Conv", x, net.weight(2, 8, 1, 1)))
    runs = [{"x": np.random.default_rng(i).normal(size=(4, 3, 9, 9)).astype(np.float32)} for i in range(16)]
    groups = trace(load(net.proto()))
    views = {s.node.input[1]: s for s, _ in groups.tracing.views if s.node.op_type == "Conv"}

    def trial(name: str, shift: float) -> DamageTrial:
        weight = np.asarray(groups.model.array(name)).reshape(8, -1).T.copy()
        return DamageTrial(views[name], weight, np.full(8, shift))

    given = {"a": [trial("w1", 3.0)], "b": [trial("w2", 3.0)], "c": [trial("w1", 0.0)]}
    found = impacts(groups, runs, given, lambda text: None)
    assert min(found["a"], found["b"]) > 0.1
    assert found["c"] < 1e-9


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_shift_that_drowns_the_bias_is_taken_back() -> None:
    """In half precision a bias of 1 is lost beside one of 4096, and one of 70,000 is infinite."""
    net = Net(dtype=np.float16)
    x = net.input([4, 8], name="x")
    hidden = net.add("Relu", net.add("Gemm", x, net.weight(8, 16), net.weight(16)))
    net.output(net.add("Gemm", hidden, net.weight(16, 4, name="w"), net.const([1, 2, 3, 4], dtype=np.float16)))
    runs = [{"x": np.random.default_rng(i).normal(size=(4, 8)).astype(np.float16)} for i in range(8)]
    groups = trace(load(net.proto()))
    view = next(s for s, _ in groups.tracing.views if "w" in s.node.input)
    weight = np.asarray(groups.model.array("w"))
    for shift in (4096.3, 7e4):
        same = [DamageTrial(view, weight, np.zeros(4))]
        given = {"before": same, "shifted": [DamageTrial(view, weight, np.full(4, shift))], "after": same}
        found = impacts(groups, runs, given, lambda text: None)
        # Not zero: what lies between two slices is rounded to half precision.
        assert found["after"] == found["before"] < 1e-5


def test_the_error_of_a_model_is_that_of_its_outputs() -> None:
    groups = trace(two_branches(0.1))
    assert criteria.output_error(groups, two_branches(0.1), data(4)) == 0
    other = two_branches(0.0)
    wanted, found = (
        np.concatenate([next(iter(run(m.proto, feeds=feeds).values())) for feeds in data(4)])
        for m in (groups.model, other)
    )
    spread = np.square(wanted - wanted.mean(axis=0)).sum()
    error = criteria.output_error(groups, other, data(4))
    assert error == pytest.approx(np.square(wanted - found).sum() / spread, rel=1e-4)
