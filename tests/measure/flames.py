"""Where the time of some work goes, as a picture: which calls its thread is in, looked at every few milliseconds."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from html import escape
from itertools import groupby
from types import FrameType

# Seconds between two looks.
EVERY = 0.02
# Pixels: of the picture, of a row and of a letter.
WIDTH, ROW, LETTER = 960, 20, 6.4
# Calls of a smaller share of the time are left out.
LEAST = 0.004
STYLE = """
  .ground { fill: #ffffff; } text { fill: #1f2328; font: 11px sans-serif; }
  rect { stroke: #ffffff; } .call { fill: #b6d7f7; } .native { fill: #f7cfa0; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; } text { fill: #f0f6fc; } rect { stroke: #0d1117; }
    .call { fill: #1f4a78; } .native { fill: #7a4a14; }
  }
"""
# The calls that a thread is in, the outermost first; those of other packages but the first are left out.
Stack = tuple[str, ...]


@contextmanager
def watched() -> Iterator[Counter[Stack]]:
    """Count the stacks of this thread while the block runs."""
    found: Counter[Stack] = Counter()
    ended, thread = threading.Event(), threading.get_ident()

    def look() -> None:
        while not ended.wait(EVERY):
            found[_stack(sys._current_frames()[thread])] += 1

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        ended.set()
        watcher.join()


def _stack(frame: FrameType | None) -> Stack:
    """The calls of the product in a frame, and the first call of another package behind them."""
    names: list[str] = []
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("onnxprune."):
            names.append(f"{module.rpartition('.')[2]}.{frame.f_code.co_name}")
        elif not names or names[-1].startswith("("):
            names[-1:] = [f"({module.partition('.')[0]} {frame.f_code.co_name})"]
        frame = frame.f_back
    inner = names[0] if names and names[0].startswith("(") else ""
    outer = [name for name in reversed(names) if not name.startswith("(")]
    return tuple([name for name, _ in groupby(outer)] + [inner] * bool(inner and outer))


def drawn(parts: Iterable[tuple[str, Counter[Stack]]]) -> str:
    """Draw stacks as an SVG: a call lies below its caller, and is as wide as its share of the time.

    Args:
        parts: the name of some work, and its stacks.
    """
    stacks = Counter({(name, *stack): count for name, found in parts for stack, count in found.items()})
    boxes = list(_boxes(stacks, 0, 0.0, WIDTH / max(1, sum(stacks.values()))))
    height = ROW * (1 + max((row for row, *_ in boxes), default=0))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" role="img" '
        'aria-label="Calls, each as wide as its share of the time, below the one that makes it">',
        f'<style>{STYLE}</style><rect class="ground" width="{WIDTH}" height="{height}"/>',
    ]
    for row, left, width, name in boxes:
        share, shown = f"{width / WIDTH:.1%}", name if len(name) * LETTER < width else name.rpartition(".")[2]
        kind = "native" if name.startswith("(") else "call"
        label = f'<text x="{left + 3:.1f}" y="{ROW * row + 14}">{escape(shown)}</text>'
        lines.append(
            f'<g><title>{escape(name)}: {share}</title><rect class="{kind}" x="{left:.1f}" y="{ROW * row}" '
            f'width="{width:.1f}" height="{ROW}"/>{label if len(shown) * LETTER < width else ""}</g>'
        )
    return "\n".join([*lines, "</svg>", ""])


def _boxes(stacks: Counter[Stack], row: int, left: float, unit: float) -> Iterator[tuple[int, float, float, str]]:
    """(row, left end, width, name) of every call that is wide enough; the widest of a caller come first."""
    inside: dict[str, Counter[Stack]] = {}
    for stack, count in stacks.items():
        if stack:
            inside.setdefault(stack[0], Counter())[stack[1:]] += count
    for name, found in sorted(inside.items(), key=lambda item: -sum(item[1].values())):
        width = unit * sum(found.values())
        if width >= LEAST * WIDTH:
            yield row, left, width, name
            yield from _boxes(found, row + 1, left, unit)
            left += width
