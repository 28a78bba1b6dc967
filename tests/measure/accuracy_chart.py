"""The picture on the first screen of the README: accuracies beside those of the peers, from docs/accuracy.md.

    python -m tests.measure.accuracy_chart

It draws what `python -m tests.measure.accuracy_peers` has measured: for every network and peer the row with the fewest
multiply-accumulates left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE, PICTURE = ROOT / "docs" / "accuracy.md", ROOT / "docs" / "pictures" / "accuracy.svg"

# Pixels: of a row, and where the rows and the axis of accuracies begin and end.
ROW, TOP, LEFT, RIGHT, WIDTH = 30, 62, 304, 690, 720
HEADER = ("network", "peer", "MACs left", "the peer", "ours, no data", "ours, random", "ours, 256 pictures")
STYLE = """
  .ground { fill: #ffffff; } text { fill: #1f2328; font: 13px sans-serif; } .small { font-size: 12px; }
  .faint { fill: #59636e; } .grid { stroke: #d1d9e0; } .way { stroke: #b6bfc8; stroke-width: 2; }
  .peer { fill: #6e7781; } .cut { fill: #ffffff; stroke: #0969da; stroke-width: 2; } .ours { fill: #0969da; }
  .original { stroke: #1f2328; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } text { fill: #f0f6fc; } .faint { fill: #9198a1; } .grid { stroke: #3d444d; }
    .way { stroke: #57606a; } .peer { fill: #9198a1; } .cut { fill: #0d1117; stroke: #4493f8; } .ours { fill: #4493f8; }
    .original { stroke: #f0f6fc; }
  }
"""


@dataclass(frozen=True)
class Row:
    """Accuracies in % of one network with as many multiply-accumulates as a peer has left.

    Attributes:
        network: its name.
        peer: whose amount it is.
        left: the share of multiply-accumulates in %.
        original: of the network as it was.
        theirs: of the peer's model.
        cut: of ours without data.
        repaired: of ours with 256 unlabelled pictures.
    """

    network: str
    peer: str
    left: float
    original: float
    theirs: float
    cut: float
    repaired: float


def rows(page: str) -> list[Row]:
    """What the page's table says: for each network and peer, the row with the fewest multiply-accumulates left."""
    table = page[page.index(f"| {' | '.join(HEADER)} |") :].partition("\n\n")[0]
    found: dict[tuple[str, str], Row] = {}
    network = peer = ""
    for line in table.splitlines()[2:]:
        name, whose, *cells = (cell.strip("* `%") for cell in line.strip("|").split("|"))
        network, peer = name or network, whose or peer
        left, theirs, cut, _, repaired = map(float, cells)
        told = re.search(rf"\| `?{re.escape(network)}`? \((\d+\.\d+) %", page)
        assert told is not None, f"the page does not say the accuracy of {network}"
        row = Row(network, peer, left, float(told[1]), theirs, cut, repaired)
        known = found.get((network, peer))
        if known is None or left < known.left:
            found[network, peer] = row
    return list(found.values())


def place(accuracy: float) -> float:
    """Where an accuracy lies on the axis."""
    return round(LEFT + (RIGHT - LEFT) * accuracy / 100, 1)


def drawn(found: list[Row]) -> str:
    """The rows as an SVG that follows the reader's light or dark setting."""
    bottom = TOP + ROW * len(found)
    ticks = {accuracy: place(accuracy) for accuracy in range(0, 101, 20)}
    marks = [mark for number, row in enumerate(found) for mark in _row(row, TOP + ROW * number + 6)]
    title = "Accuracy after pruning, beside onnxsim and Torch-Pruning with the same MACs"
    return framed(title, bottom, ticks, _legend(), marks)


def framed(title: str, bottom: int, ticks: Mapping[int, float], legend: Sequence[str], marks: Sequence[str]) -> str:
    """A picture of rows over an axis of accuracies.

    Args:
        title: what readers that see no picture are told.
        bottom: where the rows end.
        ticks: accuracies in %, and where they lie on the axis.
        legend: what marks mean.
        marks: those of all rows.
    """
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + 44}" width="{WIDTH}" role="img" '
        f'aria-label="{title}">',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{bottom + 44}" rx="6"/>',
        *legend,
    ]
    for accuracy, x in ticks.items():
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP - 12}" y2="{bottom}"/>')
        parts.append(f'<text class="small faint" x="{x}" y="{bottom + 16}" text-anchor="middle">{accuracy} %</text>')
    middle = (min(ticks.values()) + max(ticks.values())) / 2
    said = f'<text class="small faint" x="{middle}" y="{bottom + 34}" text-anchor="middle">accuracy</text>'
    return "\n".join([*parts, *marks, said, "</svg>", ""])


def _legend() -> list[str]:
    return [
        '<circle class="peer" cx="22" cy="24" r="5"/><text class="small" x="34" y="28">the peer</text>',
        '<circle class="cut" cx="112" cy="24" r="4"/><text class="small" x="124" y="28">onnxprune, no data</text>',
        '<circle class="ours" cx="262" cy="24" r="6"/>'
        '<text class="small" x="274" y="28">onnxprune, 256 unlabelled inputs, no training</text>',
        '<line class="original" x1="562" x2="562" y1="17" y2="31"/>'
        '<text class="small" x="572" y="28">before pruning</text>',
    ]


def _row(row: Row, y: int) -> list[str]:
    start, end = place(row.theirs), place(row.repaired)
    label = f"{row.left:.0f} % of MACs, as {row.peer}"
    x = place(row.original)
    return [
        f'<text x="16" y="{y}">{escape(SHORT.get(row.network, row.network))}</text>',
        f'<text class="small faint" x="104" y="{y}">{escape(label)}</text>',
        f'<line class="way" x1="{start}" x2="{end}" y1="{y - 4}" y2="{y - 4}"/>',
        f'<line class="original" x1="{x}" x2="{x}" y1="{y - 12}" y2="{y + 4}"/>',
        f'<circle class="peer" cx="{start}" cy="{y - 4}" r="5"/>',
        f'<circle class="cut" cx="{place(row.cut)}" cy="{y - 4}" r="4"/>',
        f'<circle class="ours" cx="{end}" cy="{y - 4}" r="6"/>',
    ]


# Names of files that are too long for a picture.
SHORT = {
    "winml_pytorch_imageclassifier": "CIFAR CNN",
    "mlperf_kws_dscnn": "DS-CNN",
    "ort_cnn_mnist_pytorch": "MNIST CNN",
}


def main() -> None:
    """Write the picture."""
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(rows(TABLE.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
