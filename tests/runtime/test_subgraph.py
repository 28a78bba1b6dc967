"""Runs of a part of a graph."""

from __future__ import annotations

import numpy as np
import pytest

from onnxprune.errors import RunError
from onnxprune.model import Model, load
from onnxprune.runtime import RunMode, boundary_inputs, run_changed, run_from
from tests.graphs.net import Net, run


def two_ways() -> Model:
    """x -> a -> b -> y, and x -> c -> z; y and z are outputs."""
    net = Net()
    x = net.input(["n", 4])
    a = net.add("MatMul", x, net.weight(4, 4, name="wa"), name="a")
    b = net.add("Relu", a, name="b")
    net.output(net.add("MatMul", b, net.weight(4, 3, name="wb"), name="y"), ["n", 3])
    net.output(net.add("Add", net.add("Sigmoid", x, name="c"), a, name="z"), ["n", 4])
    return load(net.proto())


X = [np.random.default_rng(i).standard_normal((2 + i, 4)).astype(np.float32) for i in range(2)]


def test_a_part_runs_from_what_is_held() -> None:
    model = two_ways()
    held = [{"b": np.ones((n, 4), np.float32)} for n in (1, 3)]
    weight = model.array("wb")
    for (y, b, stored), given in zip(run_from(model, held, ["y", "b", "wb"]), held, strict=True):
        np.testing.assert_allclose(y, given["b"] @ weight, rtol=1e-5)
        assert b is given["b"] and (stored == weight).all(), "what is held or stored is not computed"


def test_the_whole_graph_is_a_part() -> None:
    model = two_ways()
    for (y, z), x in zip(run_from(model, [{"x": x} for x in X], ["y", "z"]), X, strict=True):
        whole = run(model.proto, feeds={"x": x})
        np.testing.assert_allclose(y, whole["y"], rtol=1e-6)
        np.testing.assert_allclose(z, whole["z"], rtol=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_what_is_held_stands_in_for_what_is_stored(fused: bool) -> None:
    model, b = two_ways(), np.random.default_rng(5).standard_normal((2, 4)).astype(np.float32)
    held = [{"b": b, "wb": np.full((4, 3), i, np.float32)} for i in range(3)]
    for (y,), given in zip(run_from(model, held, ["y"], mode=RunMode(fused=fused)), held, strict=True):
        np.testing.assert_allclose(y, b @ given["wb"], rtol=1e-5)
    ((plain,),) = run_from(model, held[:1], ["wb"])
    assert plain is held[0]["wb"]


def test_what_is_missing_is_an_error() -> None:
    with pytest.raises((RunError, KeyError)):
        list(run_from(two_ways(), [{"b": np.ones((1, 4), np.float32)}], ["z"]))


def test_what_a_part_reads_from_outside() -> None:
    model = two_ways()
    dtypes = dict.fromkeys(("x", "a", "b", "c", "y", "z"), 1)
    assert boundary_inputs(model, {"b", "y"}, dtypes) == ["a"]
    assert sorted(boundary_inputs(model, {"y", "z"}, dtypes) or ()) == ["a", "b", "c"]
    assert boundary_inputs(model, {"b", "y"}, {}) is None, "of a type that nobody knows"


def test_only_outputs_that_a_change_reaches_are_computed() -> None:
    model = two_ways()
    before = [["old y", "old z"]]
    held = [{"b": np.zeros((2, 4), np.float32)}]
    ((y, z),) = run_changed(model, held, ["y", "z"], before, {"y"})
    assert not y.any() and z == "old z"
    assert list(run_changed(model, [{}], ["y", "z"], before, {"b"})) == before, "nothing is run"
