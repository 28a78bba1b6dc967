"""Results that people look at, in a notebook or elsewhere; whatever draws them is imported when it is asked for."""

from __future__ import annotations

from typing import Any

from onnxprune.lazy import on_first_use

_drawn = on_first_use(
    __name__,
    dict.fromkeys(("line_of", "html_of", "plot_of", "frame_of", "page_of"), "onnxprune.report.notebook"),
)


class Shown:
    """A result with a short text, a table for notebooks, pictures, data frames and a page."""

    def __repr__(self) -> str:
        return str(_drawn("line_of")(self))

    def _repr_html_(self) -> str:
        """The table that a notebook shows."""
        return str(_drawn("html_of")(self))

    def plot(self) -> Any:
        """Draw all that there is to draw; notebooks show it, `save("file.pdf")` writes it. Needs matplotlib.

        Returns:
            A `Drawing`, whose `figure` is matplotlib's.

        Raises:
            UsageError: there is nothing to draw, or nothing to draw with.
        """
        return _drawn("plot_of")(self)

    def to_dataframe(self, table: str = "") -> Any:
        """Make a data frame of records. Needs pandas.

        Args:
            table: which records: `groups`, `layers`, `repair.fits`; those that tell most if it is empty.

        Returns:
            A row for every record.

        Raises:
            UsageError: there are no such records, or there is no pandas.
        """
        return _drawn("frame_of")(self, table)

    def to_html(self) -> str:
        """Write the page that `--report` writes, without the command and the files."""
        return str(_drawn("page_of")(self))
