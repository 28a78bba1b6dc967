"""Tables of a document that `--json` prints: every list of records in it is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from onnxprune.report import numbers

# Lists of records that stand inside a record, and give it a row for each.
ROWS_OF_THEIR_OWN = ("points", "timings")
# Lists that hold a number before and a number after.
PAIRS = ("width", "params", "macs", "elements", "nodes", "sizes")
# Mappings that are tables of two columns.
LISTS = ("options", "seconds", "outputs", "inside", "operators")
# Names in a cell.
LISTED = 8
# Amounts of a budget, and the columns that are written as amounts of its kind are; those of other kinds are counts.
AMOUNTS = ("most", "reached", "before")
AMOUNTS_OF: Mapping[str, str] = {"size": "bytes", "memory": "bytes", "latency": "median"}
# Place in a document -> what people call the table; other tables are called by their place.
TITLES: Mapping[str, str] = {
    "layers": "Layers",
    "groups": "Groups",
    "blocks": "Blocks",
    "weights": "Weights",
    "removed": "Removed units",
    "steps": "Steps",
    "curves": "What cutting each group costs",
    "models": "Models",
    "search.trials": "Models that were tried",
    "budgets": "Budgets",
    "barriers": "Locked, and why",
    "left": "Left as it is, and why",
    "io_changes": "Inputs and outputs that changed",
    "repair.fits": "Repair, by layer",
    "repair.damage": "Repair, by group",
    "training.course": "Training, step by step",
    "course": "Training, step by step",
    "proof.outputs": "Proof: largest error of each output",
    "proof.inside": "Proof: largest error of tensors inside",
    "operators": "Other nodes, before and after",
    "options": "Options",
    "seconds": "Seconds of each stage",
}


@dataclass(frozen=True)
class RecordTable:
    """Records of one kind.

    Attributes:
        name: its place in the document: `groups`, `repair.fits`.
        columns: names of the fields.
        rows: plain values, one for each column; None where a record has no such field.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @property
    def title(self) -> str:
        """What people call it."""
        return TITLES.get(self.name, self.name.replace("_", " ").replace(".", ": ").capitalize())

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers alone."""
        columns = zip(*self.rows, strict=True)
        return tuple(all(x is None or _is_number(x) for x in column) for column in columns)

    def shown(self) -> list[tuple[str, ...]]:
        """The rows as people read them."""
        records = [dict(zip(self.columns, row, strict=True)) for row in self.rows]
        return [tuple(cell(self._written(name, of), x) for name, x in of.items()) for of in records]

    def _written(self, column: str, of: Mapping[str, Any]) -> str:
        """The column whose numbers are written like these."""
        is_amount = self.name.endswith("budgets") and column in AMOUNTS
        return AMOUNTS_OF.get(of.get("kind", ""), "macs") if is_amount else column


def tables_of(document: Mapping[str, Any]) -> list[RecordTable]:
    """Find the tables of a document.

    Args:
        document: what a command prints with `--json`.

    Returns:
        The tables that have rows, in the order of the document.
    """
    return [_table(place, records) for place, records in _records(document, "")]


def _records(of: Mapping[str, Any], place: str) -> Iterator[tuple[str, Sequence[Mapping[str, Any]]]]:
    for name, value in of.items():
        here = f"{place}{name}"
        if isinstance(value, Mapping):
            told = [{"name": key, "value": x} for key, x in value.items() if x not in (None, [], {}, "")]
            if name in LISTS and told:
                yield here, told
            else:
                yield from _records(value, f"{here}.")
        elif found := records_at(of, name):
            yield here, found


def records_at(of: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    """The records that a field holds; none where it holds something else."""
    value = of.get(name)
    return value if isinstance(value, list | tuple) and all(isinstance(x, Mapping) for x in value) else ()


def _table(place: str, records: Sequence[Mapping[str, Any]]) -> RecordTable:
    flat = [row for record in records for row in _flat(record)]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    return RecordTable(place, tuple(columns), tuple(tuple(row.get(name) for name in columns) for row in flat))


def _flat(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A record without records inside: these become fields of its own, or rows."""
    own: dict[str, Any] = {}
    inner: list[Mapping[str, Any]] = []
    for name, value in record.items():
        if name in ROWS_OF_THEIR_OWN:
            inner = value
        elif isinstance(value, Mapping):
            nested = {} if _is_document(value) else value
            own |= {(f"{name} {key}" if key in own or key in record else key): x for key, x in nested.items()}
        elif name in PAIRS and isinstance(value, list | tuple) and len(value) == 2:
            own |= {f"{name} before": value[0], f"{name} after": value[1]}
        else:
            own[name] = value
    if not inner:
        yield own
    for part in inner:
        for row in _flat(part):
            yield own | {(f"{name} of the run" if name in own else name): x for name, x in row.items()}


def _is_document(of: Mapping[str, Any]) -> bool:
    """Whether there is more in it than fields of a record."""
    lists = [x for x in of.values() if isinstance(x, list | tuple)]
    return any(isinstance(x, Mapping) for x in (*of.values(), *(x for some in lists for x in some)))


# Last word of a column -> how its numbers are written.
_WRITTEN: Mapping[str, Callable[[float], str]] = {
    **dict.fromkeys(("bytes", "size", "memory", "file"), numbers.bytes_text),
    **dict.fromkeys(("params", "macs"), numbers.count),
    **dict.fromkeys(("median", "p95"), numbers.duration),
    "joules": numbers.energy,
    **dict.fromkeys(("share", "reached", "top1"), numbers.percent),
}


def cell(column: str, value: Any) -> str:
    """A value as people read it.

    Args:
        column: the name of its field, which says how numbers are written.
        value: plain data.
    """
    if value is None or value == "" or value in ([], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if _is_number(value):
        write = _WRITTEN.get(column.removesuffix(" before").removesuffix(" after"))
        return write(value) if write else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return _listed(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell(name, x)}" for name, x in value.items())
    return str(value)


def _listed(values: Sequence[Any]) -> str:
    """A shape, names, or what stands for records: their first fields, each once."""
    if all(_is_number(x) for x in values):
        return "x".join(map(str, values)) if len(values) <= LISTED else f"{len(values):,} numbers"
    firsts = [next(iter(x.values()), "") if isinstance(x, Mapping) else x for x in values]
    names = list(dict.fromkeys(str(x) for x in firsts))
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Fact:
    """A number that a result has of both models.

    Attributes:
        name: what is counted.
        before: of the first model, as people read it.
        after: of the second model.
        change: relative to the first.
        left: what is left, as a share of the first.
    """

    name: str
    before: str
    after: str
    change: str
    left: float


# Field of `before` and `after` -> what people call it.
_COUNTED = {
    "params": "params",
    "macs": "MACs",
    "nonzeros": "non-zeros",
    "nodes": "nodes",
    "bytes": "bytes",
    "file": "file",
}


def summary(*documents: Mapping[str, Any]) -> list[Fact]:
    """Compare what models cost before and after.

    Args:
        documents: any of which may have `before` and `after`; the first that has a number says it.

    Returns:
        A fact for each number that is known of both.
    """
    found: dict[str, Fact] = {}
    for document in documents:
        before, after = document.get("before"), document.get("after")
        if before is None and isinstance(document.get("bytes"), Mapping):  # a report of files alone
            before, after = ({"file": document["bytes"].get(side)} for side in ("before", "after"))
        if not isinstance(before, Mapping) or not isinstance(after, Mapping):
            continue
        for field, name in _COUNTED.items():
            old, new = before.get(field), after.get(field)
            if _is_number(old) and _is_number(new) and name not in found:
                write = numbers.bytes_text if field in ("bytes", "file") else numbers.count
                left = new / old if old else 1.0
                found[name] = Fact(name, write(old), write(new), numbers.change(old, new), left)
    return [found[name] for name in _COUNTED.values() if name in found]
