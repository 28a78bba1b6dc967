"""The picture in docs/quantisation.md: widths and bits at equal size of the file, from the table beside it.

    python -m tests.measure.widths_and_bits_chart

It draws what `python -m tests.measure.widths_and_bits` has measured.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape

from tests.measure.accuracy_chart import ROOT, SHORT, TOP, framed

TABLE, PICTURE = ROOT / "docs" / "quantisation.md", ROOT / "docs" / "pictures" / "widths_and_bits.svg"
HEADER = "| | float | bits alone, larger file | widths alone | together |"
# Accuracies in % at both ends of the axis; pixels of a row, and where the axis begins and ends.
LEAST, MOST = 84, 100
ROW, LEFT, RIGHT = 34, 220, 690
LEGEND = (
    '<circle class="peer" cx="22" cy="24" r="5"/><text class="small" x="34" y="28">widths alone, 8 bits</text>',
    '<circle class="ours" cx="182" cy="24" r="6"/><text class="small" x="194" y="28">widths and bits</text>',
    '<circle class="cut" cx="312" cy="24" r="4"/>'
    '<text class="small" x="324" y="28">bits alone, a file 1.4 times as large</text>',
    '<line class="original" x1="562" x2="562" y1="17" y2="31"/><text class="small" x="572" y="28">in float</text>',
)


@dataclass(frozen=True)
class Row:
    """Accuracies in % of one network.

    Attributes:
        network: its name.
        original: in float.
        bits: with 4 bits in all layers, in a larger file.
        widths: narrower, with 8 bits in all layers.
        both: with widths and bits chosen together, in a file as large as that of `widths`.
    """

    network: str
    original: float
    bits: float
    widths: float
    both: float


def rows(page: str) -> list[Row]:
    """What the page's table says."""
    table = page[page.index(HEADER) :].partition("\n\n")[0]
    found = []
    for line in table.splitlines()[2:]:
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        found.append(Row(name, *(float(re.findall(r"([\d.]+) %", cell)[-1]) for cell in cells)))
    return found


def place(accuracy: float) -> float:
    """Where an accuracy lies on the axis."""
    return round(LEFT + (RIGHT - LEFT) * (accuracy - LEAST) / (MOST - LEAST), 1)


def drawn(found: list[Row]) -> str:
    """The rows as an SVG that follows the reader's light or dark setting."""
    bottom = TOP + ROW * len(found)
    ticks = {accuracy: place(accuracy) for accuracy in range(LEAST, MOST + 1, 4)}
    marks = [mark for number, row in enumerate(found) for mark in _row(row, TOP + ROW * number + 10)]
    title = "Accuracy of files of equal size: widths alone, and widths and bits together"
    return framed(title, bottom, ticks, LEGEND, marks)


def _row(row: Row, y: int) -> list[str]:
    """Marks of one network; what would hide another mark lies above or below it."""
    original, widths, both, bits = map(place, (row.original, row.widths, row.both, row.bits))
    return [
        f'<text x="16" y="{y + 4}">{escape(SHORT.get(row.network, row.network))}</text>',
        f'<line class="way" x1="{widths}" x2="{both}" y1="{y}" y2="{y}"/>',
        f'<line class="original" x1="{original}" x2="{original}" y1="{y - 10}" y2="{y + 10}"/>',
        f'<circle class="peer" cx="{widths}" cy="{y + 6}" r="5"/>',
        f'<circle class="cut" cx="{bits}" cy="{y - 8}" r="4"/>',
        f'<circle class="ours" cx="{both}" cy="{y}" r="6"/>',
    ]


def main() -> None:
    """Write the picture."""
    PICTURE.write_text(drawn(rows(TABLE.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
