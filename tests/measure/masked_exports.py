"""Networks masked by `torch.nn.utils.prune`, exported by both exporters; run by an interpreter that has PyTorch.

    python tests/measure/masked_exports.py FOLDER

Filters of convolutions and rows of linear layers are masked by their norms (`ln_structured` along the outputs), as the
documentation of PyTorch shows it: biases and the norms behind stay as they are. `*_bn` also has zeros in the scale and
shift of the norm behind a masked filter, as training with a penalty on them leaves it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import prune

AMOUNT = 0.3


class Residual(nn.Module):
    """Two convolutions with norms beside a skip."""

    def __init__(self, width: int) -> None:
        """Of one width."""
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block."""
        y = torch.relu(self.norms[0](self.first(x)))
        return torch.relu(x + self.norms[1](self.second(y)))


class Beside(nn.Module):
    """A part beside a skip."""

    def __init__(self, part: nn.Module) -> None:
        """Of any part whose output has the shape of its input."""
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The sum."""
        return x + self.part(x)


def networks() -> Iterator[tuple[str, nn.Module, torch.Tensor]]:
    """Name, network and an input of each."""
    image = torch.randn(2, 3, 16, 16)
    lenet = [nn.Conv2d(3, 12, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(12, 20, 5), nn.ReLU(), nn.Flatten()]
    yield "lenet", nn.Sequential(*lenet, nn.Linear(80, 48), nn.ReLU(), nn.Linear(48, 10)), image
    mlp = [nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 5)]
    yield "mlp", nn.Sequential(*mlp), torch.randn(2, 32)
    vgg: list[nn.Module] = []
    for inner, outer in ((3, 16), (16, 32), (32, 32)):
        vgg += [nn.Conv2d(inner, outer, 3, padding=1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
    yield "vgg", nn.Sequential(*vgg, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)), image
    blocks = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), Residual(16), Residual(16)]
    yield "resnet", nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)), image
    inner = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 32))
    yield "feedforward", nn.Sequential(Beside(inner), nn.Linear(32, 8)), torch.randn(2, 6, 32)


def masked(network: nn.Module, *, norms: bool) -> dict[str, int]:
    """Mask rows of all layers but the last; name of a weight -> how many rows."""
    layers = [(name, m) for name, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    found = {}
    for name, layer in layers[:-1]:
        prune.ln_structured(layer, "weight", amount=AMOUNT, n=2, dim=0)
        prune.remove(layer, "weight")
        found[f"{name}.weight"] = int((layer.weight.flatten(1) == 0).all(dim=1).sum())
    modules = list(network.modules())
    for first, second in pairwise(modules):
        if norms and isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
            dead = (first.weight.flatten(1) == 0).all(dim=1)
            second.weight.data[dead], second.bias.data[dead] = 0, 0
    return found


def main() -> None:
    """Write all files and an account of what was masked."""
    folder, account = Path(sys.argv[1]), {}
    for norms in (False, True):
        torch.manual_seed(0)
        for name, network, example in networks():
            has_norms = any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
            if norms and not has_norms:
                continue
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):  # as training leaves them
                    nn.init.normal_(module.weight, 1.0, 0.2), nn.init.normal_(module.bias, 0.0, 0.2)
            rows = masked(network.eval(), norms=norms)
            for exporter in ("torchscript", "dynamo"):
                title = f"{name}{'_bn' if norms else ''}-{exporter}"
                path = str(folder / f"{title}.onnx")
                if exporter == "dynamo":
                    torch.onnx.export(network, (example,), path, dynamo=True, external_data=False, verbose=False)
                else:
                    torch.onnx.export(network, (example,), path, dynamo=False)
                account[title] = rows
    (folder / "masked.json").write_text(json.dumps(account), encoding="utf-8")


if __name__ == "__main__":
    main()
