"""The library: any source in, the same kind out, and every option on the way."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.errors import ModelError, UsageError
from onnxprune.model import Model, load
from onnxprune.runtime.bench import Place
from tests.graphs.net import Net, run, shapes_of


def network(batch: int | str = "batch") -> onnx.ModelProto:
    net = Net()
    x = net.input([batch, 5, 3])
    x = net.add("Relu", net.add("MatMul", x, net.weight(3, 8, name="w1")))
    net.output(net.add("MatMul", x, net.weight(8, 4, name="w2")), [batch, 5, 4])
    return net.proto()


@pytest.fixture
def proto() -> onnx.ModelProto:
    return network()


def test_a_proto_comes_back_as_a_proto(proto: onnx.ModelProto) -> None:
    result = onnxprune.prune(proto, 0.5)
    assert isinstance(result.model, onnx.ModelProto)
    assert shapes_of(result.model) == {"w1": (3, 4), "w2": (4, 4)}


def test_bytes_and_paths_come_back_as_a_proto(proto: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    wanted = onnxprune.prune(proto, 0.5).model
    for source in (proto.SerializeToString(), path, str(path)):
        assert onnxprune.prune(source, 0.5).model == wanted


def test_a_model_comes_back_as_a_model(proto: onnx.ModelProto) -> None:
    assert isinstance(onnxprune.prune(load(proto), 0.5).model, Model)


def test_a_graphsurgeon_graph_comes_back_as_one(proto: onnx.ModelProto) -> None:
    import onnx_graphsurgeon as gs

    small = onnxprune.prune(gs.import_onnx(proto), 0.5).model
    assert isinstance(small, gs.Graph)
    assert small.tensors()["w1"].shape == (3, 4) or list(small.tensors()["w1"].shape) == [3, 4]
    back = gs.export_onnx(small)
    assert next(iter(run(back).values())).shape == (2, 5, 4)


def test_a_custom_kind_is_refused() -> None:
    with pytest.raises(UsageError):
        onnxprune.prune(object(), 0.5)
    with pytest.raises(ModelError):
        onnxprune.prune(b"not a model", 0.5)


def test_a_result_tells_what_happened(proto: onnx.ModelProto) -> None:
    result = onnxprune.prune(proto, 0.5)
    report = result.report
    assert report.verdict is not None
    assert report.verdict.ok
    assert (report.before.params, report.after.params) == (56, 28)
    assert report.before.macs == 2 * report.after.macs == 5 * 56
    assert report.after.size < report.before.size
    assert set(report.seconds) == {"tracing", "scoring", "selecting", "rewriting", "proving", "counting"}
    assert result.plan.steps[0].group == "w1"
    assert report.plan is result.plan


def test_without_a_proof(proto: onnx.ModelProto) -> None:
    result = onnxprune.prune(proto, 0.5, verify=False)
    assert result.report.verdict is None
    assert result.model == onnxprune.prune(proto, 0.5).model


@pytest.mark.parametrize(
    "given", [{"ratio": 1.0}, {"ratio": -0.1}, {"criterion": "none"}, {"only": ["x*"]}, {"keep": ["x*"]}]
)
def test_bad_options(proto: onnx.ModelProto, given: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        onnxprune.prune(proto, **given)


def test_an_option_that_does_not_exist(proto: onnx.ModelProto) -> None:
    with pytest.raises(TypeError, match="sparsness"):
        onnxprune.prune(proto, 0.5, sparsness=0.5)
    with pytest.raises(TypeError, match="ratio"):  # a word of other tools for the same number
        onnxprune.prune(proto, 0.5, sparsity=0.5)


def test_every_step_alone(proto: onnx.ModelProto) -> None:
    groups = onnxprune.trace(proto)
    assert [g.name for g in groups.groups] == ["w1"]
    plan = onnxprune.make_plan(proto, 0.5, criterion="l1")
    small = onnxprune.apply(proto, plan)
    verdict = onnxprune.verify(proto, small, plan)
    assert verdict.ok
    assert plan.options["criterion"] == "l1"


def test_a_registered_criterion(proto: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    from onnxprune import criteria

    monkeypatch.setattr(criteria, "KNOWN", dict(criteria.KNOWN))

    def first_first(groups: onnxprune.Groups, rng: np.random.Generator) -> np.ndarray:
        return np.arange(groups.classes.count, dtype=float)

    onnxprune.register_criterion("order", first_first)
    assert "order" in criteria.names()
    assert onnxprune.prune(proto, 0.5, criterion="order").plan.steps[0].remove == (0, 1, 2, 3)
    plan = onnxprune.make_plan(proto, 0.5, criterion=first_first)
    assert plan.options["criterion"] == "first_first"
    assert onnxprune.Plan.from_json(plan.to_json()).steps[0].remove == (0, 1, 2, 3)


def test_a_plan_is_repaired_as_prune_repairs(proto: onnx.ModelProto) -> None:
    given = {"data": "random", "samples": 64}
    whole = onnxprune.prune(proto, 0.5, recovery="affine", **given)
    plan = onnxprune.make_plan(proto, 0.5, **given)
    assert onnxprune.apply(proto, plan, recovery="affine", **given) == whole.model != onnxprune.apply(proto, plan)


def test_a_plan_is_made_as_prune_makes_it(proto: onnx.ModelProto) -> None:
    given = {"sizes": {"batch": 3}, "macs": "60%"}
    plan = onnxprune.make_plan(proto, place=Place(), **given)
    assert plan.options["sizes"] == {"batch": 3}
    assert plan.to_json() == onnxprune.prune(proto, **given).plan.to_json()


def test_the_library_logs_and_never_prints(
    proto: onnx.ModelProto, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "onnxprune"):
        onnxprune.prune(proto, 0.5)
    assert capsys.readouterr() == ("", "")
    assert {"tracing", "proving"} <= {r.message for r in caplog.records}


@pytest.mark.parametrize("field", ["keep", "only"])
def test_globs_may_be_any_sequence(proto: onnx.ModelProto, field: str) -> None:
    options = {"only": ("w1",)} if field == "only" else {"keep": ()}
    assert onnxprune.prune(proto, 0.5, **options).plan.steps[0].remove


def test_one_string_instead_of_a_list_of_globs(proto: onnx.ModelProto) -> None:
    """A string is a sequence of letters: it must be one glob, or refused, never four."""
    try:
        result = onnxprune.prune(proto, 0.5, only="w1")
    except UsageError as error:
        assert "only" in error.message
        return
    assert result.plan.steps[0].remove
