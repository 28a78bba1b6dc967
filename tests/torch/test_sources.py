"""What training code in PyTorch has at hand, given as it is: exported programs, data loaders, datasets."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import onnxprune
from onnxprune.model import load

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
from torch.utils.data import DataLoader, Dataset, TensorDataset  # noqa: E402

PICTURES = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
CLASSES = torch.arange(64) % 10


class Named(Dataset):
    """Samples as mappings, with a label that the model has no input for."""

    def __len__(self) -> int:
        """How many samples there are."""
        return len(PICTURES)

    def __getitem__(self, number: int) -> dict[str, Any]:
        """A sample."""
        return {"image": PICTURES[number], "label": CLASSES[number]}


def network() -> Any:
    """A small convolutional classifier."""
    torch.manual_seed(0)
    layers = torch.nn
    return layers.Sequential(
        layers.Conv2d(1, 16, 3, padding=1),
        layers.ReLU(),
        layers.Conv2d(16, 24, 3, stride=2),
        layers.ReLU(),
        layers.Flatten(),
        layers.Linear(216, 10),
    ).eval()


def exported() -> Any:
    """What the exporter returns."""
    pytest.importorskip("onnxscript", reason="the exporter of PyTorch needs onnxscript")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        batch = torch.export.Dim("batch")
        return torch.onnx.export(
            network(),
            (PICTURES[:2],),
            dynamo=True,
            verbose=False,
            input_names=["image"],
            dynamic_shapes=({0: batch},),
        )


LOADERS = {
    "pairs": lambda: DataLoader(TensorDataset(PICTURES, CLASSES), batch_size=16),
    "tensors": lambda: DataLoader(PICTURES, batch_size=16),
    "lists of one": lambda: DataLoader(TensorDataset(PICTURES), batch_size=16),
    "mappings": lambda: DataLoader(Named(), batch_size=16),
    "two workers": lambda: DataLoader(TensorDataset(PICTURES, CLASSES), batch_size=16, num_workers=2),
    "dataset of pairs": lambda: TensorDataset(PICTURES, CLASSES),
    "dataset of mappings": Named,
    "list of tensors": lambda: list(PICTURES),
    "tensor": lambda: PICTURES,
    "tensor with gradients": lambda: PICTURES.clone().requires_grad_(),
}


@pytest.mark.parametrize("kind", LOADERS)
def test_loaders_and_datasets_prune_as_arrays_do(kind: str):
    program, arrays = exported().model_proto, PICTURES.numpy()
    arrays = arrays.reshape(4, 16, 1, 8, 8) if isinstance(LOADERS[kind](), DataLoader) else arrays[None]
    wanted = load(onnxprune.prune(program, ratio=0.5, data=[{"image": array} for array in arrays]).model)
    found = load(onnxprune.prune(program, ratio=0.5, data=LOADERS[kind]()).model)
    assert found.initializers.keys() == wanted.initializers.keys()
    for name in wanted.initializers:
        assert np.allclose(found.array(name), wanted.array(name), rtol=1e-3, atol=1e-4), name


def test_an_exported_program_is_pruned_like_its_file(tmp_path):
    program = exported()
    program.save(tmp_path / "net.onnx")
    direct = onnxprune.prune(program, ratio=0.5)
    through_file = onnxprune.prune(str(tmp_path / "net.onnx"), ratio=0.5)
    assert direct.report.after == through_file.report.after
    one, other = load(direct.model), load(through_file.model)
    assert all(np.array_equal(one.array(name), other.array(name)) for name in one.initializers)
    of_ir = onnxprune.prune(program.model, ratio=0.5)
    assert type(of_ir.model) is type(program.model) and of_ir.report.after == direct.report.after


def test_training_with_the_labels_of_a_loader():
    result = onnxprune.train(exported(), DataLoader(TensorDataset(PICTURES, CLASSES), batch_size=16), 3, labels="label")
    assert result.report.after <= result.report.before
