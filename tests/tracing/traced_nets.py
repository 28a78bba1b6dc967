"""Nets whose groups are known."""

from __future__ import annotations

from tests.graphs.net import Net


def two_layers() -> Net:
    net = Net()
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    return net
