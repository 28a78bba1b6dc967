"""`--rows`: tables and classes of which the named rows stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import api
from onnxprune.allocation import Options, named_rows
from onnxprune.cli import main
from onnxprune.errors import GoalMissed, UsageError
from onnxprune.rewriting import Plan
from onnxprune.rewriting.io_changes import RowMap
from tests.graphs.net import INT32, INT64, Net, array_of, prune, run, shapes_of

KEPT = [3, 17, 4, 11, 19]
FLOW = sorted(KEPT)


def language_model(*, tied: bool = True, extra: Any = None) -> onnx.ModelProto:
    net = Net()
    ids = net.input(["batch", "time"], "ids", INT32)
    table = net.weight(20, 8, name="table")
    x = net.add("Gather", table, net.cast(net.add("Unsqueeze", ids, net.ints(0)), INT64))
    if extra is not None:
        extra(net, ids)
    x = net.add("Relu", net.add("MatMul", x, net.weight(8, 6, name="w1")))
    x = net.add("MatMul", net.add("Squeeze", x, net.ints(0)), net.weight(6, 8, name="w2"))
    head = net.add("Transpose", table, perm=[1, 0]) if tied else net.weight(8, 20, name="head")
    net.output(net.add("MatMul", x, head, name="logits"), ["batch", "time", 20])
    return net.proto()


def ids_of(kept: list[int]) -> np.ndarray:
    return np.random.default_rng(3).choice(kept, (2, 6)).astype(np.int32)


def mapped(ids: np.ndarray, table: RowMap) -> np.ndarray:
    new = {old: place for place, old in enumerate(table.kept)}
    return np.vectorize(new.get)(ids).astype(ids.dtype)


def check(proto: onnx.ModelProto, outcome: api.Outcome, columns: list[int]) -> None:
    """The original on kept ids, the smaller model on their new numbers."""
    assert outcome.verdict is not None
    assert outcome.verdict.ok, outcome.verdict.problem
    assert outcome.rolled_back == ()
    ids = ids_of(FLOW)
    table = next(m for m in outcome.rows if m.name == "table")
    assert table == RowMap("table", 20, ("ids",), tuple(FLOW))
    wanted = run(proto, feeds={"ids": ids})["logits"][..., columns]
    found = run(outcome.model, feeds={"ids": mapped(ids, table)})["logits"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_tied_projection_shrinks_with_its_table() -> None:
    proto = language_model()
    outcome = prune(proto, 0.0, rows={"table": KEPT}, allow_io_changes=True)
    check(proto, outcome, FLOW)
    assert shapes_of(outcome.model)["table"] == (5, 8)
    np.testing.assert_array_equal(array_of(outcome.model, "table"), array_of(proto, "table")[FLOW])
    assert [(c.name, c.before, c.after) for c in outcome.io_changes] == [("logits", 20, 5)]


def test_a_table_alone() -> None:
    proto = language_model(tied=False)
    outcome = prune(proto, 0.0, rows={"table": KEPT})
    check(proto, outcome, list(range(20)))
    assert shapes_of(outcome.model)["head"] == (8, 20)


def test_a_row_that_is_also_read_by_a_constant_follows() -> None:
    def first_row(net: Net, _: str) -> None:
        net.output(net.add("Gather", "table", net.ints(17), name="row"), [1, 8])

    proto = language_model(tied=False, extra=first_row)
    outcome = prune(proto, 0.0, rows={"table": KEPT})
    check(proto, outcome, list(range(20)))
    feeds = {"ids": ids_of(FLOW)}
    row = run(outcome.model, feeds={"ids": mapped(feeds["ids"], outcome.rows[0])})["row"]
    np.testing.assert_array_equal(row, run(proto, feeds=feeds)["row"])


def test_classes_of_an_output() -> None:
    proto = language_model(tied=False)
    outcome = prune(proto, 0.0, rows={"table": KEPT, "logits": [0, 7]}, allow_io_changes=True)
    check(proto, outcome, [0, 7])
    assert shapes_of(outcome.model)["head"] == (8, 2)
    assert RowMap("logits", 20, (), (0, 7)) in outcome.rows


def test_ratios_leave_the_rows_alone() -> None:
    outcome = prune(language_model(tied=False), 0.5, rows={"table": KEPT})
    assert outcome.verdict is not None
    assert outcome.verdict.ok
    assert shapes_of(outcome.model)["table"][0] == 5
    assert shapes_of(outcome.model)["w1"] == (4, 3)
    with pytest.raises(GoalMissed):  # all rows are kept, and nothing else is asked for
        prune(language_model(), 0.0, rows={"table": range(20)}, allow_io_changes=True, only=["table"], keep=["*"])


def test_without_the_option_rows_stay() -> None:
    outcome = prune(language_model(tied=False))
    assert shapes_of(outcome.model)["table"][0] == 20
    assert outcome.rows == ()


def equal_to_padding(net: Net, ids: str) -> None:
    mask = net.add("Equal", ids, net.const(np.array(0, np.int32)), name="is_padding")
    net.output(mask, ["batch", "time"], onnx.TensorProto.BOOL)


def other_table(net: Net, ids: str) -> None:
    net.output(net.add("Gather", net.weight(20, 2, name="other"), ids, name="more"), ["batch", "time", 2])


def echoed(net: Net, ids: str) -> None:
    net.output(net.add("Identity", ids, name="echo"), ["batch", "time"], INT32)


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (equal_to_padding, "Equal 'is_padding_node' looks at the ids themselves"),
        (other_table, "the same ids index 'other'"),
        (echoed, "are an output"),
    ],
)
def test_ids_that_mean_something_else_lock_the_rows(extra: Any, why: str) -> None:
    proto = language_model(tied=False, extra=extra)
    with pytest.raises(UsageError, match=why):
        prune(proto, rows={"table": KEPT})
    # The reason is a barrier too: no plan can remove what is locked.
    assert any(why in b.reason for b in api.trace(proto, rows=["table"]).barriers)


def test_computed_ids_lock_the_rows() -> None:
    net = Net()
    x = net.add("MatMul", net.input([2, 3]), net.weight(3, 6, name="w"))
    table = net.weight(6, 4, name="table")
    net.output(net.add("Gather", table, net.add("ArgMax", x, axis=1, keepdims=0), name="y"), [2, 4])
    with pytest.raises(UsageError, match="come from ArgMax"):
        prune(net.proto(), rows={"table": [1, 2]})


def test_two_tables_of_the_same_ids_keep_the_same_rows() -> None:
    proto = language_model(tied=False, extra=other_table)
    outcome = prune(proto, 0.0, rows={"table": KEPT, "other": KEPT})
    check(proto, outcome, list(range(20)))
    with pytest.raises(UsageError, match="must keep the same rows"):
        prune(proto, rows={"table": KEPT, "other": [1]})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"table": [20]}, "rows 0 to 19, not 20"),
        ({"table": [-1]}, "not -1"),
        ({"table": []}, "no id to keep"),
        ({"tabel": [1]}, "no table and no output called 'tabel'"),
        ({"logits": [1]}, "output, which must not shrink"),
        ({"table": [1]}, "must stay: graph output 'logits'"),
    ],
)
def test_what_does_not_fit_is_refused(given: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        prune(language_model(tied=given == {"table": [1]}), rows=given)


def test_the_plan_knows() -> None:
    proto = language_model()
    outcome = prune(proto, 0.0, rows={"table": KEPT}, allow_io_changes=True)
    plan = Plan.from_json(outcome.plan.to_json())
    assert plan.options["rows"] == ["table"]
    done = api.execute(api.load(proto), plan, verify=True)
    assert done.verdict is not None
    assert done.verdict.ok
    assert done.rows == outcome.rows


def test_repair_maps_the_ids_and_refuses_others() -> None:
    options = Options(ratio=0.5, rows={"table": KEPT})
    model = api.load(language_model(tied=False))
    outcome = api.run(model, options, data=[{"ids": ids_of(FLOW)}] * 4)
    assert outcome.recovery is not None
    with pytest.raises(UsageError, match="not kept"):
        api.run(model, options, data=[{"ids": ids_of([0, 1])}] * 4)


def test_between_steps_the_named_rows_stay_too() -> None:
    """The inputs hold ids of rows that stay, whatever their scores."""
    feeds = [{"ids": ids_of(FLOW)} for _ in range(8)]
    result = api.prune(language_model(tied=False), 0.5, "l2", rows={"table": KEPT}, data=feeds, steps=3)
    assert result.report.rows[0].kept == tuple(FLOW) and result.report.verdict.ok


@pytest.mark.parametrize("name", ["ids.txt", "ids.json", "ids.npy"])
def test_files_of_ids(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, np.array(KEPT))
    else:
        path.write_text(json.dumps(KEPT) if name.endswith(".json") else "\n".join(map(str, KEPT)))
    assert named_rows.read_rows(str(path)) == KEPT


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.txt", "1\nx"), ("a.json", "{}"), ("a.json", "[1.5]"), ("a.json", "["), ("a.npy", "no"), ("b.txt", "9" * 30)],
)
def test_bad_files_of_ids(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="rows"):
        named_rows.read_rows(str(tmp_path / name))


def test_the_command_writes_the_map(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, ids, out = tmp_path / "lm.onnx", tmp_path / "ids.txt", tmp_path / "small.onnx"
    onnx.save(language_model(), model)
    ids.write_text("\n".join(map(str, KEPT)))
    plan, beside = tmp_path / "plan.json", tmp_path / "small.onnx.rows.json"
    given = ["prune", str(model), "-r", "0", "--rows", f"table={ids}", "--allow-io-changes", "--plan-out", str(plan)]
    assert main([*given, "-o", str(out)]) == 0
    assert "table: 20 -> 5, map the ids in ids" in capsys.readouterr().out
    new = {str(old): place for place, old in enumerate(FLOW)}
    assert json.loads(beside.read_text())["rows"] == {"table": {"size": 20, "inputs": ["ids"], "new": new}}
    other = tmp_path / "again.onnx"
    assert main(["apply", str(model), str(plan), "-o", str(other)]) == 0
    assert (tmp_path / "again.onnx.rows.json").read_text() == beside.read_text()
    assert other.read_bytes() == out.read_bytes()
    out.unlink()
    plan.unlink()
    assert main([*given, "-o", str(out)]) == 2
    assert "small.onnx.rows.json exists" in capsys.readouterr().err
