"""View a weighted node as y = xW + b, whatever the operator."""

from onnxprune.layers.convolution import CONVOLUTIONS, Convolution
from onnxprune.layers.effective import Weights
from onnxprune.layers.linear import Layer
from onnxprune.layers.parameters import Parameters
from onnxprune.layers.recognize import layer_of

__all__ = ["CONVOLUTIONS", "Convolution", "Layer", "Parameters", "Weights", "layer_of"]
