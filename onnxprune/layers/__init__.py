"""View a weighted node as y = xW + b, whatever the operator."""

from onnxprune.layers.convolution import CONVOLUTIONS, Convolution
from onnxprune.layers.effective import Weights
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.parameters import Parameters
from onnxprune.layers.recognize import layer_at, linear_layer

__all__ = ["CONVOLUTIONS", "Convolution", "LinearLayer", "Parameters", "Weights", "layer_at", "linear_layer"]
