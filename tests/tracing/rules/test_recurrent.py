"""Labels through recurrent layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnxprune import api, criteria
from onnxprune.model.protos import MICROSOFT
from onnxprune.tracing.rules.recurrent import GATES, PEEPHOLES
from tests.graphs import two_judges
from tests.graphs.net import FLOAT, INT32, Net, array_of, group_of, ops_of, prune, reasons_for, shapes_of
from tests.graphs.sandwich import Case, build, check_by_zeroing, check_case, check_groups, parameters

SEQUENCE, BATCH, WIDTH, HIDDEN = 5, 2, 8, 6
X = (SEQUENCE, BATCH, WIDTH)


def random(net: Net, *shape: int, name: str = "") -> str:
    return net.weight(*shape, name=name, scale=0.5)


def layer(
    net: Net,
    op: str,
    x: str,
    *,
    hidden: int = HIDDEN,
    width: int = WIDTH,
    direction: str = "forward",
    inputs: Callable[[Net], tuple[str, ...]] = lambda net: (),
    prefix: str = "",
    outputs: int = 1,
    **attrs: Any,
) -> Any:
    """A recurrent layer; `inputs` are those behind R."""
    gates, directions = GATES[op], 1 + (direction == "bidirectional")
    w = random(net, directions, gates * hidden, width, name=f"{prefix}W")
    r = random(net, directions, gates * hidden, hidden, name=f"{prefix}R")
    return net.add(op, x, w, r, *inputs(net), outputs=outputs, hidden_size=hidden, direction=direction, **attrs)


def quantised(
    direction: str = "forward",
    *,
    by_channel: bool = False,
    dtype: type = np.int8,
    behind: Any = None,
    outputs: int = 1,
    bounds: tuple[int, int] = (-30, 30),
):
    """A DynamicQuantizeLSTM; W and R are stored with the gates along their last axis, between `bounds`."""

    def build(net: Net, x: str) -> Any:
        directions, rng = 1 + (direction == "bidirectional"), net.rng
        point = 0 if dtype == np.int8 else 100

        def stored(*shape: int, name: str) -> str:
            return net.const((rng.integers(*bounds, shape) + point).astype(dtype), name)

        sizes = (directions, 4 * HIDDEN) if by_channel else (directions,)
        scales = [net.const(rng.uniform(0.01, 0.02, sizes).astype(np.float32)) for _ in range(2)]
        zeros = [net.const(np.full(sizes, point, dtype)) for _ in range(2)]
        given = behind(net) if behind else ()
        w, r = (stored(directions, n, 4 * HIDDEN, name=m) for n, m in ((WIDTH, "W"), (HIDDEN, "R")))
        given = (*given, *[""] * (5 - len(given)), scales[0], zeros[0], scales[1], zeros[1])
        return net.add(
            "DynamicQuantizeLSTM",
            *(x, w, r, *given),
            domain=MICROSOFT,
            outputs=outputs,
            hidden_size=HIDDEN,
            direction=direction,
        )

    return build


def plain(op: str, **options: Any):
    return lambda net, x: layer(net, op, x, **options)


def joined(net: Net, y: str, perm: Sequence[int] = (0, 2, 1, 3)) -> str:
    """The hidden units of all directions, one direction after the other."""
    return net.add("Reshape", net.add("Transpose", y, perm=perm), net.ints(*[0] * (len(perm) - 2), -1))


def biased(op: str, directions: int = 1):
    return lambda net: (random(net, directions, 2 * GATES[op] * HIDDEN, name="B"),)


def with_state(op: str, state: Callable[[Net, int], str], directions: int = 1):
    """Initial states that `state` makes, of the hidden values and, for an LSTM, of the cells."""

    def inputs(net: Net) -> tuple[str, ...]:
        states = [state(net, i) for i in range(1 + (op == "LSTM"))]
        return (*biased(op, directions)(net), "", *states)

    return inputs


def stored(directions: int = 1):
    return lambda net, index: random(net, directions, BATCH, HIDDEN, name=f"state{index}")


def from_outside(net: Net, index: int) -> str:
    return net.input([1, BATCH, HIDDEN])


def from_another(net: Net, index: int) -> str:
    return net.make((1, BATCH, HIDDEN), 2, weight=f"w_state{index}")


def with_lengths(op: str):
    return lambda net: (*biased(op)(net), net.input([BATCH], dtype=INT32))


def last_only(op: str, **options: Any):
    """Only Y_h is asked for."""

    def build(net: Net, x: str) -> Any:
        _, last = layer(net, op, x, outputs=2, **options)
        net.nodes[-1].output[0] = ""
        return last

    return build


def peepholes(directions: int):
    def inputs(net: Net) -> tuple[str, ...]:
        others = with_state("LSTM", stored(directions), directions)(net)
        return (*others, random(net, directions, PEEPHOLES * HIDDEN, name="P"))

    return inputs


def all_outputs(net: Net, x: str) -> None:
    """Y, Y_h and Y_c of two directions, each with a reader of its own."""
    y, h, c = layer(net, "LSTM", x, direction="bidirectional", inputs=biased("LSTM", 2), outputs=3)
    net.read(joined(net, y), 2, weight="w_out")
    net.read(h, 2, weight="w_h")
    net.read(c, 2, weight="w_c")


def stacked(net: Net, x: str) -> str:
    """Two layers of two directions, the second on both directions of the first."""
    y = layer(net, "LSTM", x, direction="bidirectional", inputs=biased("LSTM", 2))
    second = layer(net, "GRU", joined(net, y), width=2 * HIDDEN, direction="reverse", prefix="next_")
    return net.listed("Squeeze", second, [1], since=13)


def one_unit(net: Net, x: str) -> str:
    return layer(net, "GRU", x, hidden=1, direction="bidirectional")


def own_units(net: Net, x: str) -> str:
    """Weights that the graph joins: directions lose the same units."""
    halves = [
        [random(net, 1, 4 * HIDDEN, n, name=f"{w}{i}") for i in range(2)] for w, n in (("W", WIDTH), ("R", HIDDEN))
    ]
    w, r = (net.add("Concat", *parts, axis=0) for parts in halves)
    return net.add("LSTM", x, w, r, hidden_size=HIDDEN, direction="bidirectional")


W, R, B = {("W", 2): WIDTH, ("W", 1): HIDDEN}, {("R", 1): HIDDEN, ("R", 2): HIDDEN}, {("B", 1): HIDDEN}
ALL = {**W, **R, ("w_out", 0): HIDDEN}
LOCKED_W = {("R", 2): HIDDEN, ("w_out", 0): HIDDEN}
STATES = {("state0", 2): HIDDEN}
FROM_INPUT = {("R", 1): "graph input 'x1'", ("R", 2): "graph input 'x1'", ("W", 1): "graph input 'x1'", ("W", 2): 8}

DYNAMIC = {("W", 2): HIDDEN, ("R", 1): HIDDEN, ("R", 2): HIDDEN, ("w_out", 0): HIDDEN}
CASES = [
    *(
        Case("DynamicQuantizeLSTM", name, made, X, 2, 3, domain=MICROSOFT, others=DYNAMIC)
        for name, made in {
            "int8": quantised(),
            "uint8": quantised(dtype=np.uint8),
            "saturating": quantised(bounds=(100, 128)),
            "saturating-both": quantised("bidirectional", by_channel=True, bounds=(100, 128)),
            "by-channel": quantised(by_channel=True),
            "both": quantised("bidirectional", by_channel=True),
            "biased": quantised(behind=biased("LSTM")),
            "states": quantised(behind=with_state("LSTM", stored())),
            "peepholes": quantised(behind=peepholes(1)),
        }.items()
    ),
    *(Case(op, "features", plain(op), X, 2, 3, others=ALL) for op in GATES),
    *(Case(op, "reverse", plain(op, direction="reverse", inputs=biased(op)), X, 2, 3, others=ALL | B) for op in GATES),
    *(
        Case(op, "both", plain(op, direction="bidirectional", inputs=biased(op, 2)), X, 2, 3, others=ALL | B)
        for op in GATES
    ),
    *(Case(op, "batch", plain(op, width=3), (5, 8, 3), 1, 2, others={("R", 2): "graph output"}) for op in GATES),
    *(Case(op, "time", plain(op), (8, 2, WIDTH), 0, 3, units=0, why="time axis", others=LOCKED_W) for op in GATES),
    *(Case(op, "states", plain(op, inputs=with_state(op, stored())), X, 2, 3, others=ALL | B | STATES) for op in GATES),
    *(
        Case(
            op,
            "states-both",
            plain(op, direction="bidirectional", inputs=with_state(op, stored(2), 2)),
            X,
            2,
            3,
            others=ALL | STATES,
        )
        for op in GATES
    ),
    *(
        Case(op, "state-input", plain(op, inputs=with_state(op, from_outside)), X, 2, 3, others=FROM_INPUT)
        for op in GATES
    ),
    *(
        Case(
            op,
            "state-made",
            plain(op, inputs=with_state(op, from_another)),
            X,
            2,
            3,
            others=ALL | {("w_state0", 1): HIDDEN},
        )
        for op in GATES
    ),
    *(Case(op, "lengths", plain(op, inputs=with_lengths(op)), X, 2, 3, others=ALL | B) for op in GATES),
    *(Case(op, "last-only", last_only(op), X, 2, 2, others=ALL) for op in GATES),
    *(Case(op, "clip", plain(op, clip=0.5), X, 2, 3, others=ALL) for op in GATES),
    Case("GRU", "reset-before", plain("GRU", linear_before_reset=1, inputs=biased("GRU")), X, 2, 3, others=ALL | B),
    Case("RNN", "relu", plain("RNN", activations=["Relu"]), X, 2, 3, others=ALL),
    Case("LSTM", "peepholes", plain("LSTM", inputs=peepholes(1)), X, 2, 3, others=ALL | {("P", 1): HIDDEN}),
    Case(
        "LSTM",
        "peepholes-both",
        plain("LSTM", direction="bidirectional", inputs=peepholes(2)),
        X,
        2,
        3,
        others=ALL | {("P", 1): HIDDEN},
    ),
    Case("LSTM", "input-forget", plain("LSTM", input_forget=1), X, 2, 3, others=ALL),
    Case(
        "LSTM",
        "activations",
        plain(
            "LSTM",
            activations=["HardSigmoid", "Softsign", "Affine"],
            activation_alpha=[0.3, 0.5],
            activation_beta=[0.4, 0.2],
        ),
        X,
        2,
        3,
        others=ALL,
    ),
    Case("LSTM", "all-outputs", all_outputs, X, 2, None, others=ALL | {("w_h", 0): HIDDEN, ("w_c", 0): HIDDEN}),
    Case("LSTM", "joined", own_units, X, 2, 3, others={("R0", 2): HIDDEN, ("R1", 1): HIDDEN, ("w_out", 0): HIDDEN}),
    Case(
        "LSTM",
        "stacked",
        stacked,
        X,
        2,
        2,
        others={**W, **R, ("next_W", 2): HIDDEN, ("next_R", 2): HIDDEN, ("w_out", 0): HIDDEN},
    ),
    Case("GRU", "one-unit", one_unit, X, 2, 0, others={("W", 2): WIDTH}),
]


@pytest.mark.parametrize(("case", "version"), parameters(CASES))
def test_rule(case: Case, version: int) -> None:
    check_case(case, version)


# --- without the masked reference -----------------------------------------------------------------------------


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_unit_that_goes_is_a_unit_of_zeros(op: str, direction: str) -> None:
    """Zeros in place of everything that went (rows, columns and biases) leave such a unit at zero in the original."""
    directions = 1 + (direction == "bidirectional")
    case = Case(op, "", plain(op, direction=direction, inputs=biased(op, directions)), X, 2, 3)
    proto = build(case, 17).proto()
    outcome = prune(proto)
    assert {"W", "R", "B", "w_in", "w_out"} <= outcome.plan.masks(proto).keys()
    check_by_zeroing(case, proto, outcome)


def test_directions_lose_units_of_their_own() -> None:
    net = Net()
    net.read(joined(net, layer(net, "LSTM", net.make(X, 2), direction="bidirectional")), 2)
    outcome = prune(net.proto())
    columns = outcome.plan.masks(net.proto())["R"].any(axis=1)
    assert columns.sum(axis=1).tolist() == [HIDDEN // 2] * 2
    assert (columns[0] != columns[1]).any()


def test_what_is_summed_over_directions_loses_the_same_units() -> None:
    net = Net()
    y = layer(net, "RNN", net.make(X, 2), direction="bidirectional")
    net.read(net.listed("ReduceSum", y, [1], since=13, keepdims=0), 2)
    outcome = prune(net.proto())
    columns = outcome.plan.masks(net.proto())["R"].any(axis=1)
    assert outcome.rolled_back == ()
    assert columns.sum(axis=1).tolist() == [HIDDEN // 2] * 2
    assert (columns[0] == columns[1]).all()


def test_one_direction_that_must_stay_keeps_the_other() -> None:
    net = Net()
    _, last = layer(net, "RNN", net.make(X, 2), direction="bidirectional", outputs=2)
    net.output(net.add("Gather", last, net.const(np.int64(1)), axis=0))
    net.read(net.add("Gather", last, net.const(np.int64(0)), axis=0), 1)
    groups = api.trace(net.proto())
    assert group_of(groups, "w_out", 0) is None
    assert reasons_for(groups, "R", 2) == {
        "graph output 'gather_4'",
        "its rows cannot all lose the same number of positions",
    }


def test_two_layers_of_which_only_the_last_state_is_asked_for() -> None:
    """Both have an unnamed first output."""
    net = Net()
    x = net.make(X, 2)
    for prefix, hidden in (("a_", 4), ("b_", 6)):
        _, last = layer(net, "GRU", x, hidden=hidden, prefix=prefix, outputs=2)
        net.nodes[-1].output[0] = ""
        net.read(last, 2, weight=f"{prefix}out")
    outcome = prune(net.proto())
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.rolled_back == ()
    sizes = [helper.get_node_attr_value(n, "hidden_size") for n in outcome.model.proto.graph.node if n.op_type == "GRU"]
    assert sizes == [2, 3]


def test_a_weight_of_two_layers_is_cut_once() -> None:
    net = Net()
    x = net.make((SEQUENCE, BATCH, HIDDEN), 2)
    y = layer(net, "GRU", x, width=HIDDEN, direction="bidirectional")
    both = net.add("ReduceSum", y, net.ints(1), keepdims=0)
    net.read(net.add("GRU", both, "W", "R", hidden_size=HIDDEN, direction="bidirectional"), 3)
    outcome = prune(net.proto())
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.rolled_back == ()
    assert shapes_of(outcome.model)["R"] == (2, 3 * HIDDEN // 2, HIDDEN // 2)


@pytest.mark.parametrize("first", [True, False])
def test_a_weight_that_something_else_reads_as_well(first: bool) -> None:
    """Whoever reads a weight before a layer whose directions lose units of their own is cut as the layer is."""
    net = Net()
    x = net.make((2, BATCH, WIDTH), 2)
    net.weight(2, HIDDEN, HIDDEN, name="R")

    def other() -> None:
        net.read(net.add("Mul", net.input([2, HIDDEN, HIDDEN]), "R"), 2, weight="w_other")

    if first:
        other()
    w = random(net, 2, HIDDEN, WIDTH, name="W")
    net.read(net.add("RNN", x, w, "R", hidden_size=HIDDEN, direction="bidirectional"), 3)
    if not first:
        other()
    groups = api.trace(net.proto())
    check_groups(groups, {("R", 2): "graph input", ("w_out", 0): "graph input", ("W", 2): WIDTH})
    outcome = prune(net.proto())
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.rolled_back == ()


# --- states of zeros ------------------------------------------------------------------------------------------


def two_layers(net: Net, states: str, op: str = "RNN") -> Net:
    """Two layers whose initial states are rows of one tensor [4, batch, hidden], as exporters write it."""
    x = net.make((SEQUENCE, BATCH, HIDDEN), 2)
    for index in range(2):
        rows = [net.ints(2 * index), net.ints(2 * index + 2), net.ints(0)]
        state = net.add("Slice", states, *rows)
        x = layer(
            net,
            op,
            x,
            width=HIDDEN * (1 + index),
            direction="bidirectional",
            inputs=lambda net, state=state: ("", "", state),
            prefix=f"l{index}_",
        )
        x = joined(net, x)
    net.read(x, 2)
    return net


def filled(net: Net, value: float) -> str:
    batch = net.add("Gather", net.add("Shape", net.input(["batch", 2])), net.ints(0))
    sizes = net.add("Concat", net.ints(4), batch, net.ints(HIDDEN), axis=0)
    return net.add("ConstantOfShape", sizes, value=helper.make_tensor("", FLOAT, [1], [value]))


def spread(net: Net, value: float) -> str:
    batch = net.add("Gather", net.add("Shape", net.input(["batch", 2])), net.ints(0))
    sizes = net.add("Concat", net.ints(4), batch, net.ints(HIDDEN), axis=0)
    return net.add("Expand", net.const(np.float32(value)), sizes)


def kept_whole(net: Net, value: float) -> str:
    return net.const(np.full((4, BATCH, HIDDEN), value, np.float32))


@pytest.mark.parametrize("make", [filled, spread, kept_whole])
def test_states_of_zeros_tie_nothing_and_are_left_out(make: Callable[[Net, float], str]) -> None:
    net = Net()
    outcome = prune(two_layers(net, make(net, 0.0)).proto())
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.rolled_back == ()
    first, second = (group_of(outcome.groups, f"l{i}_R", 2) for i in range(2))
    assert first is not None and second is not None and first.name != second.name
    assert [len(g.cells) for g in (first, second)] == [2, 2]
    layers = [n for n in outcome.model.proto.graph.node if n.op_type == "RNN"]
    assert [n.input[5] for n in layers] == ["", ""]
    assert "Slice" not in ops_of(outcome.model)


@pytest.mark.parametrize("make", [filled, spread])
def test_other_states_are_cut_with_their_layers(make: Callable[[Net, float], str]) -> None:
    """One tensor cannot lose different units in every row."""
    net = Net()
    outcome = prune(two_layers(net, make(net, 0.5)).proto())
    assert outcome.verdict is not None and outcome.verdict.ok and outcome.rolled_back == ()
    first, second = (group_of(outcome.groups, f"l{i}_R", 2) for i in range(2))
    assert first is not None and second is not None and first.name == second.name
    assert all(n.input[5] for n in outcome.model.proto.graph.node if n.op_type == "RNN")


def test_states_of_zeros_stay_where_nothing_goes() -> None:
    net = Net()
    zeros = with_state("LSTM", lambda net, i: net.const(np.zeros((1, BATCH, HIDDEN), np.float32), f"zeros{i}"))
    net.output(layer(net, "LSTM", net.input(X), inputs=zeros))
    net.read(net.make((3, WIDTH), 1), 1)
    outcome = prune(net.proto())
    node = next(n for n in outcome.model.proto.graph.node if n.op_type == "LSTM")
    assert list(node.input[5:]) == ["zeros0", "zeros1"]


# --- scores ---------------------------------------------------------------------------------------------------


def test_a_unit_scores_by_all_gates_of_its_direction() -> None:
    net = Net()
    y = layer(net, "GRU", net.make(X, 2), direction="bidirectional", inputs=biased("GRU", 2))
    net.read(joined(net, y), 2)
    groups = api.trace(net.proto())
    scores = criteria.score(groups, "l1", 0)
    classes = groups.classes.of[groups.tracing.axes["R"][2].reshape(2, HIDDEN)]
    w, r, b, out = (np.abs(array_of(net.proto(), name)) for name in ("W", "R", "B", "w_out"))
    for direction, unit in np.ndindex(2, HIDDEN):
        wanted = w[direction, unit::HIDDEN].sum() + b[direction, unit::HIDDEN].sum()
        wanted += r[direction, unit::HIDDEN].sum() + r[direction, :, unit].sum()
        wanted += out[direction * HIDDEN + unit].sum()
        np.testing.assert_allclose(scores[classes[direction, unit]], wanted, rtol=1e-5)


# --- cost -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", GATES)
def test_work_is_that_of_the_input_and_of_the_state(op: str) -> None:
    net = build(Case(op, "", plain(op, direction="bidirectional"), X, 2, 3), 17)
    outcome = prune(net.proto())
    layers = [next(x for x in cost.layers if x.op == op) for cost in (outcome.before, outcome.after)]
    for found, hidden, width in zip(layers, (HIDDEN, HIDDEN // 2), (WIDTH, WIDTH // 2), strict=True):
        assert found.params == 2 * GATES[op] * hidden * (width + hidden)
        assert found.macs == SEQUENCE * BATCH * found.params
    group = group_of(outcome.groups, "R", 2)
    assert group is not None
    assert group.macs == SEQUENCE * BATCH * (2 * GATES[op] * HIDDEN * (WIDTH + HIDDEN) + 2 * HIDDEN * 4)


@pytest.mark.parametrize("by_channel", [False, True])
def test_a_quantised_layer_is_scored_and_zeroed_by_what_its_numbers_mean(by_channel: bool) -> None:
    net = Net(17)
    y = quantised(by_channel=by_channel, dtype=np.uint8)(net, net.make(X, 2))
    net.read(y, 3)
    proto = net.proto()
    outcome = prune(proto)
    tracing = outcome.groups.tracing
    found = tracing.weight_value("W")
    assert found is not None and found.shape == (1, WIDTH, 4 * HIDDEN) and np.abs(found).max() < 1
    assert (tracing.stored_zero("W") == 100).all()
    labels = {g.name: g.exact for g in outcome.groups.groups}
    assert sorted(labels.values()) == [False, True]
    assert two_judges.check(proto, outcome.plan)
