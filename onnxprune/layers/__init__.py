"""View a weighted node as y = xW + b, whatever the operator."""

from onnxprune.layers.effective import Weights
from onnxprune.layers.linear import Layer, layer_of
from onnxprune.layers.parameters import Parameters

__all__ = ["Layer", "Parameters", "Weights", "layer_of"]
