"""What the surroundings of a model demand of its sizes: states that are handed on, widths that are stated once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Kind of a group ("channel", "head" or "head dim"), and how many units it has.
Width = tuple[str, int]


@dataclass(frozen=True)
class HeldWidths:
    """Widths that are stated in one place for many layers, as in the configuration of a language model.

    All groups of these kinds that have so many units lose the same share of them.

    Attributes:
        widths: the widths; where there are several, their proportions are stated, too.
        locked: why nothing may go; empty where units may.
        places: axes of inputs and outputs that have one of the widths: (the width, name, axis). Where one stays, so do
            all.
    """

    widths: tuple[Width, ...]
    locked: str = ""
    places: tuple[tuple[Width, str, int], ...] = ()


@dataclass(frozen=True)
class Couplings:
    """Sizes that must agree though no operator of the graph says so.

    Attributes:
        states: pairs of an output and an input that hold one state: the caller hands the first to the second.
        widths: the widths that are stated once.
        files: where graphs of several files stand side by side: name of each -> its digest.
    """

    states: tuple[tuple[str, str], ...] = ()
    widths: tuple[HeldWidths, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
