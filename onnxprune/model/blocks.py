"""Parts of a graph that can be taken out: what enters and what leaves has the same shape, and nothing else leaves.

Everything is read off the flow of data, no names and no patterns:

* A *residual branch* ends in a sum. Walking back from the sum to its operands (through sums and whatever works position
  by position) leads to one tensor that all ways meet in: the stream that enters. It dominates the sum on these ways;
  every other operand of the sums must depend on it. Side inputs of the branches may be anything.
* A *block* is as many branches, one behind the other, as repeat along the stream: attention and a feed-forward part of
  a transformer. A branch that does not alternate with others is a block by itself.
* A *run* has no skip: the stream that enters is an immediate dominator of what leaves, among all tensors that come from
  a product with a matrix. So side inputs are constants, masks and sizes. Runs are listed outside of blocks only.

What leaves must post-dominate the part: nothing that is computed inside is read outside, or handed out by the graph.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from heapq import heappop, heappush

from onnxprune.model.data_flow import DataFlow
from onnxprune.model.graph import WEIGHT_TYPES, first_output
from onnxprune.model.scopes import common_scope
from onnxprune.model.traits import traits_of

BLOCK, BRANCH, RUN = "block", "branch", "run"


@dataclass(frozen=True)
class GraphBlock:
    """A part of a graph that can be taken out.

    Attributes:
        name: where it stands, in the words of the file.
        kind: "block", "branch" (a part of a block) or "run" (a part without a skip).
        entry: the tensor that enters, and takes the place of `exit`.
        exit: the tensor that leaves.
        nodes: first outputs of the nodes inside, in order.
        weights: the stored tensors that nothing else reads.
        outputs: graph outputs that nodes inside make.
        inputs: graph inputs whose values nodes inside alone read.
        problem: why it must stay; empty if it may go.
    """

    name: str
    kind: str
    entry: str
    exit: str
    nodes: tuple[str, ...]
    weights: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    problem: str = ""

    @property
    def changes_io(self) -> bool:
        """Whether the model would lose outputs."""
        return bool(self.outputs)

    def overlaps(self, other: GraphBlock) -> bool:
        """Whether a node is in both."""
        return not set(self.nodes).isdisjoint(other.nodes)


def find_blocks(flow: DataFlow) -> list[GraphBlock]:
    """Find all parts of a graph that can be taken out.

    Args:
        flow: the flat graph.

    Returns:
        Blocks, each in front of its branches, and runs, in graph order.
    """
    search = _Search(flow)
    branches = search.branches()
    chains = list(_chains(branches))
    unit = _repeated([[region.signature(flow) for region in chain] for chain in chains])
    regions: list[_Region] = []
    for chain in chains:
        regions += search.grouped(chain, unit)
    covered = frozenset[int]().union(*(region.places for region in regions))
    regions += [run for run in search.runs() if covered.isdisjoint(run.places)]
    regions.sort(key=lambda region: (min(region.places), -len(region.places)))
    return _named(flow, [region for region in regions if not search.is_everything(region)])


@dataclass(frozen=True)
class _Region:
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

    def signature(self, flow: DataFlow) -> tuple[str, ...]:
        """The operators that make it what it is, in order: all but those that work position by position, or move."""
        return tuple(flow.steps[i].nodes[-1].op_type for i in sorted(self.places) if _is_telling(flow, i))


def _is_telling(flow: DataFlow, place: int) -> bool:
    row = traits_of(flow.steps[place].nodes[-1])
    return bool(flow.data_reads[place]) and not (row.elementwise or row.moves or row.joins or row.same_shape)


@dataclass(frozen=True, eq=False)
class _Search:
    """The search for regions of a graph."""

    flow: DataFlow

    def region(self, entry: str, exit: str, kind: str = BLOCK) -> _Region:
        """What lies between two tensors."""
        return _Region(entry, exit, frozenset(self.flow.between(entry, exit)), kind)

    def is_everything(self, region: _Region) -> bool:
        """Whether no product would be left."""
        return self.flow.heavy <= region.places

    # --- residual branches -------------------------------------------------------------------------------

    def branches(self) -> list[_Region]:
        """The least regions that end in a sum, without those inside of others that are no chain of several."""
        found: dict[frozenset[int], _Region] = {}
        for place, step in enumerate(self.flow.steps):
            if len(step.nodes) == 1 and traits_of(step.nodes[0]).adds:
                for exit in self._sums(place):
                    region = self._branch(exit)
                    if region is not None:
                        found.setdefault(region.places & self.flow.heavy, region)
        return list(_innermost(found.values()))

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

    def _branch(self, exit: str) -> _Region | None:
        """The least region with products that ends in the sum `exit`; it begins in front of a norm that both share."""
        found: _Region | None = None
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

    def _from_source(self, region: _Region) -> _Region:
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

    def _leaks(self, region: _Region) -> set[str]:
        """The tensors that are made inside and read outside, but for what leaves."""
        return {tensor for tensor, _ in self.flow.leaving(region.places, region.exit)}

    def grouped(self, chain: Sequence[_Region], unit: Sequence[tuple[str, ...]]) -> Iterator[_Region]:
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

    def runs(self) -> Iterator[_Region]:
        """The least regions without a skip."""
        found: dict[frozenset[int], _Region] = {}
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

    def _run(self, place: int, exit: str) -> _Region | None:
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


def _innermost(regions: Iterable[_Region]) -> Iterator[_Region]:
    """The regions that hold no chain of others; without those that are the only one inside of another."""
    ordered = sorted(regions, key=lambda region: len(region.places))
    inside = [[other for other in ordered[:i] if other.places < region.places] for i, region in enumerate(ordered)]
    hollow = {i for i, others in enumerate(inside) if len(others) > 1}
    single = {id(others[0]) for i, others in enumerate(inside) if len(others) == 1}
    yield from (r for i, r in enumerate(ordered) if i not in hollow and id(r) not in single)


def _chains(regions: Iterable[_Region]) -> Iterator[list[_Region]]:
    """Regions one behind the other, as they stand in the graph."""
    by_entry: dict[str, list[_Region]] = {}
    for region in sorted(regions, key=lambda region: min(region.places)):
        by_entry.setdefault(region.entry, []).append(region)
    exits = {region.exit for others in by_entry.values() for region in others}
    for entry, starts in by_entry.items():
        for start in starts if entry not in exits else starts[1:]:
            chain = [start]
            while chain[-1].exit in by_entry:
                chain.append(by_entry[chain[-1].exit][0])
            yield chain


def _repeated(chains: Sequence[Sequence[tuple[str, ...]]]) -> Sequence[tuple[str, ...]]:
    """The shortest pattern, seen twice at least, that the longest chain repeats; a pattern of one says nothing."""
    for chain in sorted(chains, key=len, reverse=True):
        for size in range(1, len(chain) // 2 + 1):
            if all(a == b for a, b in zip(chain, chain[size:], strict=False)):
                return chain[:size]
    return ()


# --- names -----------------------------------------------------------------------------------------------


def _named(flow: DataFlow, regions: Sequence[_Region]) -> list[GraphBlock]:
    """Regions as blocks."""
    schemes = [_scopes(flow, region) for region in regions]
    chosen: dict[int, str] = {}
    for level in (False, True):  # a block goes before its branches
        places = [i for i, region in enumerate(regions) if (region.kind == BRANCH) is level]
        counts = [Counter(names) for names in zip(*(schemes[i] for i in places), strict=True)]
        for i in places:
            free = (n for of, n in zip(counts, schemes[i], strict=True) if n and of[n] == 1)
            chosen[i] = next((n for n in free if n not in chosen.values()), regions[i].exit)
    return [_block(flow, region, chosen[i]) for i, region in enumerate(regions)]


def _scopes(flow: DataFlow, region: _Region) -> tuple[str, ...]:
    """Names that a region may get, the best first: the scope of its matrices, of all its weights, of its nodes."""
    heavy = sorted(region.places & flow.heavy)
    own = _own(flow, region.places)
    weights = [n for i in heavy for n in sorted(flow.constants_read[i] & own)]
    nodes = [flow.steps[i].nodes[-1].name or first_output(flow.steps[i].nodes[-1]) for i in heavy]
    every = [flow.steps[i].nodes[-1].name for i in sorted(region.places)]
    return common_scope(weights), common_scope(sorted(own)), common_scope(nodes), common_scope(every)


def _own(flow: DataFlow, places: frozenset[int]) -> frozenset[str]:
    """The stored weights that steps at these places alone read."""
    read = frozenset[str]().union(*(flow.constants_read[i] for i in places))
    with_data = (i for i, names in enumerate(flow.data_reads) if names and i not in places)
    elsewhere = frozenset[str]().union(*(flow.constants_read[i] for i in with_data))
    return frozenset(n for n in read - elsewhere if flow.static.dtypes.get(n) in WEIGHT_TYPES) - flow.outputs


def _block(flow: DataFlow, region: _Region, name: str) -> GraphBlock:
    steps = [flow.steps[i] for i in sorted(region.places)]
    leaks = list(flow.leaving(region.places, region.exit))
    outputs = tuple(dict.fromkeys(tensor for tensor, place in leaks if place is None))
    read = (n for n in sorted(flow.inputs) if n in flow.consumers)
    inputs = tuple(n for n in read if not flow.is_read_outside(n, region.places, region.entry))
    return GraphBlock(
        name=name,
        kind=region.kind,
        entry=region.entry,
        exit=region.exit,
        nodes=tuple(first_output(node) for step in steps for node in step.nodes),
        weights=tuple(sorted(_own(flow, region.places))),
        outputs=outputs,
        inputs=inputs,
        problem=_problem(flow, region, leaks),
    )


def _problem(flow: DataFlow, region: _Region, leaks: Iterable[tuple[str, int | None]]) -> str:
    """Why a region must stay: what it makes is read outside, and is not a size that the stream has as well."""
    for tensor, place in leaks:
        if place is None:
            continue
        node = flow.steps[place].nodes[-1]
        if not (traits_of(node).tells_sizes and flow.alike(tensor, region.entry)):
            return f"{node.op_type} {node.name or first_output(node)!r} outside of it reads {tensor!r}"
    return ""
