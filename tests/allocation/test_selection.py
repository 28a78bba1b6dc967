"""Which units go."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnxprune import api
from onnxprune.allocation import Options, select
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.tracing import Groups
from tests.graphs.net import BOOL, FLOAT, INT64, Net, array_of, prune, shapes_of


def chain(*widths: int) -> Net:
    """Layers w0, w1, ... with these hidden widths."""
    net = Net()
    x, size = net.input([2, 4]), 4
    for index, width in enumerate((*widths, 3)):
        x = net.add("MatMul", x if not index else net.add("Relu", x), net.weight(size, width, name=f"w{index}"))
        size = width
    net.output(x)
    return net


@pytest.fixture(scope="module")
def groups() -> Groups:
    return api.trace(chain(8, 10, 3).proto())


def scores_of(groups: Groups, **values: list[float]) -> np.ndarray:
    scores = np.zeros(groups.classes.count)
    for group in groups.groups:
        scores[group.classes] = values.get(group.name, np.arange(group.units))
    return scores


def chosen(groups: Groups, scores: np.ndarray | None = None, **options: Any) -> dict[str, list[int]]:
    found = select(groups, scores_of(groups) if scores is None else scores, Options(**options))
    return {name: indices.tolist() for name, indices in found.removed.items()}


@pytest.mark.parametrize(
    ("ratio", "counts"), [(0.0, {}), (0.1, {"w1": 1}), (0.3, {"w0": 2, "w1": 3}), (0.5, {"w0": 4, "w1": 5, "w2": 1}),
                          (0.7, {"w0": 5, "w1": 7, "w2": 2}), (0.99, {"w0": 7, "w1": 9, "w2": 2})]
)  # fmt: skip
def test_a_ratio_is_of_every_group_and_rounded_down(groups: Groups, ratio: float, counts: dict[str, int]) -> None:
    assert {n: len(i) for n, i in chosen(groups, ratio=ratio).items()} == counts


def test_the_lowest_scores_go(groups: Groups) -> None:
    scores = scores_of(groups, w0=[5, 1, 7, 3, 8, 2, 6, 4], w1=list(range(10, 0, -1)))
    assert chosen(groups, scores, ratio=0.5) == {"w0": [1, 3, 5, 7], "w1": [5, 6, 7, 8, 9], "w2": [0]}


def test_equal_scores_go_in_order(groups: Groups) -> None:
    assert chosen(groups, scores_of(groups, w0=[1.0] * 8), ratio=0.25)["w0"] == [0, 1]


def test_one_unit_is_always_left(groups: Groups) -> None:
    assert all(len(i) < g.units for g in groups.groups for n, i in chosen(groups, ratio=0.999).items() if n == g.name)
    found = chosen(groups, ratio=0.9, allocation="global", max_ratio=0.999)
    assert max(len(found[g.name]) - g.units for g in groups.groups if g.name in found) == -1


@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5, 50, float("nan")])
def test_ratios_out_of_range(value: float) -> None:
    for given in ({"ratio": value}, {"max_ratio": value}, {"ratios": {"w*": value}}):
        with pytest.raises(UsageError, match="fraction to remove") as caught:
            Options(**given)
        assert caught.value.hint


@pytest.mark.parametrize(("given", "what"), [({"round_to": 0}, "round_to"), ({"allocation": "local"}, "allocation")])
def test_bad_options(given: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        Options(**given)


@pytest.mark.parametrize("option", ["keep", "only", "ratios"])
def test_a_glob_that_matches_nothing(groups: Groups, option: str) -> None:
    value = {"nothing*": 0.5} if option == "ratios" else ["w0", "nothing*"]
    with pytest.raises(UsageError, match=f"{option}: 'nothing\\*' matches no group") as caught:
        chosen(groups, **{option: value})
    assert "'w0'" in caught.value.hint


def test_ratios_by_name_and_the_last_match_wins(groups: Groups) -> None:
    found = chosen(groups, ratio=0.5, ratios={"w*": 0.25, "w1": 0.8})
    assert {n: len(i) for n, i in found.items()} == {"w0": 2, "w1": 8}
    found = chosen(groups, ratio=0.5, ratios={"w1": 0.8, "w*": 0.25})
    assert {n: len(i) for n, i in found.items()} == {"w0": 2, "w1": 2}


def test_globs_are_of_groups_first_then_of_weights() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2, weight="first")
    net.read(net.add("Relu", net.add("MatMul", x, net.weight(8, 6, name="second"))), 2, weight="third")
    groups = api.trace(net.proto())
    assert set(chosen(groups, only=["second"])) == {"second"}
    assert set(chosen(groups, only=["third"])) == {"second"}
    assert set(chosen(groups, only=["*"])) == {"first", "second"}


def test_keep_leaves_a_weight_alone_on_every_axis(groups: Groups) -> None:
    """w1 is the second member of w0 and the first of the group that is called w1."""
    assert set(chosen(groups, keep=["w1"])) == {"w2"}
    assert set(chosen(groups, keep=["w0"])) == {"w1", "w2"}


def test_only_and_keep_together(groups: Groups) -> None:
    assert set(chosen(groups, only=["w0", "w1", "w2"], keep=["w3"])) == {"w0", "w1"}


def test_nothing_left_by_the_options(groups: Groups) -> None:
    with pytest.raises(GoalMissed, match="the options leave no group"):
        chosen(groups, keep=["*"])


def test_exact_only() -> None:
    net = Net()
    x = net.make((2, 5, 8), 2)
    y = net.add("LayerNormalization", x, net.weight(8))
    inner = net.add("Relu", net.add("MatMul", y, net.weight(8, 6, name="inner")))
    net.read(inner, 2)
    groups = api.trace(net.proto())
    assert {g.name: g.exact for g in groups.groups} == {"w_in": False, "inner": True}
    assert set(chosen(groups, exact_only=True)) == {"inner"}
    assert set(chosen(groups)) == {"inner", "w_in"}


@pytest.mark.parametrize(
    ("multiple", "left"), [(1, (4, 5)), (2, (4, 6)), (4, (4, 8)), (3, (6, 6)), (8, (8, 8)), (5, (5, 5)), (16, (8, 10))]
)
def test_round_to(groups: Groups, multiple: int, left: tuple[int, int]) -> None:
    """What remains is a multiple, never less than asked for; a width that cannot be one stays as it is."""
    found = chosen(groups, ratio=0.5, round_to=multiple)
    sizes = [g.units - len(found.get(g.name, [])) for g in groups.groups]
    assert tuple(sizes[:2]) == left


def test_round_to_counts_the_width_of_balanced_rows() -> None:
    net = Net()
    x = net.make((2, 24, 3, 3), 1)
    net.read(net.add("Conv", x, net.weight(24, 12, 1, 1, name="w"), group=2), 1)
    shapes = shapes_of(prune(net.proto(), 0.4, round_to=8).model)
    assert shapes["w_in"][1] == shapes["w"][0] == 16


def test_global_takes_the_same_share_in_total(groups: Groups) -> None:
    scores = scores_of(groups, w0=[1, 1, 1, 1, 9, 9, 9, 9], w1=[5] * 10, w2=[3, 3, 3])
    found = chosen(groups, scores, ratio=4 / 21, allocation="global")
    assert found == {"w0": [0, 1, 2, 3]}


def test_global_scores_are_relative_to_their_group(groups: Groups) -> None:
    scores = scores_of(groups, w0=[1] * 4 + [3] * 4, w1=[1000.0] * 5 + [3000.0] * 5, w2=[1e-6] * 3)
    counts = {n: len(i) for n, i in chosen(groups, scores, ratio=9 / 21, allocation="global").items()}
    assert counts == {"w0": 4, "w1": 5}


def test_global_has_a_most_per_group(groups: Groups) -> None:
    scores = scores_of(groups, w0=[1e-9] * 7 + [1.0], w1=[1.0] * 10, w2=[1.0] * 3)
    free = chosen(groups, scores, ratio=7 / 21, allocation="global", max_ratio=0.95)
    assert len(free["w0"]) == 7
    capped = chosen(groups, scores, ratio=7 / 21, allocation="global", max_ratio=0.5)
    assert len(capped["w0"]) == 4
    assert sum(map(len, capped.values())) == 7


def test_global_leaves_named_ratios_as_they_are(groups: Groups) -> None:
    found = chosen(groups, ratio=0.5, allocation="global", ratios={"w1": 0.1})
    assert len(found["w1"]) == 1
    assert sum(len(i) for n, i in found.items() if n != "w1") == int(0.5 * 11)


def test_global_of_all_named(groups: Groups) -> None:
    assert {n: len(i) for n, i in chosen(groups, allocation="global", ratios={"*": 0.25}).items()} == {"w0": 2, "w1": 2}


# --- the criteria behind the choice -----------------------------------------------------------------------


@pytest.mark.parametrize(("criterion", "norm"), [("l1", 1), ("l2", 2)])
def test_magnitude_counts_all_coupled_parameters(criterion: str, norm: int) -> None:
    proto = chain(8, 10).proto()
    outcome = prune(proto, criterion=criterion)
    values = [array_of(proto, f"w{i}").astype(float) for i in range(3)]
    for index in (0, 1):
        power = np.abs(values[index]) ** norm, np.abs(values[index + 1]) ** norm
        wanted = np.argsort(power[0].sum(0) + power[1].sum(1))[: outcome.groups.groups[index].units // 2]
        assert outcome.plan.steps[index].remove == tuple(sorted(wanted))


def test_random_depends_on_the_seed_alone() -> None:
    proto = chain(16, 16).proto()

    def removed(**given: Any) -> list[tuple[int, ...]]:
        return [s.remove for s in prune(proto, criterion="random", **given).plan.steps]

    assert removed(seed=1) == removed(seed=1)
    assert removed(seed=1) != removed(seed=2)


def test_the_same_run_gives_the_same_bytes() -> None:
    proto = chain(16, 16).proto()
    small = [prune(proto).model.proto.SerializeToString(deterministic=True) for _ in range(2)]
    assert small[0] == small[1]


def test_a_criterion_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="no criterion is called 'l3'") as caught:
        prune(chain(8).proto(), criterion="l3")
    assert "l2" in caught.value.hint


def test_a_criterion_of_ones_own() -> None:
    def last_first(groups: Groups, rng: np.random.Generator) -> np.ndarray:
        return -np.arange(groups.classes.count, dtype=float)

    assert prune(chain(8).proto(), criterion=last_first).plan.steps[0].remove == (4, 5, 6, 7)


def test_what_a_criterion_holds_is_not_copied() -> None:
    """A method of something that cannot be copied, as a session or a lock cannot."""

    class Mine:
        def __init__(self) -> None:
            self.lock = threading.Lock()

        def score(self, groups: Groups, rng: np.random.Generator) -> np.ndarray:
            return rng.random(groups.classes.count)

    plan = api.prune(chain(8).proto(), 0.5, Mine().score).plan
    assert plan.options["criterion"] == "score"


@pytest.mark.parametrize(
    ("result", "what"), [(lambda n: np.zeros(n + 1), "returned shape"), (lambda n: np.full(n, np.nan), "not finite")]
)
def test_a_criterion_that_returns_nonsense(result: Any, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        prune(chain(8).proto(), criterion=lambda groups, rng: result(groups.classes.count))


def test_weights_that_are_not_finite() -> None:
    from tests.graphs.net import with_arrays

    proto = chain(8).proto()
    broken = array_of(proto, "w0").copy()
    broken[1, 2] = np.nan
    with pytest.raises(UsageError, match="'w0' are not finite"):
        prune(with_arrays(proto, {"w0": broken}))


def test_running_statistics_do_not_count() -> None:
    """A huge running mean makes no channel important."""
    net = Net()
    x = net.make((2, 8, 3, 3), 1)
    ones, zeros = np.ones(8, np.float32), np.zeros(8, np.float32)
    given = [net.const(v) for v in (ones, zeros, np.arange(8, dtype=np.float32) * -1e6, ones)]
    net.read(net.add("BatchNormalization", x, *given), 1)
    proto = net.proto()
    (group,) = (g for g in api.trace(proto).groups if g.name == "w_in")
    assert group.units == 8
    power = np.square(array_of(proto, "w_in")).sum(0) + np.square(array_of(proto, "w_out")).sum(1)
    assert prune(proto).plan.steps[0].remove == tuple(sorted(np.argsort(power)[:4]))


def test_groups_of_one_unit_are_said() -> None:
    """Columns that a loop turns depend on each other, all of them."""
    net = Net()
    info, turned = helper.make_tensor_value_info, net.ints(1, 2, 3, 0)
    body = helper.make_graph(
        [helper.make_node("Gather", ["state", turned], ["next"], axis=1), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [info("step", INT64, []), info("go", BOOL, []), info("state", FLOAT, ["batch", 4])],
        [info("on", BOOL, []), info("next", FLOAT, ["batch", 4])],
    )
    hidden = net.add("MatMul", net.input(["batch", 6]), net.weight(6, 4))
    last = net.add("Loop", net.input([], dtype=INT64, name="count"), "", hidden, body=body)
    net.output(net.add("MatMul", last, net.weight(4, 3)), ["batch", 3])
    with pytest.raises(GoalMissed, match="every group is one unit, which must stay"):
        prune(net.proto())
