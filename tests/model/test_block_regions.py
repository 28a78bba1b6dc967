"""Regions between tensors: which may be blocks, what belongs to them, what lies across others."""

from __future__ import annotations

from onnxprune.model.block_regions import BlockRegion, RegionSearch
from onnxprune.model.blocks import find_blocks
from onnxprune.model.data_flow import DataFlow
from tests.graphs.net import Net
from tests.model.test_data_flow import flow_of

WIDTH = 8


def attended(net: Net, x: str, mask: str = "") -> tuple[str, str]:
    """Attention of one head, added to x; the sum and the scores with the mask."""
    q, k, v = (net.add("MatMul", x, net.weight(WIDTH, WIDTH)) for _ in range(3))
    scores = net.add("MatMul", q, net.add("Transpose", k, perm=[0, 2, 1]))
    scores = net.add("Add", scores, mask) if mask else scores
    found = net.add("MatMul", net.add("Softmax", scores, axis=-1), v)
    return net.add("Add", x, net.add("MatMul", found, net.weight(WIDTH, WIDTH))), scores


def masked_layers() -> tuple[DataFlow, BlockRegion]:
    """Two layers that add one mask to their scores, and the region from the mask to the second layer's scores."""
    net = Net()
    x = net.input([2, WIDTH, WIDTH])
    mask = net.add("Relu", net.input([2, WIDTH, WIDTH], "given"))
    x, _ = attended(net, x, mask)
    x, scores = attended(net, x, mask)
    net.output(net.add("Relu", x), [2, WIDTH, WIDTH])
    flow = flow_of(net.proto())
    return flow, RegionSearch(flow).region(mask, scores)


def test_what_begins_in_a_mask_and_ends_in_scores_is_no_block() -> None:
    flow, across = masked_layers()
    first, second = RegionSearch(flow).branches()
    assert across.is_across(first) and across.is_across(second) and not first.is_across(second)
    assert across.problem(flow) and not first.problem(flow) and not second.problem(flow)
    assert {(b.entry, b.exit) for b in find_blocks(flow)} == {(r.entry, r.exit) for r in (first, second)}


def test_sizes_that_a_mask_is_cut_to_stay_inside() -> None:
    """A layer slices the mask to the length of its keys, as decoders with caches do."""
    net = Net()
    x = net.input([2, WIDTH, WIDTH])
    k = net.add("MatMul", x, net.weight(WIDTH, WIDTH))
    length = net.add("Slice", net.add("Shape", net.add("Transpose", k, perm=[1, 0, 2])), net.ints(0), net.ints(1))
    mask = net.add("Slice", net.input([WIDTH, 16], "given"), net.ints(0), length, net.ints(1))
    scores = net.add("Add", net.add("MatMul", x, net.add("Transpose", k, perm=[0, 2, 1])), mask)
    y = net.add("Add", x, net.add("MatMul", scores, net.weight(WIDTH, WIDTH)))
    net.output(net.add("MatMul", y, net.weight(WIDTH, 3)), [2, WIDTH, 3])
    flow = flow_of(net.proto())
    (block,) = [b for b in find_blocks(flow) if b.exit == y]
    assert (block.entry, block.problem, len(block.weights)) == ("x", "", 2)


def test_what_is_laid_out_for_the_caller_belongs_to_a_block() -> None:
    """Keys that go out transposed, and keys of an encoder that this layer alone reads."""
    net = Net()
    x, told = net.input([2, WIDTH, WIDTH]), net.input([2, WIDTH, WIDTH], "told")
    k = net.add("MatMul", x, net.weight(WIDTH, WIDTH))
    net.output(net.add("Transpose", k, perm=[1, 0, 2], name="keys"), [WIDTH, 2, WIDTH])
    crossed = net.add("MatMul", told, net.weight(WIDTH, WIDTH), name="crossed")
    net.output(net.add("Transpose", crossed, perm=[1, 0, 2], name="others"), [WIDTH, 2, WIDTH])
    scores = net.add("MatMul", net.add("Add", x, crossed), net.add("Transpose", k, perm=[0, 2, 1]))
    y = net.add("Add", x, net.add("MatMul", scores, net.weight(WIDTH, WIDTH)))
    net.output(net.add("MatMul", y, net.weight(WIDTH, 3)), [2, WIDTH, 3])
    (block,) = [b for b in find_blocks(flow_of(net.proto())) if b.exit == y]
    assert block.problem == "" and set(block.outputs) == {"keys", "others"} and "crossed" in block.nodes
    assert len(block.weights) == 3


def test_what_others_read_too_belongs_to_no_block() -> None:
    net = Net()
    x, told = net.input([2, WIDTH]), net.input([2, WIDTH], "told")
    side = net.add("MatMul", told, net.weight(WIDTH, WIDTH), name="side")
    y = net.add("Add", x, net.add("MatMul", net.add("Add", x, side), net.weight(WIDTH, WIDTH)))
    net.output(net.add("MatMul", net.add("Add", y, side), net.weight(WIDTH, 3)), [2, 3])
    (block,) = [b for b in find_blocks(flow_of(net.proto())) if b.exit == y]
    assert "side" not in block.nodes and len(block.weights) == 1


def test_an_output_of_a_side_input_stays_where_the_block_hands_out_nothing() -> None:
    net = Net()
    x, told = net.input([2, WIDTH]), net.input([2, WIDTH], "told")
    side = net.add("MatMul", told, net.weight(WIDTH, WIDTH), name="side")
    net.output(side, [2, WIDTH])
    y = net.add("Add", x, net.add("MatMul", net.add("Add", x, side), net.weight(WIDTH, WIDTH)))
    net.output(net.add("MatMul", y, net.weight(WIDTH, 3)), [2, 3])
    (block,) = [b for b in find_blocks(flow_of(net.proto())) if b.exit == y]
    assert block.outputs == () and "side" not in block.nodes
