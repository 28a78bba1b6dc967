"""Every list of records of a document is a table."""

from __future__ import annotations

from onnxprune.report.tables import RecordTable, cell, summary, tables_of

DOCUMENT = {
    "groups": [{"name": "a", "units": 4}, {"name": "b", "units": 8, "io": [{"tensor": "x", "axis": 1}]}],
    "proof": {"ok": True, "outputs": {"y": 1e-7}, "checks": ["valid"]},
    "repair": {"fits": [{"node": "f", "before": 0.5, "after": 0.1, "groups": ["a", "b"]}]},
    "models": [
        {"name": "m", "inputs": {"x": [1, 3]}, "bytes": 2048, "timings": [
            {"batch": 1, "median": 0.002, "ratio": {"value": 1.0, "low": 0.9}}, {"batch": 8, "median": 0.004}]}
    ],
    "layers": [{"name": "c", "params": [20, 10], "before": [5, 4], "after": None}],
    "empty": [],
}  # fmt: skip


def found() -> dict[str, RecordTable]:
    return {table.name: table for table in tables_of(DOCUMENT)}


def test_lists_of_records_are_tables_at_their_place():
    assert list(found()) == ["groups", "proof.outputs", "repair.fits", "models", "layers"]
    assert found()["groups"].columns == ("name", "units", "io") and found()["groups"].rows[0] == ("a", 4, None)
    assert found()["proof.outputs"].rows == (("y", 1e-7),)
    assert found()["repair.fits"].title == "Repair, by layer" and RecordTable("io_x.y", (), ()).title == "Io x: y"


def test_records_inside_records_are_rows_or_fields():
    models = found()["models"]
    assert models.columns == ("name", "x", "bytes", "batch", "median", "value", "low")
    assert models.rows == (("m", [1, 3], 2048, 1, 0.002, 1.0, 0.9), ("m", [1, 3], 2048, 8, 0.004, None, None))
    assert models.shown()[0] == ("m", "1x3", "2.0 KiB", "1", "2.000 ms", "1", "0.9")
    assert models.numeric == (False, False, True, True, True, True, True)


def test_pairs_are_two_columns():
    layers = found()["layers"]
    assert layers.columns == ("name", "params before", "params after", "before", "after")
    assert layers.shown() == [("c", "20", "10", "5x4", "-")]


def test_cells_are_what_people_read():
    assert [cell("x", v) for v in (None, True, 1234567, 0.123456, [], "text")] == [
        "-", "yes", "1,234,567", "0.1235", "-", "text"
    ]  # fmt: skip
    assert cell("params", 1234567) == "1.2 M" and cell("reached", 0.5) == "50.0 %"
    assert cell("kept", list(range(9))) == "9 numbers" and cell("shape", [8] * 8) == "8x8x8x8x8x8x8x8"
    assert cell("names", list("abcdefghij")) == "a, b, c, d, e, f, g, h and 2 more"
    assert cell("members", [{"tensor": "w", "axis": 0}, {"tensor": "w", "axis": 1}, {"tensor": "b"}]) == "w, b"


def test_amounts_of_a_budget_are_written_as_its_kind_is():
    kinds = {"macs": 18_447_360, "size": 2048, "latency": 0.002}
    goals = [{"kind": kind, "most": x, "reached": x, "before": 2 * x} for kind, x in kinds.items()]
    for place in ("budgets", "steps.budgets"):
        rows = RecordTable(place, tuple(goals[0]), tuple(tuple(goal.values()) for goal in goals)).shown()
        assert [row[2:] for row in rows] == [("18.4 M", "36.9 M"), ("2.0 KiB", "4.0 KiB"), ("2.000 ms", "4.000 ms")]


def test_a_summary_takes_each_number_from_the_first_that_knows_it():
    facts = summary(
        {"before": {"bytes": 4096}, "after": {"bytes": 1024}},
        {"before": {"bytes": 1, "macs": 0}, "after": {"bytes": 1, "macs": 0}},
        {"before": 0.1, "after": 0.2},
    )
    assert [(f.name, f.before, f.after, f.change, f.left) for f in facts] == [
        ("MACs", "0", "0", "-", 1.0),
        ("bytes", "4.0 KiB", "1.0 KiB", "-75.0 %", 0.25),
    ]
