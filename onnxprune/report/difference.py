"""Two models, layer by layer, as lines of text and as plain data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from onnxprune.cost import counts
from onnxprune.report import numbers
from onnxprune.report.data import cost
from onnxprune.report.text import costs, table

if TYPE_CHECKING:
    from onnxprune.cost import Cost
    from onnxprune.cost.counts import LayerCost
    from onnxprune.model import Model

# How two layers were found to be the same.
NAME, WEIGHT, STRUCTURE = "name", "weight", "structure"


@dataclass(frozen=True)
class LayerChange:
    """One layer in two models; the one of both that does not have it is None.

    Attributes:
        old: the layer in the first model.
        new: the layer in the second model.
        matched: how the two were found to be the same: by "name", "weight" or "structure"; empty where one is None.
    """

    old: LayerCost | None
    new: LayerCost | None
    matched: str = ""

    @property
    def one(self) -> LayerCost:
        """The layer in the first model that has it."""
        found = self.old or self.new
        assert found is not None
        return found

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.one.name

    @property
    def before(self) -> tuple[int, ...] | None:
        """Shape of the weight in the first model."""
        return None if self.old is None else self.old.shape

    @property
    def after(self) -> tuple[int, ...] | None:
        """Shape of the weight in the second model."""
        return None if self.new is None else self.new.shape

    def counts(self, field: str) -> tuple[int, int]:
        """A number of the layer in both models, 0 where it is not: "params", "macs" or "width"."""
        return tuple(0 if x is None else getattr(x, field) for x in (self.old, self.new))  # type: ignore[return-value]

    @property
    def changed(self) -> bool:
        """Whether anything but the name differs."""
        return self.before != self.after or any(len({*self.counts(f)}) > 1 for f in ("params", "macs"))


def pair(before: Sequence[LayerCost], after: Sequence[LayerCost]) -> list[LayerChange]:
    """Match the layers of two models, in the order of the first; then those that only the second has.

    Layers of one name are the same, then layers whose weights have a name that no other weight has. Of the others,
    those are the same that stand in the same order between these, and have operator and kernel in common.

    Args:
        before: layers of the first model, in graph order.
        after: layers of the second model.

    Returns:
        Every layer once.
    """
    found = _by_key(before, after, {}, _numbered_names)
    how = dict.fromkeys(found, NAME)
    found |= _by_key(before, after, found, _unique_weights)
    how |= dict.fromkeys(found.keys() - how.keys(), WEIGHT)
    found |= _by_structure(before, after, found)
    how |= dict.fromkeys(found.keys() - how.keys(), STRUCTURE)
    kept = [LayerChange(x, after[found[i]] if i in found else None, how.get(i, "")) for i, x in enumerate(before)]
    return [*kept, *(LayerChange(None, x) for j, x in enumerate(after) if j not in found.values())]


Keys = Callable[[Sequence["LayerCost"]], list[object]]


def _by_key(
    before: Sequence[LayerCost], after: Sequence[LayerCost], known: dict[int, int], keys: Keys
) -> dict[int, int]:
    """Places of layers in both models that have the same key and are not known yet."""
    places = {key: j for j, key in enumerate(keys(after)) if key is not None and j not in known.values()}
    wanted = {i: key for i, key in enumerate(keys(before)) if i not in known}
    return {i: places[key] for i, key in wanted.items() if key in places}


def _numbered_names(layers: Sequence[LayerCost]) -> list[object]:
    """Names; equal ones are told apart by their order."""
    seen = Counter[str]()
    found: list[object] = []
    for x in layers:
        found.append((x.name, seen[x.name]) if x.name else None)
        seen[x.name] += 1
    return found


def _unique_weights(layers: Sequence[LayerCost]) -> list[object]:
    """Names of weights that one layer alone has."""
    seen = Counter(x.weight for x in layers)
    return [x.weight if x.weight and seen[x.weight] == 1 else None for x in layers]


def _by_structure(before: Sequence[LayerCost], after: Sequence[LayerCost], known: dict[int, int]) -> dict[int, int]:
    """Places of layers in both models that stand in the same order between the known ones, and are of one kind."""
    found, taken = dict[int, int](), {*known.values()}
    ends = [(-1, -1), *sorted(known.items()), (len(before), len(after))]
    for (i, j), (to_i, to_j) in pairwise(ends):
        old, new = ([_kind(x) for x in some] for some in (before[i + 1 : to_i], after[j + 1 : max(j + 1, to_j)]))
        for block in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks():
            places = [(i + 1 + block.a + k, j + 1 + block.b + k) for k in range(block.size)]
            found |= {x: y for x, y in places if y not in taken}
            taken |= {y for _, y in places}  # names that changed their order leave places that overlap
    return found


def _kind(of: LayerCost) -> tuple[str, bool, tuple[int, ...]]:
    return of.op, bool(of.weight), of.shape[2:] if of.weight else ()


def difference_lines(before: Cost, after: Cost, layers: Sequence[LayerChange], *, every: bool) -> list[str]:
    """Costs, and the layers that changed."""
    shown = [layer for layer in layers if every or layer.changed]
    header = ("layer", "op", "weight before", "weight after", "params", "MACs")
    rows = [
        (
            _names(x),
            x.one.op,
            _shape(x.before),
            _shape(x.after),
            numbers.change(*x.counts("params")),
            numbers.change(*x.counts("macs")),
        )
        for x in shown
    ]
    lines = [*costs(before, after), ""]
    if rows:
        lines += table(header, rows, ("params", "MACs"))
    same = len(layers) - sum(layer.changed for layer in layers)
    if same and not every:
        lines.append(f"{numbers.plural(same, 'layer')} unchanged")
    return lines


def _names(of: LayerChange) -> str:
    other = of.new.name if of.old and of.new and of.new.name != of.name else ""
    return f"{of.name} -> {other}" if other else of.name


def _shape(shape: Iterable[int] | None) -> str:
    return "-" if shape is None else "x".join(map(str, shape)) or "scalar"


def difference_of(first: Model, second: Model, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Compare two models, layer by layer, and count the other nodes.

    Args:
        first: before.
        second: after.
        sizes: numbers for symbolic dims.

    Returns:
        What `diff --json` prints of them.
    """
    before, after = counts.of(first, sizes), counts.of(second, sizes)
    found = difference_json(before, after, pair(before.layers, after.layers))
    return found | {"operators": operators_changed(first, second)}


def operators_changed(first: Model, second: Model) -> dict[str, list[int]]:
    """Operators of which the models have not equally many nodes: how many before and after."""
    old, new = (Counter(node.op_type for node in model.proto.graph.node) for model in (first, second))
    return {name: [old[name], new[name]] for name in sorted({*old, *new}) if old[name] != new[name]}


def difference_json(before: Cost, after: Cost, layers: Sequence[LayerChange]) -> dict[str, Any]:
    """Costs and layers of two models."""
    return {"before": cost(before), "after": cost(after), "layers": [_layer(x) for x in layers]}


def _layer(of: LayerChange) -> dict[str, Any]:
    return {
        "name": of.name,
        "new_name": of.new.name if of.new else None,
        "matched": of.matched or None,
        "op": of.one.op,
        "weight": of.one.weight,
        "before": None if of.before is None else list(of.before),
        "after": None if of.after is None else list(of.after),
        **{field: list(of.counts(field)) for field in ("width", "params", "macs")},
    }
