"""Train the small digit classifier of this folder: `python models/train_digits.py` (under two minutes).

Needs scikit-learn, for its digits data set only (1,797 grey images of 8 x 8 pixels); training is plain numpy.
Writes, next to this file:

- digits.onnx: input `image` [batch, 1, 8, 8], pixels from 0 to 1; output `logits` [batch, 10];
- digits_test.npz: the 360 images that were held out, and their labels;
- digits_calibration.npz: 256 training images without labels.

The network is wider than the task needs, so that there is something to prune: a stem of two convolutions, a
residual block of two more (its width is tied to the stem), and a hidden layer that reads flattened channels.
"""

from pathlib import Path

import numpy as np
import onnx
from net import Net

FOLDER = Path(__file__).parent
SEED, EPOCHS, BATCH, RATE, DECAY = 0, 30, 64, 2e-3, 0.02
rng = np.random.default_rng(SEED)


class Conv:
    """3x3 convolution that keeps the size, as one matrix product over unrolled patches."""

    def __init__(self, cin, cout):
        self.weight = rng.normal(0, np.sqrt(2 / (9 * cin)), (cout, cin, 3, 3)).astype(np.float32)
        self.bias = np.zeros(cout, np.float32)

    def forward(self, x):
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))  # n, c, h, w, 3, 3
        self.columns = patches.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * 9)
        self.shape = x.shape
        y = self.columns @ self.weight.reshape(len(self.weight), -1).T + self.bias
        return y.reshape(len(x), *x.shape[2:], -1).transpose(0, 3, 1, 2)

    def backward(self, grad):
        count, cin, height, width = self.shape
        rows = grad.transpose(0, 2, 3, 1).reshape(-1, grad.shape[1])
        self.grads = (rows.T @ self.columns).reshape(self.weight.shape), rows.sum(0)
        columns = (rows @ self.weight.reshape(len(self.weight), -1)).reshape(count, height, width, cin, 3, 3)
        out = np.zeros((count, cin, height + 2, width + 2), np.float32)
        for i in range(3):
            for j in range(3):
                out[:, :, i : i + height, j : j + width] += columns[..., i, j].transpose(0, 3, 1, 2)
        return out[:, :, 1:-1, 1:-1]

    def export(self, net, x):
        with net.scope("conv"):
            parts = net.tensor("weight", self.weight), net.tensor("bias", self.bias)
            return net.Conv(x, *parts, kernel_shape=[3, 3], pads=[1, 1, 1, 1])


class Linear:
    def __init__(self, cin, cout):
        self.weight = rng.normal(0, np.sqrt(2 / cin), (cout, cin)).astype(np.float32)
        self.bias = np.zeros(cout, np.float32)

    def forward(self, x):
        self.x = x
        return x @ self.weight.T + self.bias

    def backward(self, grad):
        self.grads = grad.T @ self.x, grad.sum(0)
        return grad @ self.weight

    def export(self, net, x):
        with net.scope("fc"):
            return net.Gemm(x, net.tensor("weight", self.weight), net.tensor("bias", self.bias), transB=1)


class Relu:
    def forward(self, x):
        self.positive = x > 0
        return x * self.positive

    def backward(self, grad):
        return grad * self.positive

    def export(self, net, x):
        return net.Relu(x)


class MaxPool:
    """2x2, stride 2."""

    def forward(self, x):
        count, channels, height, width = x.shape
        tiles = x.reshape(count, channels, height // 2, 2, width // 2, 2)
        y = tiles.max((3, 5), keepdims=True)
        self.largest = (tiles == y) / (tiles == y).sum((3, 5), keepdims=True, dtype=np.float32)
        return y[:, :, :, 0, :, 0]

    def backward(self, grad):
        tiles = self.largest * grad[:, :, :, None, :, None]
        count, channels, height, _, width, _ = tiles.shape
        return tiles.reshape(count, channels, 2 * height, 2 * width)

    def export(self, net, x):
        return net.MaxPool(x, kernel_shape=[2, 2], strides=[2, 2])


class Flatten:
    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, grad):
        return grad.reshape(self.shape)

    def export(self, net, x):
        return net.Flatten(x, axis=1)


class Chain:
    def __init__(self, *layers):
        self.layers = layers

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def backward(self, grad):
        for layer in reversed(self.layers):
            grad = layer.backward(grad)
        return grad

    def export(self, net, x):
        for layer in self.layers:
            x = layer.export(net, x)
        return x

    def trained(self):
        """All layers that have weights."""
        for layer in self.layers:
            if isinstance(layer, Chain):
                yield from layer.trained()
            elif hasattr(layer, "weight"):
                yield layer


class Residual(Chain):
    def forward(self, x):
        return x + super().forward(x)

    def backward(self, grad):
        return grad + super().backward(grad)

    def export(self, net, x):
        with net.scope("residual"):
            return net.Add(x, super().export(net, x))


class Adam:
    """Adam with decoupled weight decay on the weights, not on the biases."""

    def __init__(self, layers):
        self.slots = [
            (layer, index, name, np.zeros_like(getattr(layer, name)), np.zeros_like(getattr(layer, name)))
            for layer in layers
            for index, name in enumerate(("weight", "bias"))
        ]
        self.step = 0

    def update(self, rate):
        self.step += 1
        for layer, index, name, first, second in self.slots:
            value, grad = getattr(layer, name), layer.grads[index]
            first += 0.1 * (grad - first)
            second += 0.001 * (grad * grad - second)
            move = first / (1 - 0.9**self.step) / (np.sqrt(second / (1 - 0.999**self.step)) + 1e-8)
            value -= rate * (move + (DECAY * value if name == "weight" else 0))


def split_digits():
    """Images as [n, 1, 8, 8] from 0 to 1 and labels, shuffled once: 1,437 to train, 360 to test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.RandomState(SEED).permutation(len(digits.target))
    images = (digits.images[order, None] / 16).astype(np.float32)
    labels = digits.target[order].astype(np.int64)
    return (images[360:], labels[360:]), (images[:360], labels[:360])


def shifted(images):
    """Each batch moved by up to one pixel, which makes up for the few images."""
    down, right = rng.integers(0, 3, 2)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    return padded[:, :, down : down + 8, right : right + 8]


def train(network, images, labels):
    adam = Adam(network.trained())
    steps = EPOCHS * (len(images) // BATCH)
    for epoch in range(EPOCHS):
        order, right = rng.permutation(len(images)), 0
        for batch in np.array_split(order, len(images) // BATCH):
            logits = network.forward(shifted(images[batch]))
            scores = np.exp(logits - logits.max(1, keepdims=True))
            probabilities = scores / scores.sum(1, keepdims=True)
            right += (logits.argmax(1) == labels[batch]).sum()
            network.backward(((probabilities - np.eye(10)[labels[batch]]) / len(batch)).astype(np.float32))
            adam.update(RATE * 0.5 * (1 + np.cos(np.pi * adam.step / steps)))
        print(f"epoch {epoch + 1}: {right / len(images):.4f} of the training images right")


def export(network, accuracy):
    net = Net("digits", 17)
    net.output("logits", network.export(net, net.input("image", ["batch", 1, 8, 8])), ["batch", 10])
    net.metadata = {"dataset": "scikit-learn digits", "test_accuracy": f"{accuracy:.4f}"}
    model = net.proto()
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, FOLDER / "digits.onnx")


def main():
    (images, labels), (test_images, test_labels) = split_digits()
    network = Chain(
        *(Conv(1, 32), Relu(), Conv(32, 64), Relu(), MaxPool()),
        *(Residual(Conv(64, 64), Relu(), Conv(64, 64)), Relu(), MaxPool()),
        *(Flatten(), Linear(64 * 4, 96), Relu(), Linear(96, 10)),
    )
    train(network, images, labels)
    accuracy = (network.forward(test_images).argmax(1) == test_labels).mean()
    print(f"test accuracy: {accuracy:.4f}")
    export(network, accuracy)
    np.savez_compressed(FOLDER / "digits_test.npz", image=test_images, label=test_labels)
    np.savez_compressed(FOLDER / "digits_calibration.npz", image=images[:256])


if __name__ == "__main__":
    main()
