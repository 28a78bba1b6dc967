"""Results in notebooks: one line, a table, pictures, data frames and a page, all made of the document of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cost import Cost, count_nonzeros, counts
from onnxprune.errors import UsageError
from onnxprune.report import data, numbers
from onnxprune.report.charts import charts_of
from onnxprune.report.difference import difference_json, pair
from onnxprune.report.tables import RecordTable, records_at, summary, tables_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Rows of a table that a notebook shows.
ROWS = 20
# The records of a result that tell most: the first of these that it has.
TELLING = ("search.trials", "curves", "models", "course", "weights", "quantised", "layers", "groups")

Document = dict[str, Any]


def _groups(of: Any) -> Document:
    return data.header("inspect") | data.inspection_json(of, counts.of_trace(of.tracing, of.model))


def _compressed(of: Any) -> Document:
    from onnxprune.report.compress import compress_data
    from onnxprune.report.low_rank import low_rank_data

    exact = {} if of.exact is None else compress_data(of.exact)
    return data.header("compress") | exact | ({} if of.low_rank is None else low_rank_data(of.low_rank))


def _sparsified(of: Any) -> Document:
    from onnxprune.report.sparsify import sparsify_data

    groups = of.report.groups
    nonzeros = count_nonzeros(groups, groups.model), count_nonzeros(groups, of.report.model)
    return data.header("report") | sparsify_data(of.report, nonzeros=nonzeros)


def _shrunk(of: Any) -> Document:
    from onnxprune.report.shrink import document

    return data.header("shrink") | document(of.report)


def _dropped(of: Any) -> Document:
    from onnxprune.report.drop import drop_data

    return data.header("report") | drop_data(of.report)


def _trained(of: Any) -> Document:
    from onnxprune.report.training import training_data

    return data.header("training") | training_data(of.report)


def _evaluated(of: Any) -> Document:
    from onnxprune.report.evaluation import evaluation_data

    return data.header("evaluation") | evaluation_data(of, [f"model {n}" for n in range(1, len(of.models) + 1)])


def _quantized(of: Any) -> Document:
    from onnxprune.report.quantize import quantize_data

    return data.header("report") | quantize_data(of.report)


def _chosen(of: Any) -> Document:
    from onnxprune.report.auto import auto_data

    return data.header("auto") | auto_data(getattr(of, "report", of))


# Class of a result -> what the command of the same name prints with `--json`.
DOCUMENTS: Mapping[str, Callable[[Any], Document]] = {
    "AutoOutcome": _chosen,
    "AutoResult": _chosen,
    "PruneResult": lambda of: data.header("report") | data.outcome_json(of.report),
    "Outcome": lambda of: data.header("report") | data.outcome_json(of),
    "Found": lambda of: data.header("report") | data.outcome_json(of.outcome) | {"search": of.as_json()},
    "CompressResult": _compressed,
    "DropResult": _dropped,
    "QuantizeResult": _quantized,
    "ShrinkResult": _shrunk,
    "SparsifyResult": _sparsified,
    "TrainResult": _trained,
    "Evaluated": _evaluated,
    "Sensitivity": lambda of: of.as_json(),
    "Groups": _groups,
    "Result": lambda of: data.header("bench") | {"models": data.benched_json([of])},
}


def document_of(result: Any) -> Document:
    """A result as plain data, with the layers of both models where it knows them.

    Args:
        result: of one of the classes of `DOCUMENTS`.
    """
    return _difference(result) | DOCUMENTS[type(result).__name__](result)


def _difference(result: Any) -> Document:
    """What `diff --json` prints of the models before and after; nothing where the result has not counted them."""
    for part in _parts(result):
        before, after = getattr(part, "before", None), getattr(part, "after", None)
        if isinstance(before, Cost) and isinstance(after, Cost):
            return difference_json(before, after, pair(before.layers, after.layers))
    return {}


def _parts(result: Any) -> Iterator[Any]:
    """What may have counted the models: the result, or what it is made of."""
    yield result
    for name in ("report", "outcome", "low_rank", "exact"):
        yield getattr(result, name, None)


def line_of(result: Any) -> str:
    """A result in one line.

    Args:
        result: as for `document_of`.
    """
    document = document_of(result)
    told = [f"{fact.name} {fact.before} -> {fact.after} ({fact.change})" for fact in summary(document)[:2]]
    if not told:
        lists = {name: len(records_at(document, name)) for name in document}
        told = [numbers.plural(n, name.removesuffix("s")) for name, n in lists.items() if n]
    if (proof := document.get("proof")) is not None:
        told.append("proven" if proof["ok"] else "not proven")
    return f"{type(result).__name__}({', '.join(told)})"


def html_of(result: Any) -> str:
    """The table that a notebook shows: costs before and after, or the records that tell most.

    Args:
        result: as for `document_of`.
    """
    document = document_of(result)
    facts = [(f.name, f.before, f.after, f.change) for f in summary(document)]
    line = f"<p>{escape(line_of(result))}</p>"
    if facts:
        return line + _table(("", "before", "after", "change"), facts)
    tables = tables_of(document)
    if not tables:
        return line
    table = _telling(tables)
    rest = len(table.rows) - ROWS
    more = f"<p>and {numbers.plural(rest, 'more row')}: to_dataframe()</p>" if rest > 0 else ""
    return line + _table(table.columns, table.shown()[:ROWS]) + more


def _table(header: tuple[str, ...], rows: list[Any]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _telling(tables: list[RecordTable]) -> RecordTable:
    named = {table.name: table for table in tables}
    return next((named[name] for name in TELLING if name in named), tables[0])


@dataclass(frozen=True)
class Drawing:
    """A drawn result.

    Attributes:
        figure: of matplotlib.
    """

    figure: Figure

    def save(self, file: str | Path) -> None:
        """Write it to a file: .svg, .png or .pdf.

        Raises:
            UsageError: the suffix is another one.
        """
        from onnxprune.report.picture import check_picture, saved

        check_picture(str(file))
        Path(file).write_bytes(saved(self.figure, Path(file).suffix.lower()))

    def _repr_svg_(self) -> str:
        from onnxprune.report.picture import saved

        return saved(self.figure, ".svg").decode()


def plot_of(result: Any) -> Drawing:
    """Draw a result.

    Args:
        result: as for `document_of`.

    Raises:
        UsageError: there is nothing to draw, or nothing to draw with.
    """
    from onnxprune.report.picture import check_library, figure_of

    check_library()
    charts = charts_of(document_of(result))
    if not charts:
        raise UsageError(f"there is nothing to draw of a {type(result).__name__}")
    return Drawing(figure_of(charts, line_of(result)))


def frame_of(result: Any, table: str = "") -> Any:
    """Make a data frame of records of a result.

    Args:
        result: as for `document_of`.
        table: which records; those that tell most if it is empty.

    Raises:
        UsageError: there are no such records, or there is no pandas.
    """
    try:
        import pandas
    except ImportError as error:
        raise UsageError("data frames need pandas", hint="pip install 'onnxprune[notebook]'") from error
    tables = {found.name: found for found in tables_of(document_of(result))}
    if not tables or (table and table not in tables):
        known = ", ".join(tables) or "none"
        raise UsageError(f"this {type(result).__name__} has no records called {table!r}", hint=f"known: {known}")
    chosen = tables[table] if table else _telling(list(tables.values()))
    return pandas.DataFrame(list(chosen.rows), columns=list(chosen.columns))


def page_of(result: Any) -> str:
    """Write the page of a result.

    Args:
        result: as for `document_of`.
    """
    from onnxprune.report.page import PageContent, page

    document = DOCUMENTS[type(result).__name__](result)
    return page(PageContent(line_of(result), document, _difference(result)))
