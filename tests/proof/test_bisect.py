"""The proof at other sizes: where it ran, and where it did not, is said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from onnxprune import Options, api
from onnxprune.errors import GoalMissed
from onnxprune.model import load
from onnxprune.model.shapes.thresholds import OtherSides
from onnxprune.proof import Verdict, bisect, prove
from onnxprune.proof.stored_weights import Kept
from onnxprune.proof.zeroed_original import problem_with_zeros
from onnxprune.rewriting import Removal
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.tracing.rules import letters
from tests.graphs.net import FLOAT, Net, prune
from tests.graphs.random_sizes import WIDTH, Sizes


def clamped(rows: int) -> onnx.ModelProto:
    """A model with a factor from `rows` of them: the last that a batch above 50 may have, the first below."""
    net = Net()
    x = net.input(["batch", 6])
    size = net.add("Gather", net.add("Shape", x), net.ints(0))
    row = net.add("Min", net.add("Max", net.add("Sub", size, net.ints(50)), net.ints(0)), net.ints(1))
    factor = net.add("Gather", net.weight(rows, name="factors"), row)
    y = net.add("Relu", net.add("Mul", net.add("MatMul", x, net.weight(6, 8, name="w1")), factor))
    net.output(net.add("MatMul", y, net.weight(8, 4, name="w2")), ["batch", 4])
    return net.proto()


def proven(proto: onnx.ModelProto, **given: Any) -> Verdict:
    verdict = api.run(load(proto), Options(ratio=0.5), **given).verdict
    assert verdict is not None and verdict.ok, verdict
    return verdict


def beyond(checks: Verdict) -> list[str]:
    return [said for said in checks.checks if said.removeprefix("not ").startswith("at ")]


def test_sizes_at_which_the_proof_ran_are_said() -> None:
    found = beyond(proven(clamped(rows=2)))
    assert found and all(said.startswith("at batch=") for said in found)


def test_sizes_at_which_the_original_does_not_run_are_said() -> None:
    found = beyond(proven(clamped(rows=1)))
    assert any(s.startswith("not at batch=") and s.endswith("the original does not run there") for s in found)


def test_sizes_that_the_user_fixed_are_kept_and_the_others_said() -> None:
    found = beyond(proven(clamped(rows=2), sizes={"batch": 3}))
    assert found and all(s.startswith("not at batch=") and s.endswith("another size is given") for s in found)


def test_sizes_with_other_groups_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    again = bisect.retrace

    def fewer(groups: Any, sizes: Mapping[str, int]) -> Any:
        found = again(groups, sizes)
        return replace(found, groups=found.groups[:-1])

    monkeypatch.setattr(bisect, "retrace", fewer)
    found = beyond(proven(clamped(rows=2)))
    assert found and all(s.startswith("at batch=") for s in found)
    assert all(s.endswith(", against the original with zeros: the groups differ there") for s in found)


def test_other_groups_at_other_sizes_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """An axis of one position, or of all, that is broadcast: as if the tracer took the first for the truth."""
    net = Sizes(lambda _: 3)
    part = net.one_or_all("broadcast", net.net.add("Greater", net.size, net.const(20)))
    net.net.output(net.net.add("MatMul", net.joined("Add", part), net.net.weight(WIDTH, 3)), ["batch", 3], FLOAT)
    monkeypatch.setattr(letters, "is_known", lambda _: True)
    with pytest.raises(GoalMissed, match=r"the pruned model does not run: .*, at batch=21"):
        prune(net.net.proto())


def test_a_wrong_weight_is_found_at_sizes_with_other_groups() -> None:
    model = load(clamped(rows=2))
    plan = api.plan_for(model, Options(ratio=0.5))[1]
    groups = plan.trace(model)
    small = rewrite(groups, plan.removed(groups))
    removal = Removal(groups, plan.removed(groups))
    assert problem_with_zeros(removal, small, {"batch": 60}) == ""
    wrong = small.array("factors") * np.array([1, 1.5], np.float32)
    spoiled = replace(small, values={**small.values, "factors": lambda: wrong})
    assert problem_with_zeros(removal, spoiled, {"batch": 2}) == ""  # which reads the first factor
    found = problem_with_zeros(removal, spoiled, {"batch": 60})
    assert found is not None and "differs from the original with zeros" in found


def test_sizes_that_are_left_out_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    left = OtherSides([], ["n=5000: such inputs are too large"])
    monkeypatch.setattr(bisect, "other_sides", lambda *_: left)
    net = Net()
    net.read(net.add("Relu", net.make((2, 5, 8), 2)), 2)
    verdict = prune(net.proto()).verdict
    assert verdict is not None and verdict.ok
    assert "not at n=5000: such inputs are too large" in verdict.checks


# --- longer inputs ------------------------------------------------------------------------------------------


def filters(taps: int, length: int | str) -> onnx.ModelProto:
    """Filters over a signal, which at its least length see one position and their padding."""
    net = Net()
    hidden = net.input(["batch", 4, length], "signal")
    for width, given in ((16, 4), (16, 16), (16, 16), (16, 16), (3, 16)):
        hidden = net.add("Conv", hidden, net.weight(width, given, taps), pads=[taps // 2] * 2, strides=[2])
        hidden = net.add("Tanh", hidden)
    net.output(hidden, ["batch", 3, "frames"])
    return net.proto()


def noticed(verdict: Verdict) -> tuple[int, int]:
    assert verdict.strength is not None
    return verdict.strength.noticed, verdict.strength.tried


def test_where_few_wrong_weights_are_noticed_the_proof_is_repeated_at_longer_inputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = proven(filters(63, "length"))
    assert any(said.startswith("at length=") for said in found.checks)
    monkeypatch.setattr(bisect, "LONGER", ())
    before = proven(filters(63, "length"))
    assert not beyond(before)
    assert noticed(before)[0] * 2 <= noticed(before)[1]
    assert noticed(found)[0] > noticed(before)[0]


def test_what_differs_at_longer_inputs_is_refused() -> None:
    groups = load(filters(63, "length"))
    plan = api.plan_for(groups, Options(ratio=0.5))[1]
    traced = plan.trace(groups)
    small = rewrite(traced, plan.removed(traced))
    weak = prove.check(traced, plan.removed(traced), small)
    assert weak.ok and noticed(weak)[0] * 2 <= noticed(weak)[1]
    weight = next(t for t in small.proto.graph.initializer if len(t.dims) == 3)
    wrong = small.array(weight.name).copy()
    wrong[0, 0, 0] *= 1.5
    spoiled = replace(small, values={**small.values, weight.name: lambda: wrong})
    assert prove.check(traced, plan.removed(traced), spoiled).problem.startswith("weight ")  # no run shows it
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(prove.stored_weights, "weights", lambda *_: Kept(1))
        assert prove.check(traced, plan.removed(traced), spoiled).ok
        _, verdict = bisect.proven_groups(traced, plan.removed, spoiled)
    assert not verdict.ok and "at length=" in verdict.problem


@pytest.mark.parametrize("given", [{"length": 2}, {}])
def test_inputs_of_a_fixed_length_stay(given: dict[str, int]) -> None:
    verdict = proven(filters(63, "length" if given else 2), sizes=given)
    assert not beyond(verdict)
