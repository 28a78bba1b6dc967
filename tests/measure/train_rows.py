"""Train small classifiers of MNIST pictures for `tests/measure/accuracy_recurrent.py`.

    python tests/measure/train_rows.py GRU rows_gru.onnx [--hidden 96] [--epochs 12] [--directions 1]

GRU, LSTM and RNN read the pictures row by row; `flat`, `line` and `many` have a layer with more than 6,144 inputs:
behind a Flatten, in a perceptron, and a convolution of 700 channels. Needs PyTorch, and the folder of shared data
(ONNXPRUNE_SHARED). The first 8,000 of the 10,000 test pictures train.
"""

from __future__ import annotations

import argparse
import gzip
import os
from pathlib import Path

import numpy as np
import torch


class Reader(torch.nn.Module):
    """A recurrent layer over the rows, and a classifier of its last output."""

    def __init__(self, kind: str, hidden: int, directions: int) -> None:
        super().__init__()
        options = {"batch_first": False, "bidirectional": directions == 2}
        self.layer = getattr(torch.nn, kind)(28, hidden, **options)
        self.head = torch.nn.Linear(hidden * directions, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[n, 28, 28] to [n, 10]."""
        return self.head(self.layer(x.transpose(0, 1))[0].mean(dim=0))


def wide(kind: str) -> torch.nn.Module:
    """A network with a wide layer."""
    nn, image = torch.nn, torch.nn.Unflatten(1, (1, 28))
    if kind == "line":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 6400), nn.ReLU(), nn.Linear(6400, 10))
    if kind == "flat":
        convolutions = (nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 48, 3), nn.ReLU(), nn.MaxPool2d(2))
        return nn.Sequential(image, *convolutions, nn.Flatten(), nn.Linear(6912, 128), nn.ReLU(), nn.Linear(128, 10))
    many = (nn.Conv2d(1, 16, 3, 2), nn.ReLU(), nn.Conv2d(16, 700, 3, 2), nn.ReLU(), nn.Conv2d(700, 32, 3), nn.ReLU())
    return nn.Sequential(image, *many, nn.Flatten(), nn.Linear(512, 10))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("GRU", "LSTM", "RNN", "flat", "line", "many"))
    parser.add_argument("file")
    parser.add_argument("--hidden", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--directions", type=int, default=1)
    given = parser.parse_args()
    folder = Path(os.environ["ONNXPRUNE_SHARED"]) / "data" / "mnist"
    raw, labels = (
        np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=offset).copy()
        for name, offset in (("t10k-images-idx3-ubyte.gz", 16), ("t10k-labels-idx1-ubyte.gz", 8))
    )
    x = torch.tensor(raw.reshape(-1, 28, 28).astype(np.float32) / 255)
    y = torch.tensor(labels.astype(np.int64))
    torch.manual_seed(0)
    torch.set_num_threads(1)
    recurrent = given.kind.isupper()
    model = Reader(given.kind, given.hidden, given.directions) if recurrent else wide(given.kind)
    steps = given.epochs * (8000 // 64)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for step in range(steps):
        drawn = torch.randint(0, 8000, (64,))
        loss = torch.nn.functional.cross_entropy(model(x[drawn]), y[drawn])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        if step % 250 == 0:
            print(step, float(loss), flush=True)
    model.eval()
    print(f"{float((model(x[8000:]).argmax(dim=1) == y[8000:]).float().mean()):.2%}")
    axes = {"x": {0: "n"}, "logits": {0: "n"}}
    names = {"input_names": ["x"], "output_names": ["logits"], "dynamic_axes": axes}
    torch.onnx.export(model, (x[:2],), given.file, opset_version=17, dynamo=False, **names)


if __name__ == "__main__":
    main()
