"""Several models as one, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxprune.errors import ModelError
from onnxprune.model import Joined, join, load, save
from tests.graphs.branches import in_branches
from tests.graphs.folders import Family, encoder, write_pair
from tests.graphs.net import Net, run
from tests.graphs.skip_norms import stream


def joined(folder: Path) -> Joined:
    return join({path.stem: load(path) for path in sorted(folder.glob("*.onnx"))}, folder)


def test_there_and_back(tmp_path: Path) -> None:
    """Every graph comes back with its names, its order and its numbers; shared weights were one."""
    whole = joined(write_pair(tmp_path / "pair"))
    assert len(whole.files) == 3
    names = [tensor.name for tensor in whole.model.proto.graph.initializer]
    assert sum(name.endswith("embed.weight") for name in names) == 1
    onnx.checker.check_model(whole.model.proto, full_check=True)
    for name, model in whole.split(whole.model).items():
        before = whole.files[name].proto
        assert [n.SerializeToString() for n in model.proto.graph.node] == [
            n.SerializeToString() for n in before.graph.node
        ]
        assert list(model.proto.graph.input) == list(before.graph.input)
        assert list(model.proto.graph.output) == list(before.graph.output)
        ours, theirs = (
            {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer} for proto in (model.proto, before)
        )
        assert ours.keys() == theirs.keys()
        assert all(np.array_equal(ours[key], theirs[key]) for key in ours)


def test_a_weight_that_is_stored_twice(tmp_path: Path) -> None:
    """As norms at their start are: all of them come back under their names."""
    net = Net()
    x = net.add("Mul", net.input((2, 3)), net.const(np.ones(3, np.float32), "first"))
    net.output(net.add("Mul", x, net.const(np.ones(3, np.float32), "second")))
    whole = join({"one": net.model(), "two": net.model()}, tmp_path)
    assert [t.name for t in whole.model.proto.graph.initializer] == ["one/first", "one/second"]
    for model in whole.split(whole.model).values():
        assert model.proto.graph.node == net.proto().graph.node
        assert [t.name for t in model.proto.graph.initializer] == ["first", "second"]


def test_names_in_bodies(tmp_path: Path) -> None:
    """A branch reads what stands around it, by its new name; and back."""
    net = Net()
    net.output(net.add("MatMul", net.input((2, 3)), net.weight(3, 4)))
    proto = in_branches(net.proto())
    whole = join({"one": load(proto), "two": load(proto)}, tmp_path)
    onnx.checker.check_model(whole.model.proto, full_check=True)
    for model in whole.split(whole.model).values():
        assert run(model.proto).keys() == run(proto).keys()
        assert model.proto.graph.node == proto.graph.node


def test_optional_outputs_that_are_left_out(tmp_path: Path) -> None:
    """They have the empty name, in all files: it leads from none to another."""
    whole = join({"one": load(stream()), "two": load(stream(layers=2))}, tmp_path)
    for name, model in whole.split(whole.model).items():
        assert list(model.proto.graph.node) == list(whole.files[name].proto.graph.node)
        np.testing.assert_array_equal(run(model.proto)["y"], run(whole.files[name].proto)["y"])


def test_external_data_in_folders_below(tmp_path: Path) -> None:
    family = Family()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        how = {"save_as_external_data": True, "size_threshold": 100, "location": f"{name}.data"}
        encoder(family).save(tmp_path / name / "model.onnx", **how)
    whole = join({name: load(tmp_path / name / "model.onnx") for name in ("a", "b")}, tmp_path)
    for name, model in whole.split(whole.model).items():
        save(model, tmp_path / f"{name}.onnx", external=f"{name}_weights")
        assert (tmp_path / f"{name}_weights").stat().st_size > 1000
        one, other = load(tmp_path / f"{name}.onnx"), load(tmp_path / name / "model.onnx")
        assert one.initializers.keys() == other.initializers.keys()
        assert all(np.array_equal(one.array(key), other.array(key)) for key in one.initializers)


def test_one_model_is_as_it_was(tmp_path: Path) -> None:
    model = encoder(Family()).net.model()
    whole = join({"model": model}, tmp_path)
    assert whole.model is model and whole.split(model) == {"model": model}
    assert whole.own_name("model/x") == "model/x" and whole.owner("model/x") == ""


def test_different_opsets_are_refused(tmp_path: Path) -> None:
    models = {}
    for opset in (16, 17):
        net = Net(opset)
        net.output(net.add("Relu", net.input((2, 3))))
        models[str(opset)] = net.model()
    with pytest.raises(ModelError, match=r"version 17 of ai\.onnx"):
        join(models, tmp_path)
