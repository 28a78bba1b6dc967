"""View a weighted node as y = xW + b, whatever the operator."""

from onnxprune.layers.convolution import CONVOLUTIONS, Convolution
from onnxprune.layers.effective import WeightPart, Weights
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.mask import Mask, mask_of
from onnxprune.layers.parameters import NORMS, Parameters
from onnxprune.layers.recognize import layer_at, linear_layer
from onnxprune.layers.statistics import Activations, Moments

__all__ = [
    "Activations",
    "CONVOLUTIONS",
    "Convolution",
    "LinearLayer",
    "Mask",
    "Moments",
    "NORMS",
    "Parameters",
    "WeightPart",
    "Weights",
    "layer_at",
    "linear_layer",
    "mask_of",
]
