"""Regions of a graph that may be blocks: between a tensor that enters and one of the same shape that leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush

from onnxprune.model.data_flow import DataFlow
from onnxprune.model.graph import first_output
from onnxprune.model.traits import traits_of

BLOCK, BRANCH, RUN = "block", "branch", "run"


@dataclass(frozen=True)
class BlockRegion:
    """What lies between two tensors.

    Attributes:
        entry: the tensor that enters.
        exit: the tensor that leaves.
        places: the steps in between.
        kind: of a block.
    """

    entry: str
    exit: str
    places: frozenset[int]
    kind: str = BLOCK

    def with_belonging(self, flow: DataFlow) -> BlockRegion:
        """The same with the steps outside that work for it alone."""
        return replace(self, places=self.places | flow.belonging(self.places, self.entry, self.exit))

    def problem(self, flow: DataFlow) -> str:
        """Why it must stay: what it makes is read outside, and is not a size that the stream has as well."""
        for tensor, place in flow.leaving(self.places, self.exit):
            if place is None:
                continue
            node = flow.steps[place].nodes[-1]
            if not (traits_of(node).tells_sizes and flow.alike(tensor, self.entry)):
                return f"{node.op_type} {node.name or first_output(node)!r} outside of it reads {tensor!r}"
        return ""

    def is_across(self, other: BlockRegion) -> bool:
        """Whether both have steps in common, and each has some of its own."""
        common = self.places & other.places
        return bool(common) and common != self.places and common != other.places

    def signature(self, flow: DataFlow) -> tuple[str, ...]:
        """The operators that make it what it is, in order: all but those that work position by position, or move."""
        return tuple(flow.steps[i].nodes[-1].op_type for i in sorted(self.places) if _is_telling(flow, i))


def _is_telling(flow: DataFlow, place: int) -> bool:
    row = traits_of(flow.steps[place].nodes[-1])
    return bool(flow.data_reads[place]) and not (row.elementwise or row.moves or row.joins or row.same_shape)


@dataclass(frozen=True, eq=False)
class RegionSearch:
    """The search for regions of a graph."""

    flow: DataFlow

    def region(self, entry: str, exit: str, kind: str = BLOCK) -> BlockRegion:
        """What lies between two tensors."""
        return BlockRegion(entry, exit, frozenset(self.flow.between(entry, exit)), kind)

    def is_everything(self, region: BlockRegion) -> bool:
        """Whether no product would be left."""
        return self.flow.heavy <= region.places

    # --- residual branches -------------------------------------------------------------------------------

    def branches(self) -> list[BlockRegion]:
        """The least regions that end in a sum, without those inside of others that are no chain of several."""
        found: dict[frozenset[int], BlockRegion] = {}
        for place, step in enumerate(self.flow.steps):
            if len(step.nodes) == 1 and traits_of(step.nodes[0]).adds:
                for exit in self._sums(place):
                    region = self._branch(exit)
                    if region is not None:
                        found.setdefault(region.places & self.flow.heavy, region)
        return list(_innermost(self._apart([*found.values()])))

    def _apart(self, regions: Sequence[BlockRegion]) -> list[BlockRegion]:
        """The regions without those that must stay and lie across one that may go, neither inside of the other.

        Such a one begins in a mask or a table of distances that a layer adds to its scores, and ends in the scores of
        the next layer.
        """
        across = [r for r in regions if any(map(r.is_across, regions))]
        free = [r for r in across if not r.with_belonging(self.flow).problem(self.flow)]
        return [r for r in regions if r not in across or r in free or not any(map(r.is_across, free))]

    def _sums(self, place: int) -> Iterator[str]:
        """What a step that adds makes of several tensors of one shape: behind a fused norm too."""
        for exit in (o for o in self.flow.steps[place].output if o):
            if self.flow.is_float(exit) and len(self._carried(exit)[0]) > 1:
                yield exit

    def _carried(self, tensor: str) -> tuple[list[str], bool]:
        """The tensors of the same shape that a tensor is made of position by position, and whether it is so made."""
        node = self.flow.node(tensor)
        if node is None:
            return [], False
        row, reads = traits_of(node), self.flow.data_reads[self.flow.producer[tensor]]
        if not (row.elementwise or row.adds or row.norm or (row.same_shape and len(reads) == 1 and row.homogeneous)):
            return [], False
        return [name for name in reads if self.flow.dims(name) == self.flow.dims(tensor) is not None], True

    def _branch(self, exit: str) -> BlockRegion | None:
        """The least region with products that ends in the sum `exit`; it begins in front of a norm that both share."""
        found: BlockRegion | None = None
        for entry in self._entries(exit):
            region = self.region(entry, exit)
            products = region.places & self.flow.heavy
            if found is None:
                if products:
                    found = self._from_source(region)
            elif products != found.places & self.flow.heavy:
                break
            elif self._read_alike(entry, exit) and self._leaks(region) <= self._leaks(found):
                return region
        return found

    def _from_source(self, region: BlockRegion) -> BlockRegion:
        """The region from the tensor on that what enters is a copy of, as no-op casts make them."""
        while (node := self.flow.node(region.entry)) is not None and node.input:
            row, source = traits_of(node), node.input[0]
            longer = self.region(source, region.exit) if row.same or row.retypes else None
            if longer is None or not self._fits(source, region.exit) or not self._leaks(longer) <= self._leaks(region):
                break
            region = longer
        return region

    def _entries(self, exit: str) -> Iterator[str]:
        """The tensors, backwards, that all that a sum is made of is made of, or depends on."""
        order, ends, seen = [(0, "")], list[str](), {exit}
        order.clear()
        tensor = exit
        while True:
            names, is_carried = self._carried(tensor)
            if not is_carried or not names:
                ends.append(tensor)
            for name in names:
                if name not in seen:
                    seen.add(name)
                    heappush(order, (-self.flow.producer.get(name, -1), name))
            if not order:
                return
            tensor = heappop(order)[1]
            if not order and self._fits(tensor, exit) and all(self.flow.depends(end, tensor) for end in ends):
                yield tensor

    def _fits(self, entry: str, exit: str) -> bool:
        return self.flow.alike(entry, exit) and self.flow.is_float(entry)

    def _read_alike(self, entry: str, exit: str) -> bool:
        """Whether both are sums that the same kinds of nodes read."""
        node = self.flow.node(entry)
        return node is not None and traits_of(node).adds and self._kinds(entry) == self._kinds(exit)

    def _kinds(self, tensor: str) -> set[str]:
        steps = (self.flow.steps[i] for i in self.flow.consumers.get(tensor, ()))
        return {step.nodes[-1].op_type for step in steps if not traits_of(step.nodes[-1]).tells_sizes}

    def _leaks(self, region: BlockRegion) -> set[str]:
        """The tensors that are made inside and read outside, but for what leaves."""
        return {tensor for tensor, _ in self.flow.leaving(region.places, region.exit)}

    def grouped(self, chain: Sequence[BlockRegion], unit: Sequence[tuple[str, ...]]) -> Iterator[BlockRegion]:
        """The branches of a chain; where they are those of a unit that repeats, behind the block that they are."""
        at = 0
        while at < len(chain):
            part = chain[at : at + len(unit)]
            if len(unit) > 1 and [region.signature(self.flow) for region in part] == list(unit):
                yield self.region(part[0].entry, part[-1].exit)
                yield from (replace(region, kind=BRANCH) for region in part)
                at += len(unit)
            else:
                yield chain[at]
                at += 1

    # --- runs --------------------------------------------------------------------------------------------

    def runs(self) -> Iterator[BlockRegion]:
        """The least regions without a skip."""
        found: dict[frozenset[int], BlockRegion] = {}
        for place in sorted(self._dominators):
            for exit in (o for o in self.flow.steps[place].output if o and self.flow.is_float(o)):
                region = self._run(place, exit)
                if region is not None and not self._leaks(region):
                    key = region.places & self.flow.heavy
                    if key not in found or len(region.places) >= len(found[key].places):
                        found[key] = region
        taken: set[int] = set()
        for region in sorted(found.values(), key=lambda region: max(region.places)):
            if taken.isdisjoint(region.places):
                taken |= region.places
                yield region

    def _run(self, place: int, exit: str) -> BlockRegion | None:
        """The least region that ends in `exit` and has a product."""
        at = self._dominators.get(place, -1)
        while at >= 0:
            outputs = [o for o in self.flow.steps[at].output if o and self.flow.consumers.get(o)]
            if len(outputs) == 1 and self._fits(outputs[0], exit):
                region = self.region(outputs[0], exit, RUN)
                if region.places & self.flow.heavy:
                    return region
            at = self._dominators.get(at, -1)
        return None

    @cached_property
    def _dominators(self) -> dict[int, int]:
        """For every step behind a product, the nearest one that all ways to it lead through; -1 for none."""
        found: dict[int, int] = {}
        for place, names in enumerate(self.flow.data_reads):
            before = [self.flow.producer[name] for name in names if self.flow.producer.get(name, -1) in found]
            if not before and place not in self.flow.heavy:
                continue
            meet = before[0] if before else -1
            for other in before[1:]:
                while meet != other:
                    meet, other = (found[meet], other) if meet > other else (meet, found[other])
            found[place] = meet
        return found


def _innermost(regions: Iterable[BlockRegion]) -> Iterator[BlockRegion]:
    """The regions that hold no chain of others; without those that are the only one inside of another."""
    ordered = sorted(regions, key=lambda region: len(region.places))
    inside = [[other for other in ordered[:i] if other.places < region.places] for i, region in enumerate(ordered)]
    hollow = {i for i, others in enumerate(inside) if len(others) > 1}
    single = {id(others[0]) for i, others in enumerate(inside) if len(others) == 1}
    yield from (r for i, r in enumerate(ordered) if i not in hollow and id(r) not in single)


def chains_of(regions: Iterable[BlockRegion]) -> Iterator[list[BlockRegion]]:
    """Regions one behind the other, as they stand in the graph."""
    by_entry: dict[str, list[BlockRegion]] = {}
    for region in sorted(regions, key=lambda region: min(region.places)):
        by_entry.setdefault(region.entry, []).append(region)
    exits = {region.exit for others in by_entry.values() for region in others}
    for entry, starts in by_entry.items():
        for start in starts if entry not in exits else starts[1:]:
            chain = [start]
            while chain[-1].exit in by_entry:
                chain.append(by_entry[chain[-1].exit][0])
            yield chain


def repeated(chains: Sequence[Sequence[tuple[str, ...]]]) -> Sequence[tuple[str, ...]]:
    """The shortest pattern, seen twice at least, that the longest chain repeats; a pattern of one says nothing."""
    for chain in sorted(chains, key=len, reverse=True):
        for size in range(1, len(chain) // 2 + 1):
            if all(a == b for a, b in zip(chain, chain[size:], strict=False)):
                return chain[:size]
    return ()
