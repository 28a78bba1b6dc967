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
from collections.abc import Sequence
from dataclasses import dataclass, replace

from onnxprune.model.block_regions import BRANCH, BlockRegion, RegionSearch, chains_of, repeated
from onnxprune.model.data_flow import DataFlow
from onnxprune.model.graph import first_output
from onnxprune.model.joined import IN
from onnxprune.model.scopes import common_scope


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
        matrices: the stored matrices that nodes between what enters and what leaves multiply data with.
        twins: the names of the same blocks in other graphs that stand beside this one: they go together.
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
    matrices: tuple[str, ...] = ()
    twins: tuple[str, ...] = ()
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
    search = RegionSearch(flow)
    branches = search.branches()
    chains = list(chains_of(branches))
    signatures = [[region.signature(flow) for region in chain] for chain in chains]
    unit = repeated(signatures)
    regions: list[BlockRegion] = []
    for chain, own in zip(chains, signatures, strict=True):
        regions += search.grouped(chain, repeated([own]) or unit)
    covered = frozenset[int]().union(*(region.places for region in regions))
    regions += [run for run in search.runs() if covered.isdisjoint(run.places)]
    regions.sort(key=lambda region: (min(region.places), -len(region.places)))
    blocks = _named(flow, [region for region in regions if not search.is_everything(region)])
    return _with_twins(flow, blocks) if flow.model.couplings.files else blocks


# --- names -----------------------------------------------------------------------------------------------


def _named(flow: DataFlow, regions: Sequence[BlockRegion]) -> list[GraphBlock]:
    """Regions as blocks."""
    schemes = [_scopes(flow, region) for region in regions]
    chosen: dict[int, str] = {}
    for level in (False, True):  # a block goes before its branches
        places = [i for i, region in enumerate(regions) if (region.kind == BRANCH) is level]
        counts = [Counter(names) for names in zip(*(schemes[i] for i in places), strict=True)]
        for i in places:
            free = (n for of, n in zip(counts, schemes[i], strict=True) if n and of[n] == 1)
            ends = (regions[i].exit, f"{regions[i].exit}:{regions[i].kind}")
            chosen[i] = next(n for n in (*free, *ends) if n not in chosen.values())
    return [_block(flow, region, chosen[i]) for i, region in enumerate(regions)]


def _scopes(flow: DataFlow, region: BlockRegion) -> tuple[str, ...]:
    """Names that a region may get, the best first: the scope of its matrices, of all its weights, of its nodes."""
    heavy = sorted(region.places & flow.heavy)
    own = flow.own_weights(region.places)
    weights = [n for i in heavy for n in sorted(flow.constants_read[i] & own)]
    nodes = [flow.steps[i].nodes[-1].name or first_output(flow.steps[i].nodes[-1]) for i in heavy]
    every = [flow.steps[i].nodes[-1].name for i in sorted(region.places)]
    return common_scope(weights), common_scope(sorted(own)), common_scope(nodes), common_scope(every)


def _block(flow: DataFlow, region: BlockRegion, name: str) -> GraphBlock:
    matrices = frozenset[str]().union(*(flow.matrices_read[i] for i in region.places))
    region = region.with_belonging(flow)
    steps = [flow.steps[i] for i in sorted(region.places)]
    leaving = flow.leaving(region.places, region.exit)
    outputs = tuple(dict.fromkeys(tensor for tensor, place in leaving if place is None))
    read = (n for n in sorted(flow.inputs) if n in flow.consumers)
    inputs = tuple(n for n in read if not flow.is_read_outside(n, region.places, region.entry))
    return GraphBlock(
        name=name,
        kind=region.kind,
        entry=region.entry,
        exit=region.exit,
        nodes=tuple(first_output(node) for step in steps for node in step.nodes),
        weights=tuple(sorted(flow.own_weights(region.places))),
        outputs=outputs,
        inputs=inputs,
        matrices=tuple(sorted(matrices)),
        problem=region.problem(flow),
    )


def _with_twins(flow: DataFlow, blocks: Sequence[GraphBlock]) -> list[GraphBlock]:
    """The blocks of graphs that stand side by side; the first of each that are the same counts the weights of all."""
    found, files = [*blocks], flow.model.couplings.files
    by_matrices: dict[tuple[str, ...], list[int]] = {}
    for i, block in enumerate(blocks):
        if block.matrices:
            by_matrices.setdefault(block.matrices, []).append(i)
    for alike in by_matrices.values():
        first, *others = ({f for f in files if blocks[i].exit.startswith(f + IN)} for i in alike)
        if others and all(first.isdisjoint(other) for other in others):
            places = {flow.producer[name] for i in alike for name in blocks[i].nodes}
            weights = tuple(sorted(flow.own_weights(places)))
            for i in alike:
                twins = tuple(blocks[j].name for j in alike if j != i)
                found[i] = replace(blocks[i], twins=twins, weights=weights if i == alike[0] else blocks[i].weights)
    return found
