"""Networks of torchvision and timm, pruned as ONNX and cut in PyTorch by the same plan: figures of docs/torch.md.

    python -m tests.measure.torch_round_trip [NAME ...]

Needs PyTorch, torchvision and timm. A name with a `timm/` in front is timm's. The networks have random weights,
biases included, and norms that have seen a few batches. Half of the units of all groups are removed; the table has the
largest difference between the smaller module and the pruned model under ONNX Runtime, relative to the largest output.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

import onnxprune
from onnxprune.model import load
from onnxprune.runtime import Session
from onnxprune.torch import masks, slim
from tests.graphs.torch_networks import Exporter, exported

NETWORKS = (
    "resnet18",
    "mobilenet_v2",
    "squeezenet1_1",
    "mnasnet0_5",
    "regnet_y_400mf",
    "timm/resnet10t",
    "timm/mobilenetv3_small_050",
    "timm/tinynet_e",
    "timm/ghostnet_050",
    "timm/efficientnet_lite0",
)
EXPORTERS: tuple[Exporter, ...] = ("torchscript", "dynamo")


def built(name: str) -> torch.nn.Module:
    """A network for inference, whose norms have statistics of their own."""
    torch.manual_seed(0)
    library, _, own = name.rpartition("/")
    if library:
        import timm

        module = timm.create_model(own)
    else:
        import torchvision

        module = torchvision.models.get_model(own, weights=None)
    for name, parameter in module.named_parameters():
        if parameter.ndim == 1:  # biases of zeros and norms of ones are all alike before training
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.1)
    with torch.no_grad():
        for _ in range(2):
            module.train()(torch.randn(4, 3, 96, 96))
    return module.eval()


def difference(module: torch.nn.Module, exporter: Exporter) -> tuple[float, float]:
    """The largest relative difference of the outputs, and the share of the parameters that is left."""
    inputs = (torch.randn(2, 3, 96, 96),)
    proto = exported(module, inputs, exporter, folding=True)
    plan = onnxprune.make_plan(proto, 0.5)
    smaller = onnxprune.apply(proto, plan)
    small = slim(module, masks(plan, proto, module))
    with Session(load(smaller), threads=1) as session:
        pruned = session.run({proto.graph.input[0].name: inputs[0].numpy()})[0]
    with torch.no_grad():
        made = small(*inputs).numpy()
    kept, whole = (sum(p.numel() for p in m.parameters()) for m in (small, module))
    return float(np.abs(made - pruned).max() / np.abs(pruned).max()), kept / whole


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    torch.set_num_threads(1)
    print(f"| network | params left | {' | '.join(EXPORTERS)} |\n|---|--:|--:|--:|")
    for name in parser.parse_args().networks:
        module, cells, left = built(name), [], ""
        for exporter in EXPORTERS:
            try:
                error, share = difference(module, exporter)
                cells.append(f"{error:.1e}")
                left = f"{share:.0%}"
            except Exception as error:  # noqa: BLE001 what cannot be carried over is the finding
                cells.append(f"{type(error).__name__}: {str(error).splitlines()[0][:90]}")
        print(f"| {name} | {left} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
