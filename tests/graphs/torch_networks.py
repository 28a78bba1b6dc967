"""Networks of PyTorch by name, with inputs, and their exports; needs PyTorch."""

from __future__ import annotations

import importlib.util
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import onnx
import torch
import torch.nn.functional as F
from torch import nn

Exporter = Literal["torchscript", "dynamo"]
EXPORTERS: Sequence[Exporter] = ("torchscript", "dynamo")


@dataclass(frozen=True)
class Network:
    """A network.

    Attributes:
        name: as it is called in tables.
        kind: what it is made of: "convolutions", "transformer", "recurrence", "decoder".
        make: makes the module.
        inputs: makes inputs for a batch.
        needs: library that it comes from.
    """

    name: str
    kind: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[torch.Tensor, ...]]
    needs: str = "torch"

    @property
    def is_there(self) -> bool:
        """Whether the library is installed."""
        return importlib.util.find_spec(self.needs) is not None

    def module(self, seed: int = 0) -> nn.Module:
        """The module for inference, with weights and statistics that are all different."""
        torch.manual_seed(seed)
        module = self.make().eval()
        with torch.no_grad():
            # Zeros and ones that training would have moved: exporters make one tensor of equal ones.
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point() and tensor.ndim and bool((tensor == tensor.reshape(-1)[0]).all()):
                    tensor.add_(torch.empty_like(tensor).uniform_(-0.2, 0.2))
        return module


def image(size: int, channels: int = 3) -> Callable[[int], tuple[torch.Tensor, ...]]:
    """Random pictures."""
    return lambda batch: (torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(1)),)


def tokens(length: int, words: int) -> Callable[[int], tuple[torch.Tensor, ...]]:
    """Random token numbers."""
    return lambda batch: (torch.randint(0, words, (batch, length), generator=torch.Generator().manual_seed(1)),)


# --- networks of one's own ---------------------------------------------------------------------------------


class Block(nn.Module):
    """The residual block of a network for small pictures (He et al. 2016)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outer)
        self.short = nn.Sequential()
        if stride != 1 or inner != outer:
            self.short = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.short(x))


def resnet20() -> nn.Module:
    """ResNet-20 for pictures of 32 x 32."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    inner = 16
    for outer, stride in ((16, 1), (32, 2), (64, 2)):
        for k in range(3):
            layers.append(Block(inner, outer, stride if k == 0 else 1))
            inner = outer
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class Bert(nn.Module):
    """An encoder of text like BERT: learned positions, norms behind the sums, GELU."""

    def __init__(self, words: int, width: int, depth: int, heads: int, length: int = 128) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList([BertLayer(width, heads) for _ in range(depth)])
        self.head = nn.Linear(width, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.words(ids) + self.places(torch.arange(ids.shape[1])))
        for layer in self.layers:
            x = layer(x)
        return self.head(x[:, 0])


class BertLayer(nn.Module):
    """One layer of an encoder."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output, self.norm1 = nn.Linear(width, width), nn.LayerNorm(width)
        self.up, self.down, self.norm2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-1] // self.heads
        q, k, v = (
            m(x).reshape(x.shape[0], -1, self.heads, size).transpose(1, 2) for m in (self.query, self.key, self.value)
        )
        mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(size), -1) @ v
        x = self.norm1(x + self.output(mixed.transpose(1, 2).reshape(x.shape)))
        return self.norm2(x + self.down(F.gelu(self.up(x))))


class RMSNorm(nn.Module):
    """Root mean square norm, written out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(width) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class LlamaLayer(nn.Module):
    """One layer of a decoder with rotary positions, shared keys and a gated MLP."""

    def __init__(self, width: int, heads: int, shared: int, length: int) -> None:
        super().__init__()
        self.heads, self.shared, self.size = heads, shared, width // heads
        self.norm1, self.norm2 = RMSNorm(width), RMSNorm(width)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, shared * self.size, bias=False)
        self.v = nn.Linear(width, shared * self.size, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(3 * width, width, bias=False)
        angle = torch.outer(torch.arange(length), 1e4 ** (-torch.arange(0, self.size, 2) / self.size)).repeat(1, 2)
        self.register_buffer("cos", angle.cos())
        self.register_buffer("sin", angle.sin())
        self.register_buffer("later", torch.full((length, length), -1e9).triu(1))

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.chunk(2, -1)
        return x * self.cos + torch.cat([-b, a], -1) * self.sin

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        y = self.norm1(x)
        q = self.rotated(self.q(y).reshape(batch, length, self.heads, self.size).transpose(1, 2))
        k = self.rotated(self.k(y).reshape(batch, length, self.shared, self.size).transpose(1, 2))
        v = self.v(y).reshape(batch, length, self.shared, self.size).transpose(1, 2)
        k, v = (t.repeat_interleave(self.heads // self.shared, 1) for t in (k, v))
        mixed = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(self.size) + self.later, -1) @ v
        x = x + self.o(mixed.transpose(1, 2).reshape(batch, length, width))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


def llama(words: int, width: int, depth: int, length: int) -> nn.Module:
    """A small decoder of text."""
    layers = [LlamaLayer(width, 8, 4, length) for _ in range(depth)]
    return nn.Sequential(nn.Embedding(words, width), *layers, RMSNorm(width), nn.Linear(width, words, bias=False))


class Recurrent(nn.Module):
    """A recurrent classifier of sequences."""

    def __init__(self, kind: type[nn.RNNBase], width: int, hidden: int, *, depth: int = 1, both: bool = False) -> None:
        super().__init__()
        self.cell = kind(width, hidden, depth, batch_first=True, bidirectional=both)
        self.head = nn.Linear(hidden * (1 + both), 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.cell(x)[0][:, -1])


class UNet(nn.Module):
    """Down by pooling, up by transposed convolution and by resampling, with a bridge."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, width, 3, 1, 1), nn.GroupNorm(4, width), nn.SiLU())
        self.down2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 1, 1), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.1))
        self.bottom = nn.Sequential(nn.Conv2d(2 * width, 4 * width, 3, 1, 1), nn.ELU())
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.mix2 = nn.Conv2d(4 * width, 2 * width, 3, 1, 1)
        self.mix1 = nn.Conv2d(3 * width, width, 3, 1, 1)
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        c = self.up2(self.bottom(F.avg_pool2d(b, 2)))
        c = F.hardswish(self.mix2(torch.cat([c, b], 1)))
        c = F.interpolate(c, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.head(torch.sigmoid(self.mix1(torch.cat([c, a], 1))))


def generator() -> nn.Module:
    """A decoder of pictures from noise (Radford et al. 2016)."""
    layers: list[nn.Module] = [nn.ConvTranspose2d(16, 64, 4, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    for inner, outer in ((64, 32), (32, 16)):
        layers += [nn.ConvTranspose2d(inner, outer, 4, 2, 1, bias=False), nn.BatchNorm2d(outer), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Tanh())


def from_torchvision(name: str, **options: Any) -> Callable[[], nn.Module]:
    """A network of torchvision, with random weights."""

    def make() -> nn.Module:
        from torchvision import models

        return models.get_model(name, weights=None, **options)

    return make


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, num_classes=10, **options)

    return make


def noise(*shape: int) -> Callable[[int], tuple[torch.Tensor, ...]]:
    """Normally distributed numbers, [batch, *shape]."""
    return lambda batch: (torch.randn(batch, *shape, generator=torch.Generator().manual_seed(1)),)


CONVOLUTIONS, TRANSFORMER, RECURRENCE, DECODER = "convolutions", "transformer", "recurrence", "decoder"
NETWORKS: Mapping[str, Network] = {
    n.name: n
    for n in (
        Network("ResNet-20", CONVOLUTIONS, resnet20, image(32)),
        Network("ResNet-18", CONVOLUTIONS, from_torchvision("resnet18", num_classes=10), image(64), "torchvision"),
        Network(
            "MobileNetV2", CONVOLUTIONS, from_torchvision("mobilenet_v2", num_classes=10), image(64), "torchvision"
        ),
        Network(
            "MobileNetV3-small",
            CONVOLUTIONS,
            from_torchvision("mobilenet_v3_small", num_classes=10),
            image(64),
            "torchvision",
        ),
        Network(
            "ShuffleNetV2",
            CONVOLUTIONS,
            from_torchvision("shufflenet_v2_x0_5", num_classes=10),
            image(64),
            "torchvision",
        ),
        Network(
            "DenseNet-121", CONVOLUTIONS, from_torchvision("densenet121", num_classes=10), image(64), "torchvision"
        ),
        Network("EfficientNet-B0", CONVOLUTIONS, _timm("efficientnet_b0"), image(64), "timm"),
        Network("ConvNeXt-atto", CONVOLUTIONS, _timm("convnext_atto"), image(64), "timm"),
        Network("ViT-tiny", TRANSFORMER, _timm("vit_tiny_patch16_224", img_size=64), image(64), "timm"),
        Network("BERT-like", TRANSFORMER, lambda: Bert(200, 64, 2, 4), tokens(16, 200)),
        Network("LLaMA-like", TRANSFORMER, lambda: llama(200, 64, 2, 16), tokens(16, 200)),
        Network("LSTM", RECURRENCE, lambda: Recurrent(nn.LSTM, 12, 24, both=True), noise(10, 12)),
        Network("GRU", RECURRENCE, lambda: Recurrent(nn.GRU, 12, 24, depth=2), noise(10, 12)),
        Network("U-Net", DECODER, UNet, image(32)),
        Network("DCGAN", DECODER, generator, noise(16, 1, 1)),
    )
}


def exported(
    module: nn.Module, inputs: Sequence[torch.Tensor], exporter: Exporter, *, folding: bool = True
) -> onnx.ModelProto:
    """Export a module to ONNX.

    Args:
        module: the module, for inference.
        inputs: its inputs.
        exporter: which of PyTorch's exporters.
        folding: whether the exporter may fold constants; TorchScript only.
    """
    with (
        TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
    ):
        warnings.simplefilter("ignore")
        if exporter == "dynamo":
            path = Path(folder) / "model.onnx"
            torch.onnx.export(module, tuple(inputs), path, dynamo=True, verbose=False)
            return onnx.load(path)
        stream = BytesIO()
        torch.onnx.export(
            module, tuple(inputs), stream, dynamo=False, opset_version=17, do_constant_folding=folding, verbose=False
        )
        return onnx.load_from_string(stream.getvalue())
