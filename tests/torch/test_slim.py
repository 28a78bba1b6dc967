"""Cuts carried over to the modules that models were exported from: smaller modules that equal the pruned models."""

from __future__ import annotations

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)

import onnxprune  # noqa: E402
from onnxprune.errors import GoalMissed, UsageError  # noqa: E402
from onnxprune.model import load  # noqa: E402
from onnxprune.runtime import Session  # noqa: E402
from onnxprune.torch import masks, slim  # noqa: E402
from tests.graphs.torch_networks import NETWORKS, BertLayer, Exporter, exported  # noqa: E402

EXPORTS = [("torchscript", True), ("torchscript", False), ("dynamo", True)]
FEW = ["ResNet-20", "MobileNetV3-small", "GRU", "U-Net"]
MANY = ["EfficientNet-B0", "ConvNeXt-atto", "LSTM", "DCGAN", "ResNet-18", "DenseNet-121"]


def heads_set(module: torch.nn.Module) -> None:
    """Tell the layers of an encoder how many heads they have left."""
    for layer in module.modules():
        if isinstance(layer, BertLayer):
            layer.heads = layer.query.out_features // 16


@functools.cache
def export(name: str, exporter: Exporter, folding: bool) -> tuple:
    network = NETWORKS[name]
    if not network.is_there:
        pytest.skip(f"{network.needs} is not installed")
    module, inputs = network.module(), network.inputs(2)
    return module, inputs, exported(module, inputs, exporter, folding=folding)


def check(name: str, exporter: Exporter, folding: bool, **options: object) -> None:
    module, inputs, proto = export(name, exporter, folding)
    plan = onnxprune.make_plan(proto, 0.5, **{k: v for k, v in options.items() if k != "adjust"})
    smaller = onnxprune.apply(proto, plan)
    small = slim(module, masks(plan, proto, module), pruned=smaller, example=inputs, adjust=options.get("adjust"))
    assert sum(p.numel() for p in small.parameters()) < 0.75 * sum(p.numel() for p in module.parameters())
    with Session(load(smaller), threads=1) as session:
        feeds = {i.name: tensor.numpy() for i, tensor in zip(proto.graph.input, inputs, strict=True)}
        pruned = session.run(feeds)[0]
    with torch.no_grad():
        made = small(*inputs).numpy()
    assert np.abs(made - pruned).max() <= 1e-5 * np.abs(pruned).max()


@pytest.mark.parametrize(("exporter", "folding"), EXPORTS)
@pytest.mark.parametrize("name", [*FEW, *(pytest.param(name, marks=pytest.mark.long) for name in MANY)])
def test_the_smaller_module_equals_the_pruned_model(name: str, exporter: Exporter, folding: bool) -> None:
    check(name, exporter, folding)


@pytest.mark.parametrize(("exporter", "folding"), EXPORTS)
def test_a_module_that_stores_sizes_is_told(exporter: Exporter, folding: bool) -> None:
    check("BERT-like", exporter, folding, adjust=heads_set)


def test_a_module_that_stores_sizes_and_is_not_told_is_refused() -> None:
    with pytest.raises(GoalMissed, match="smaller module"):
        check("BERT-like", "torchscript", False)


@pytest.mark.parametrize("folding", [False, True])
def test_whole_heads_stay_where_they_are_locked(folding: bool) -> None:
    check("ViT-tiny", "torchscript", folding, heads=False)


def test_a_smaller_module_trains_and_is_exported_again() -> None:
    module, inputs, proto = export("ResNet-20", "torchscript", True)
    plan = onnxprune.make_plan(proto, 0.5)
    small = slim(module, masks(plan, proto, module)).train()
    small(*inputs).square().mean().backward()
    assert all(p.grad is not None for p in small.parameters())
    again = exported(small.eval(), inputs, "torchscript")
    pruned = onnxprune.apply(proto, plan)
    assert [list(t.dims) for t in again.graph.initializer] == [list(t.dims) for t in pruned.graph.initializer]


def test_masks_of_another_module_are_refused() -> None:
    with pytest.raises(UsageError, match="no parameter 'weight2'"):
        slim(torch.nn.Linear(2, 2), {"weight2": np.ones((2, 2), bool)})
    with pytest.raises(UsageError, match="Bilinear gets smaller"):
        slim(torch.nn.Bilinear(4, 4, 4), {"bias": np.array([1, 0, 1, 1], bool)})


def test_a_wrong_mask_is_seen_by_the_proof() -> None:
    module, inputs, proto = export("ResNet-20", "torchscript", True)
    plan = onnxprune.make_plan(proto, 0.5)
    found, smaller = masks(plan, proto, module), onnxprune.apply(proto, plan)
    wrong = {**found, "3.conv1.weight": found["3.conv1.weight"][::-1]}
    with pytest.raises(GoalMissed, match="differs from the pruned model"):
        slim(module, wrong, pruned=smaller, example=inputs)


@pytest.mark.parametrize(
    ("layer", "masks_of", "attributes"),
    [
        (torch.nn.Conv2d(8, 8, 3, groups=8), {"weight": (0, 6), "bias": (0, 6)}, {"groups": 6, "in_channels": 6}),
        (torch.nn.Conv2d(8, 8, 3, groups=2), {"weight": (0, slice(4, 8))}, {"groups": 1, "out_channels": 4}),
        (torch.nn.ConvTranspose1d(4, 6, 2), {"weight": (1, 3), "bias": (0, 3)}, {"out_channels": 3}),
        (torch.nn.GroupNorm(4, 8), {"weight": (0, 4), "bias": (0, 4)}, {"num_groups": 2, "num_channels": 4}),
        (torch.nn.LayerNorm(8), {"weight": (0, 4), "bias": (0, 4)}, {"normalized_shape": (4,)}),
        (torch.nn.Embedding(9, 8), {"weight": (1, 4)}, {"embedding_dim": 4, "num_embeddings": 9}),
        (torch.nn.PReLU(8), {"weight": (0, 4)}, {"num_parameters": 4}),
    ],
)
def test_layers_know_their_new_sizes(layer: torch.nn.Module, masks_of: dict, attributes: dict) -> None:
    cut = {}
    for name, (axis, kept) in masks_of.items():
        mask = np.zeros(tuple(layer.get_parameter(name).shape), bool)
        mask[(slice(None),) * axis + (kept if isinstance(kept, slice) else slice(kept),)] = True
        cut[name] = mask
    small = slim(torch.nn.Sequential(layer), {f"0.{name}": mask for name, mask in cut.items()})[0]
    assert {name: getattr(small, name) for name in attributes} == attributes
