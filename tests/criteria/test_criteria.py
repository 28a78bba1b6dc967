"""Every criterion against its definition, written out in loops."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune import api, criteria
from onnxprune.allocation import Options, select
from onnxprune.criteria.aggregate import AGGREGATIONS
from onnxprune.criteria.normalize import NORMALIZATIONS, normalized
from onnxprune.errors import UsageError
from onnxprune.layers import statistics
from onnxprune.tracing import Groups
from tests.graphs.net import Net, array_of, run

DATA = ("activation", "apoz", "wanda", "fluctuation")


def at(groups: Groups, scores: np.ndarray, tensor: str, axis: int) -> np.ndarray:
    """The score of every position along an axis of a weight."""
    return scores[groups.classes.of[np.ravel(groups.tracing.axes[tensor][axis])]]


def scored(proto: onnx.ModelProto, criterion: Any, tensor: str, axis: int, **given: Any) -> np.ndarray:
    groups = api.trace(proto)
    return at(groups, criteria.score(groups, criterion, **given), tensor, axis)


# --- a net of convolutions, and what its parts are --------------------------------------------------------


def convolutions() -> onnx.ModelProto:
    """Conv a -> Relu -> Conv b and Conv c side by side, their outputs added: a is read twice."""
    net = Net()
    x = net.input(["n", 3, 6, 6])
    h = net.add("Relu", net.add("Conv", x, net.weight(8, 3, 3, 3, name="a"), net.weight(8, name="a_bias"), name="ah"))
    left = net.add("Conv", h, net.weight(5, 8, 3, 3, name="b"), pads=[1, 1, 1, 1])
    right = net.add("Conv", h, net.weight(5, 8, 1, 1, name="c"))
    left = net.add("Conv", left, net.weight(5, 5, 1, 1, name="d"))
    net.output(net.add("Add", left, right, name="y"), ["n", 5, 4, 4])
    return net.proto()


def batches(count: int = 3, shape: tuple[int, ...] = (3, 6, 6)) -> list[dict[str, np.ndarray]]:
    """Runs of different sizes, away from zero so that moments about it and about the mean differ."""
    rng = np.random.default_rng(5)
    return [{"x": rng.standard_normal((2 + i, *shape)).astype(np.float32) + 0.5} for i in range(count)]


def values_of(proto: onnx.ModelProto, tensor: str, runs: list[dict[str, np.ndarray]]) -> np.ndarray:
    """A tensor on all runs, in float64."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.append(onnx.ValueInfoProto(name=tensor))
    return np.concatenate([run(copy, feeds=feeds)[tensor] for feeds in runs]).astype(np.float64)


@pytest.fixture(scope="module")
def net() -> onnx.ModelProto:
    return convolutions()


@pytest.fixture(scope="module")
def hidden(net: onnx.ModelProto) -> np.ndarray:
    """What b and c read: [samples, channel, places]."""
    name = next(n.output[0] for n in net.graph.node if n.op_type == "Relu")
    found = values_of(net, name, batches())
    assert (found == 0).any()
    return found.reshape(len(found), 8, -1)


def held(proto: onnx.ModelProto) -> list[list[np.ndarray]]:
    """Per channel of a: what it holds in every weight but its bias, as flat float64."""
    a, b, c = (array_of(proto, n).astype(np.float64) for n in ("a", "b", "c"))
    return [[a[i].ravel(), b[:, i].ravel(), c[:, i].ravel()] for i in range(8)]


@pytest.mark.parametrize("aggregate", [None, "sum", "mean", "max", "norm"])
@pytest.mark.parametrize(("criterion", "norm"), [("l1", 1), ("l2", 2)])
def test_magnitude(net: onnx.ModelProto, criterion: str, norm: int, aggregate: str | None) -> None:
    how = aggregate or {"l1": "sum", "l2": "norm"}[criterion]
    combine = {"sum": sum, "mean": np.mean, "max": max, "norm": np.linalg.norm}[how]
    wanted = [combine([np.linalg.norm(part, norm) for part in parts]) for parts in held(net)]
    np.testing.assert_allclose(scored(net, criterion, "a", 0, aggregate=aggregate), wanted, rtol=1e-5)


def test_by_default_magnitude_is_the_norm_of_all_weights_together(net: onnx.ModelProto) -> None:
    for criterion, norm in (("l1", 1), ("l2", 2)):
        wanted = [np.linalg.norm(np.concatenate(parts), norm) for parts in held(net)]
        np.testing.assert_allclose(scored(net, criterion, "a", 0), wanted, rtol=1e-5)


def test_a_bias_counts_where_there_is_nothing_else_and_where_it_is_not_finite() -> None:
    net = Net()
    h = net.add("Add", net.add("MatMul", net.input([2, 6]), net.weight(6, 8, name="w")), net.weight(8, name="b"))
    net.read(h, 1)
    proto = net.proto()
    before = scored(proto, "l2", "w", 1)
    (bias,) = (t for t in proto.graph.initializer if t.name == "b")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, 100, np.float32), "b"))
    np.testing.assert_array_equal(scored(proto, "l2", "w", 1), before)
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(8, np.nan, np.float32), "b"))
    with pytest.raises(UsageError, match=r"not finite: 'b'"):
        scored(proto, "l2", "w", 1)

    thin = Net()  # one input, one output: all its weights are vectors
    h = thin.add("Add", thin.add("MatMul", thin.input([2, 1]), thin.weight(1, 8, name="w")), thin.weight(8, name="b"))
    thin.output(thin.add("MatMul", h, thin.weight(8, 1, name="w_out")))
    held = [array_of(thin.proto(), name).reshape(8) for name in ("w", "b", "w_out")]
    np.testing.assert_allclose(scored(thin.proto(), "l2", "w", 1), np.linalg.norm(held, axis=0), rtol=1e-6)


def test_lamp(net: onnx.ModelProto) -> None:
    power = [float(np.square(np.concatenate(parts)).sum()) for parts in held(net)]
    wanted = [p / sum(q for q in power if q >= p) for p in power]
    np.testing.assert_allclose(scored(net, "lamp", "a", 0), wanted, rtol=1e-5)


def test_fpgm(net: onnx.ModelProto) -> None:
    """Distances between the filters that make the channels; their bias and their readers play no part."""
    a = array_of(net, "a").astype(np.float64).reshape(8, -1)
    wanted = [sum(np.linalg.norm(a[i] - a[j]) for j in range(8)) for i in range(8)]
    np.testing.assert_allclose(scored(net, "fpgm", "a", 0), wanted, rtol=1e-4)


def test_fpgm_of_equal_filters_is_small() -> None:
    net = Net()
    weight = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    weight[:, 1] = weight[:, 4] = weight[:, 0]
    x = net.add("Relu", net.add("MatMul", net.input([2, 4]), net.const(weight, "w")))
    net.read(x, 1)
    assert set(np.argsort(scored(net.proto(), "fpgm", "w", 1))[:3]) == {0, 1, 4}


def test_activation(net: onnx.ModelProto, hidden: np.ndarray) -> None:
    wanted = [np.abs(hidden[:, i]).mean() for i in range(8)]
    np.testing.assert_allclose(scored(net, "activation", "a", 0, runs=batches()), wanted, rtol=1e-5)


def test_apoz(net: onnx.ModelProto, hidden: np.ndarray) -> None:
    wanted = [1 - (hidden[:, i] == 0).mean() for i in range(8)]
    np.testing.assert_allclose(scored(net, "apoz", "a", 0, runs=batches()), wanted, rtol=1e-6)


def test_wanda(net: onnx.ModelProto, hidden: np.ndarray) -> None:
    """Every weight that reads the channel, in both readers, times the root mean square of the channel."""
    b, c = (array_of(net, n).astype(np.float64) for n in "bc")
    norm = [np.sqrt(np.square(hidden[:, i]).mean()) for i in range(8)]
    wanted = [(np.abs(b[:, i]).sum() + np.abs(c[:, i]).sum()) * norm[i] for i in range(8)]
    np.testing.assert_allclose(scored(net, "wanda", "a", 0, runs=batches()), wanted, rtol=1e-5)


def test_fluctuation(net: onnx.ModelProto, hidden: np.ndarray) -> None:
    b, c = (array_of(net, n).astype(np.float64) for n in "bc")
    wanted = [hidden[:, i].var() * (np.square(b[:, i]).sum() + np.square(c[:, i]).sum()) for i in range(8)]
    np.testing.assert_allclose(scored(net, "fluctuation", "a", 0, runs=batches()), wanted, rtol=1e-5)


def test_wanda_of_positions_that_one_unit_holds() -> None:
    """Behind Flatten a channel has a column per place: each is weighted with the norm at its own place."""
    net = Net()
    h = net.add("Relu", net.add("Conv", net.input(["n", 3, 4, 4]), net.weight(4, 3, 3, 3, name="a")), name="h")
    net.output(net.add("MatMul", net.add("Flatten", h), net.weight(16, 5, name="b"), name="y"), ["n", 5])
    proto, runs = net.proto(), batches(shape=(3, 4, 4))
    x, b = values_of(proto, "h", runs).reshape(-1, 16), np.abs(array_of(proto, "b")).sum(axis=1)
    columns = b * np.sqrt(np.square(x).mean(axis=0))
    got = scored(proto, "wanda", "a", 0, runs=runs)
    np.testing.assert_allclose(got, columns.reshape(4, 4).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("criterion", DATA)
def test_grouped_convolutions(criterion: str) -> None:
    """Channels of one group are read by the filters of that group alone."""
    net = Net()
    h = net.add("Relu", net.add("Conv", net.input(["n", 3, 6, 6]), net.weight(8, 3, 1, 1, name="a")), name="h")
    net.output(net.add("Conv", h, net.weight(6, 4, 1, 1, name="b"), group=2, name="y"), ["n", 6, 6, 6])
    proto, runs = net.proto(), batches()
    x = values_of(proto, "h", runs).transpose(1, 0, 2, 3).reshape(8, -1)
    b = array_of(proto, "b").astype(np.float64)[:, :, 0, 0]
    readers = [b[3 * (i // 4) : 3 * (i // 4) + 3, i % 4] for i in range(8)]
    wanted = {
        "activation": [np.abs(x[i]).mean() for i in range(8)],
        "apoz": [(x[i] != 0).mean() for i in range(8)],
        "wanda": [np.abs(readers[i]).sum() * np.sqrt(np.square(x[i]).mean()) for i in range(8)],
        "fluctuation": [np.square(readers[i]).sum() * x[i].var() for i in range(8)],
    }[criterion]
    np.testing.assert_allclose(scored(proto, criterion, "a", 0, runs=runs), wanted, rtol=1e-5)


def test_a_depthwise_convolution_is_no_reader() -> None:
    """What a depthwise filter makes of a channel goes with it: only what sums over channels counts."""
    net = Net()
    h = net.add("Conv", net.input(["n", 3, 6, 6]), net.weight(8, 3, 1, 1, name="a"))
    h = net.add("Relu", net.add("Conv", h, net.weight(8, 1, 3, 3, name="depth", scale=100.0), group=8), name="h")
    net.output(net.add("Conv", h, net.weight(6, 8, 1, 1, name="b"), name="y"), ["n", 6, 4, 4])
    proto, runs = net.proto(), batches()
    x = values_of(proto, "h", runs).transpose(1, 0, 2, 3).reshape(8, -1)
    wanted = np.abs(array_of(proto, "b")).sum(axis=(0, 2, 3)) * np.sqrt(np.square(x).mean(axis=1))
    np.testing.assert_allclose(scored(proto, "wanda", "a", 0, runs=runs), wanted, rtol=1e-5)


def attention() -> onnx.ModelProto:
    """Two heads of four: the heads' dimensions are read by no weight where queries meet keys."""
    net = Net()
    x = net.input(["n", 5, 6])

    def heads(name: str, order: list[int]) -> str:
        split = net.add("Reshape", net.add("MatMul", x, net.weight(6, 8, name=name)), net.ints(0, 5, 2, 4))
        return net.add("Transpose", split, perm=order, name=f"{name}_heads")

    q, k, v = heads("q", [0, 2, 1, 3]), heads("k", [0, 2, 3, 1]), heads("v", [0, 2, 1, 3])
    mixed = net.add("MatMul", net.add("Softmax", net.add("MatMul", q, k), axis=-1), v)
    joined = net.add("Reshape", net.add("Transpose", mixed, perm=[0, 2, 1, 3]), net.ints(0, 5, 8), name="joined")
    net.output(net.add("MatMul", joined, net.weight(8, 6, name="o"), name="y"), ["n", 5, 6])
    return net.proto()


def test_wanda_of_heads_and_of_their_dimensions() -> None:
    proto, runs = attention(), batches(shape=(5, 6))
    columns = np.abs(array_of(proto, "o")).sum(axis=1) * np.sqrt(
        np.square(values_of(proto, "joined", runs)).mean(axis=(0, 1))
    )
    np.testing.assert_allclose(
        scored(proto, "wanda", "v", 1, runs=runs), np.repeat(columns.reshape(2, 4).sum(axis=1), 4), rtol=1e-5
    )
    groups = api.trace(proto, head_dims=True)
    scores = criteria.score(groups, "wanda", runs=runs)
    np.testing.assert_allclose(at(groups, scores, "v", 1), columns, rtol=1e-5)
    q = np.sqrt(np.square(values_of(proto, "q_heads", runs)).mean(axis=(0, 2)))  # [head, dim]
    k = np.sqrt(np.square(values_of(proto, "k_heads", runs)).mean(axis=(0, 3)))
    np.testing.assert_allclose(at(groups, scores, "q", 1), (q + k).ravel(), rtol=1e-5)


# --- several at once, and the user's own ---------------------------------------------------------------------


def test_ensemble(net: onnx.ModelProto) -> None:
    """The mean of the ranks among the units of all groups, each after its own normalisation."""
    groups, runs = api.trace(net), batches()
    places = np.concatenate([g.classes for g in groups.groups])
    wanted = np.zeros(len(places))
    for name in ("l2", "apoz"):
        scores = criteria.score(groups, name, runs=runs)
        most = np.max if name == "l2" else np.mean
        flat = np.concatenate([scores[g.classes] / most(scores[g.classes]) for g in groups.groups])
        wanted += [((flat < v).sum() + (flat <= v).sum() - 1) / 2 / (len(flat) - 1) for v in flat]
    got = criteria.score(groups, "ensemble:l2,apoz", runs=runs)
    np.testing.assert_allclose(got[places], wanted / 2)
    assert got[places].min() >= 0 and got[places].max() <= 1


def test_an_ensemble_that_names_nothing_uses_data_where_there_is_some(net: onnx.ModelProto) -> None:
    groups, runs = api.trace(net), batches()
    for given, members in (([], "l2,fpgm"), (runs, "l2,wanda,fluctuation")):
        got, wanted = (criteria.score(groups, name, runs=given) for name in ("ensemble", f"ensemble:{members}"))
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("name", [*DATA, "obs", "ensemble:l2,wanda"])
def test_data_is_asked_for(net: onnx.ModelProto, name: str) -> None:
    with pytest.raises(UsageError, match="needs inputs") as caught:
        onnxprune.make_plan(net, criterion=name)
    assert "--data" in caught.value.hint
    plan = onnxprune.make_plan(net, criterion=name, data=batches())
    assert plan.options["criterion"] == name


def test_a_criterion_of_ones_own_with_data(net: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(criteria, "KNOWN", dict(criteria.KNOWN))
    seen = []

    def brightness(groups: Groups, rng: np.random.Generator, runs: Any) -> np.ndarray:
        seen.append(sum(len(feeds["x"]) for feeds in runs))
        return np.arange(groups.classes.count, dtype=float)

    criteria.register_criterion("brightness", brightness, needs_data=True)
    with pytest.raises(UsageError, match="needs inputs"):
        onnxprune.make_plan(net, criterion="brightness")
    onnxprune.prune(net, criterion="brightness", data=batches())
    assert seen == [2 + 3 + 4]
    with pytest.raises(UsageError, match="a colon and a comma"):
        criteria.register_criterion("a:b", brightness)


@pytest.mark.parametrize(("name", "what"), [("ensemble:l2,l3", "'l3'"), ("ensemble:", "''")])
def test_an_ensemble_of_what_does_not_exist(net: onnx.ModelProto, name: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        criteria.score(api.trace(net), name)


@pytest.mark.parametrize("name", ["random", "ensemble:l1,l2"])
def test_what_combines_nothing_takes_no_aggregation(net: onnx.ModelProto, name: str) -> None:
    with pytest.raises(UsageError, match="does not combine members"):
        onnxprune.make_plan(net, criterion=name, aggregate="max")


def test_every_criterion_says_what_it_is() -> None:
    for known in criteria.KNOWN.values():
        assert known.summary and (known.source or known.name == "random")
    assert [k.name for k in criteria.listed()] == criteria.names()


def test_the_page_has_every_criterion_as_it_is() -> None:
    """Name, source, whether it needs data, and how it combines and compares."""
    page = (Path(onnxprune.__file__).parents[1] / "docs" / "criteria.md").read_text()
    rows = {}
    for line in re.findall(r"(?m)^\| `[\w-]+` \|.*\|.*\|.*\|.*\|.*\|$", page):
        name, _, source, data, aggregate, normalize = (cell.strip(" `") for cell in line.strip("|").split("|"))
        rows[name] = (re.sub(r"\[(.*?)\]\(.*?\)", r"\1", source), data == "yes", aggregate, normalize)
    known = {k.name: (k.source, k.needs_data, k.aggregate, k.normalize) for k in criteria.KNOWN.values()}
    assert {n: row for n, row in rows.items() if n != "ensemble"} == known
    assert rows["ensemble"][3] == criteria.known("ensemble").normalize
    told = re.findall(r"(?m)^\| `(\w+)` \| [^|]*\|$", page)
    assert told == [*AGGREGATIONS, *NORMALIZATIONS]


# --- between groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "lowest"), [("mean", [1 / 4, 20 / 40]), ("max", [1 / 7, 20 / 60]), ("sum", [1 / 8, 20 / 120]),
                        ("none", [1, 20]), ("standard", [-1.0, -20 / np.sqrt(800 / 3)])]
)  # fmt: skip
def test_normalisation(how: str, lowest: list[float]) -> None:
    got = [normalized(np.array(s, float), how)[0] for s in ([1, 7], [20, 40, 60])]
    np.testing.assert_allclose(got, lowest)
    assert normalized(np.zeros(3), how).tolist() == [0, 0, 0]


def test_a_global_ranking_uses_the_normalisation() -> None:
    net = Net()
    x = net.input([2, 4])
    for index, width in enumerate((6, 6)):
        x = net.add("Relu", net.add("MatMul", x, net.weight(4 if not index else 6, width, name=f"w{index}")))
    net.read(x, 1)
    groups = api.trace(net.proto())
    scores = np.zeros(groups.classes.count)
    scores[groups.groups[0].classes] = [1, 2, 3, 4, 5, 6]
    scores[groups.groups[1].classes] = [100, 101, 102, 103, 104, 900]

    def counts(**given: Any) -> list[int]:
        removed = select(groups, scores, Options(ratio=0.5, allocation="global", **given)).removed
        return [len(removed.get(g.name, ())) for g in groups.groups]

    assert counts(normalize="none") == [5, 1]
    assert counts(normalize="max") == [1, 5]
    assert counts(criterion="lamp") == [5, 1]  # which is compared as it is
    assert counts() == counts(normalize="max") != counts(criterion="lamp")


@pytest.mark.parametrize("option", ["aggregate", "normalize"])
def test_options_that_do_not_exist(option: str) -> None:
    with pytest.raises(UsageError, match="is called 'best'"):
        Options(**{option: "best"})


def test_the_command_line_offers_what_there_is() -> None:
    """Its lists are written out, so that help needs no numpy."""
    from onnxprune.cli.prune import prune

    offered = {p.name: getattr(p.type, "choices", ()) for p in prune.params}
    assert set(offered["aggregate"]) == set(AGGREGATIONS)
    assert set(offered["normalize"]) == set(NORMALIZATIONS)


# --- statistics ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("taken", [1, 1 << 28])
def test_tensors_are_taken_in_portions(net: onnx.ModelProto, taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "TAKEN", taken)
    groups, calls = api.trace(net), []
    walk = statistics.ActivationReader.read
    monkeypatch.setattr(
        statistics.ActivationReader, "read", lambda self, some: (calls.append(len(some)), walk(self, some))[1]
    )
    criteria.score(groups, "wanda", runs=batches())
    assert calls == ([1, 1] if taken == 1 else [2])
