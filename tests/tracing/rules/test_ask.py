"""Rules that are asked for labels, and what becomes of those that are wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import helper

from onnxprune.errors import ModelError
from onnxprune.tracing.rules.ask import CONTRADICTION, ask, fits, resize_node
from onnxprune.tracing.rules.attributes import Unsupported

LINE = np.arange(4)


def view() -> Any:
    node = helper.make_node("Op", ["x"], ["y"], name="n")
    static = SimpleNamespace(shapes={"x": (2, 4), "y": (2, 4)})
    return SimpleNamespace(node=node, name="n", static=static, shape=lambda slot: (2, 4), out_shape=lambda: (2, 4))


def rule(trace: Any, contractions: Any = None) -> Any:
    return SimpleNamespace(trace=trace, contractions=contractions)


def test_labels_of_every_output() -> None:
    axes = (np.array([-1]), LINE)
    assert ask(rule(lambda v: [axes]), view()) == [axes] and ask(rule(lambda v: [None]), view()) == [None]


def test_labels_that_do_not_fit_are_a_barrier() -> None:
    with pytest.raises(Unsupported, match=CONTRADICTION):
        ask(rule(lambda v: [(np.array([-1]), np.arange(5))]), view())


def test_a_rule_that_breaks_is_a_barrier_with_its_reason() -> None:
    def broken(v: Any) -> Any:
        raise ZeroDivisionError("by zero")

    with pytest.raises(Unsupported, match="by zero"):
        ask(rule(broken), view())
    with pytest.raises(Unsupported, match="needs something"):
        ask(rule(lambda v: (_ for _ in ()).throw(Unsupported("it needs something"))), view())


def test_contractions_over_axes_that_are_not_there_are_a_barrier() -> None:
    good = (np.array([-1]), LINE)
    assert ask(rule(lambda v: [good], lambda v: [[(0, 1), (None, 0)]]), view()) == [good]
    with pytest.raises(Unsupported):
        ask(rule(lambda v: [good], lambda v: [[(0, 7)]]), view())


@pytest.mark.parametrize(
    ("axes", "shape", "fit"),
    [
        ((LINE,), (4,), True),
        ((LINE,), (5,), False),
        ((np.array([-1]),), (5,), True),
        ((LINE,), (4, 1), False),
        ((np.array([-1]), LINE.reshape(1, 4)), (2, 4), True),
        ((np.array([-1]), np.arange(8).reshape(2, 4)), (2, 4), True),
        ((np.array([-1]), np.arange(12).reshape(3, 4)), (2, 4), False),
    ],
)
def test_a_line_each_or_a_field(axes: Any, shape: tuple[int, ...], fit: bool) -> None:
    assert fits(axes, shape) is fit


def test_a_node_that_cannot_follow_is_named() -> None:
    def broken(edit: Any) -> None:
        raise KeyError("sizes")

    with pytest.raises(ModelError, match="Op 'n' cannot follow"):
        resize_node(broken, SimpleNamespace(view=view()))
