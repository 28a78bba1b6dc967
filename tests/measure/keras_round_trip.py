"""Networks of keras.applications, pruned as ONNX and cut in Keras by the same plan: figures of docs/torch.md.

    python -m tests.measure.keras_round_trip [NAME ...]

Needs Keras, TensorFlow and tf2onnx. The networks have random weights, biases and statistics of norms included. Half of
the units of all groups are removed, the arrays of every layer are cut by name, and a Keras network of the smaller
widths gets them; the table has the largest difference between the network and the pruned model under ONNX Runtime,
relative to the largest output.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

import onnxprune
from onnxprune.checkpoints import layer_masks, slice_layers
from onnxprune.model import load
from onnxprune.runtime import Session

# Name -> its size of pictures.
NETWORKS = {
    "MobileNet": 96,
    "MobileNetV2": 96,
    "ResNet50": 64,
    "ResNet50V2": 64,
    "VGG16": 64,
    "DenseNet121": 64,
    "InceptionV3": 96,
    "Xception": 96,
    "MobileNetV3Large": 64,
    "MobileNetV3Small": 64,
}


def built(name: str) -> keras.Model:
    """A network with weights that differ everywhere."""
    keras.utils.set_random_seed(0)
    size = NETWORKS[name]
    network = getattr(keras.applications, name)(weights=None, input_shape=(size, size, 3))
    rng = np.random.default_rng(0)
    for layer in network.layers:
        arrays = layer.get_weights()
        moved = [a + rng.uniform(0, 0.2, a.shape).astype(a.dtype) if a.ndim == 1 else a for a in arrays]
        layer.set_weights(moved)
    return network


def exported(network: keras.Model, folder: Path) -> Path:
    """The network as an ONNX file."""
    path = folder / "network.onnx"
    network(np.zeros((1, *network.input_shape[1:]), np.float32))  # the exporter wants a model that was called
    network.export(path, format="onnx", verbose=False)
    return path


def narrowed(network: keras.Model, layers: dict[str, list[np.ndarray]]) -> keras.Model:
    """The network with the widths that the arrays of its layers have."""

    def clone(layer: Any) -> Any:
        config, arrays = layer.get_config(), layers.get(layer.name) or []
        for width in {"filters", "units"} & config.keys() if arrays else ():
            config[width] = int([a for a in arrays if a.ndim > 1][-1].shape[-1])
        if "target_shape" in config:
            config["target_shape"] = (*config["target_shape"][:-1], -1)
        return type(layer).from_config(config)

    small = keras.models.clone_model(network, clone_function=clone)
    for layer in small.layers:
        if layer.get_weights():
            layer.set_weights(layers[layer.name])
    return small


def difference(network: keras.Model, folder: Path) -> tuple[float, float]:
    """The largest relative difference of the outputs, and the share of the parameters that is left."""
    path = exported(network, folder)
    proto = load(str(path)).proto
    plan = onnxprune.make_plan(proto, 0.5)
    smaller = onnxprune.apply(proto, plan)
    layers = {layer.name: layer.get_weights() for layer in network.layers}
    unused = [layer.name for layer in network.layers if isinstance(layer, keras.layers.Normalization)]
    small = narrowed(network, slice_layers(layers, layer_masks(plan, proto, layers, ignore=unused)))
    pictures = np.random.default_rng(1).random((2, *network.input_shape[1:]), np.float32)
    with Session(load(smaller), threads=1) as session:
        pruned = session.run({proto.graph.input[0].name: pictures})[0]
    made = np.asarray(small(pictures, training=False))
    return float(np.abs(made - pruned).max() / np.abs(pruned).max()), small.count_params() / network.count_params()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    print("| network | params left | largest difference |\n|---|--:|--:|")
    for name in parser.parse_args().networks:
        with tempfile.TemporaryDirectory() as folder:
            try:
                error, share = difference(built(name), Path(folder))
                print(f"| {name} | {share:.0%} | {error:.1e} |", flush=True)
            except Exception as error:  # noqa: BLE001 what cannot be carried over is the finding
                print(f"| {name} | | {type(error).__name__}: {str(error).splitlines()[0][:150]} |", flush=True)


if __name__ == "__main__":
    main()
