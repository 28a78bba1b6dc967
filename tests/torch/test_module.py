"""A model as a PyTorch module: the same outputs, the same gradients, and back by name."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

torch = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)

from onnxprune.autodiff import GradientSession, build_vjp  # noqa: E402
from onnxprune.errors import ModelError, UsageError  # noqa: E402
from onnxprune.model import load  # noqa: E402
from onnxprune.runtime import Session, Setting  # noqa: E402
from onnxprune.torch import from_module, to_module  # noqa: E402
from tests.graphs import shared  # noqa: E402
from tests.graphs.net import Net  # noqa: E402
from tests.measure.torch_rules import torch_gradients  # noqa: E402

DIGITS = Path(__file__).parents[2] / "models" / "digits.onnx"


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((count, 1, 8, 8), np.float32)


def test_parameters_have_the_names_and_values_of_the_initializers() -> None:
    module, model = to_module(DIGITS), load(DIGITS)
    stored = {t.name: model.array(t) for t in model.proto.graph.initializer}
    for name, parameter in module.named_parameters():
        assert np.array_equal(parameter.detach().numpy(), stored[name])
    assert "conv.weight" in dict(module.named_parameters())


def test_outputs_equal_those_of_the_runtime() -> None:
    with Session(load(DIGITS)) as session:
        expected = session.run({"image": images()})[0]
    module = to_module(DIGITS)
    made = module(torch.from_numpy(images())).detach().numpy()
    assert np.abs(made - expected).max() < 1e-5 * np.abs(expected).max()
    assert torch.equal(module(image=torch.from_numpy(images())), module(torch.from_numpy(images())))


def test_gradients_equal_those_of_autodiff() -> None:
    feeds = {"image": images()}
    graph = build_vjp(load(DIGITS), feeds)
    rng = np.random.default_rng(0)
    along = {name: rng.standard_normal(shape).astype(dtype) for name, (shape, dtype) in graph.targets.items()}
    with GradientSession(graph, Setting(threads=1)) as session:
        expected = session.evaluate({**feeds, **along}, graph.parameters).gradients
    made = torch_gradients(to_module(DIGITS), feeds, along)
    assert set(made) == set(expected)
    for name, gradient in expected.items():
        assert np.abs(gradient - made[name]).max() <= 1e-5 * np.abs(gradient).max(), name


def test_what_a_training_loop_changes_is_written_back() -> None:
    module = to_module(DIGITS)
    optimizer = torch.optim.Adam(module.parameters(), 1e-2)
    module(torch.from_numpy(images())).square().mean().backward()
    optimizer.step()
    trained = from_module(DIGITS, module)
    with Session(trained) as session:
        written = session.run({"image": images()})[0]
    expected = module(torch.from_numpy(images())).detach().numpy()
    assert np.abs(written - expected).max() < 1e-5 * np.abs(expected).max()
    with Session(load(DIGITS)) as session:
        assert np.abs(session.run({"image": images()})[0] - expected).max() > 1e-3


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, lambda m: m], ids=["parallel", "plain"])
def test_wrapped_modules_are_written_back(wrap: object) -> None:
    module = to_module(DIGITS)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(2)
    written = from_module(DIGITS, wrap(module))  # type: ignore[operator]
    assert np.array_equal(written.array("conv.weight"), 2 * load(DIGITS).array("conv.weight"))


def test_modules_are_copied_and_saved_like_others() -> None:
    module = to_module(DIGITS)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    x = torch.from_numpy(images())
    assert not torch.allclose(twin(x), module(x))
    buffer = io.BytesIO()
    torch.save(module.state_dict(), buffer)
    buffer.seek(0)
    twin.load_state_dict(torch.load(buffer))
    assert torch.equal(twin(x), module(x))
    assert to_module(DIGITS).double()(x.double()).dtype == torch.float64


def test_mixed_precision_trains() -> None:
    module = to_module(DIGITS)
    with torch.autocast("cpu", torch.bfloat16):
        loss = module(torch.from_numpy(images())).float().square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in module.parameters())


def test_names_like_attributes_of_a_module_are_no_trouble() -> None:
    net = Net()
    x = net.input([2, 4], "x")
    rng = np.random.default_rng(0)
    first = net.const(rng.standard_normal((4, 4)).astype(np.float32), "layer.type.weight")
    second = net.const(rng.standard_normal((4, 3)).astype(np.float32), "half")
    net.output(net.add("MatMul", net.add("MatMul", x, first), second))
    module = to_module(net.model())
    assert {name for name, _ in module.named_parameters()} == {"layer.type.weight", "half"}
    module.load_state_dict(module.state_dict())
    module.eval()
    assert module(torch.ones(2, 4)).shape == (2, 3)


def one(operator: str, *, domain: str = "", **attributes: object) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x"], ["y"], name="odd", domain=domain, **attributes)
    kinds = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, 3]) for n in "xy"]
    graph = helper.make_graph([node], "one", kinds[:1], kinds[1:])
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid(domain, 1)] if domain else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_an_operator_without_a_rule_is_named() -> None:
    with pytest.raises(ModelError, match=r"com\.example::Odd \(node 'odd'\)"):
        to_module(one("Odd", domain="com.example"))


def test_what_pytorch_refuses_names_the_node() -> None:
    with pytest.raises(ModelError, match="Relu 'odd'"):
        to_module(one("Relu"))("no tensor")


def test_wrong_inputs_are_told() -> None:
    module = to_module(DIGITS)
    with pytest.raises(UsageError, match="'image' is not fed"):
        module()
    with pytest.raises(UsageError, match="'picture' is not an input"):
        module(torch.from_numpy(images()), picture=1)
    with pytest.raises(UsageError, match="takes 1 inputs, not 2"):
        module(1, 2)


def test_modules_of_other_names_are_refused() -> None:
    with pytest.raises(UsageError, match="name of an initializer"):
        from_module(DIGITS, torch.nn.Linear(2, 2))
    with pytest.raises(UsageError, match="no float initializer matches"):
        to_module(DIGITS, parameters=["nothing*"])


def test_chosen_parameters_are_the_only_ones() -> None:
    module = to_module(DIGITS, parameters=["conv.*"])
    assert {name for name, _ in module.named_parameters()} == {"conv.weight", "conv.bias"}


def test_branches_go_as_the_data_says() -> None:
    def body(name: str, operator: str) -> onnx.GraphProto:
        out = helper.make_tensor_value_info(f"{name}_y", onnx.TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(operator, ["x"], [f"{name}_y"])], name, [], [out])

    nodes = [
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["y"], then_branch=body("a", "Exp"), else_branch=body("b", "Neg")),
    ]
    kinds = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2]) for n in "xy"]
    zero = onnx.numpy_helper.from_array(np.float32(0), "zero")
    graph = helper.make_graph(nodes, "branches", kinds[:1], kinds[1:], [zero])
    module = to_module(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))
    ones = torch.ones(2)
    assert torch.equal(module(ones), torch.exp(ones))
    assert torch.equal(module(-ones), ones)


MODELS = ["cifar_resnet20_ts_op11", "silero_vad_op15", "cntk_mnist8", "dtln_1", "g2p_arpabet", "hand_landmark"]


@pytest.mark.skipif(shared.folder() is None, reason=shared.ABSENT)
@pytest.mark.parametrize("name", MODELS)
def test_trained_models_give_the_same(name: str) -> None:
    (entry,) = shared.entries(f"models/{name}")
    feeds = shared.sample_inputs(name, 1)[0]
    with Session(load(entry.path), threads=1) as session:
        expected = session.run(feeds)
    made = to_module(entry.path)(**{k: torch.from_numpy(v) for k, v in feeds.items()})
    for a, b in zip(made if isinstance(made, tuple) else (made,), expected, strict=True):
        assert np.abs(a.detach().numpy() - b).max() <= 2e-5 * max(np.abs(b).max(), 1)
