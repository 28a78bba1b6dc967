"""Ids that can be renumbered, and where they come from."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune import api
from onnxprune.model import load
from onnxprune.runtime import random_inputs
from onnxprune.tracing import token_ids
from tests.graphs.net import INT64, Net
from tests.model.test_traits import compress, reverse, tile


def turn(net: Net, x: str) -> str:
    return net.add("Transpose", x, perm=[1, 0])


def second(net: Net, x: str) -> str:
    return net.add("Split", x, net.ints(1, 2), outputs=2, axis=1)[1]


def expand(net: Net, x: str) -> str:
    return net.add("Expand", x, net.ints(2, 3, 3))


@pytest.mark.parametrize("way", [turn, second, tile, expand, reverse])
def test_random_ids_name_all_rows(way) -> None:
    """Before, an id behind such an operator was 1 at every position."""
    net = Net(17)
    x = way(net, net.input([3, 3], "ids", INT64))
    net.read(net.add("Gather", net.weight(20, 4, name="table"), x), 2)
    groups = api.trace(net.proto())
    ids = random_inputs.random_feeds(groups.model, groups.static, np.random.default_rng(0))["ids"]
    assert len(set(ids.flat)) > 3 and ids.max() < 20


@pytest.mark.parametrize("way", [reverse, compress])
def test_ids_that_are_moved_can_be_renumbered(way) -> None:
    net = Net(17)
    net.output(net.add("Gather", net.weight(20, 4, name="table"), way(net, net.input([3, 3], "ids", INT64))), None)
    assert token_ids.sources(load(net.proto()).proto.graph, ["table"])["table"].inputs == {"ids"}
