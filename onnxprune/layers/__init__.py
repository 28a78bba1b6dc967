"""View a weighted node as y = xW + b, whatever the operator."""

from onnxprune.layers.affine import Affine, affine_of
from onnxprune.layers.convolution import CONVOLUTIONS, Convolution
from onnxprune.layers.effective import WEIGHT_CARRIERS, WeightPart, Weights
from onnxprune.layers.error_feedback import settled, sweep_factor
from onnxprune.layers.grid import Grid
from onnxprune.layers.linear import LinearLayer
from onnxprune.layers.mask import Mask, mask_of
from onnxprune.layers.operands import operands_of, weight_axes
from onnxprune.layers.parameters import NORMS, Parameters
from onnxprune.layers.positive_definite import Cholesky, LowRankFactor, inverse, quick_factor
from onnxprune.layers.product import Product
from onnxprune.layers.quantized_layer import QuantizedParameters, layer_weight, quantized_parameters
from onnxprune.layers.quantized_weight import QuantizedWeight, weight_at
from onnxprune.layers.readers import making_axes
from onnxprune.layers.recognize import layer_at, linear_layer, weighted_layer
from onnxprune.layers.recurrent import RecurrentLayer, recurrent_layer
from onnxprune.layers.statistics import ActivationMoments, Activations
from onnxprune.layers.stream import channel_axis
from onnxprune.layers.unit_axes import UnitAxis, norm_scales, unit_reads

__all__ = [
    "ActivationMoments",
    "Activations",
    "Affine",
    "CONVOLUTIONS",
    "Cholesky",
    "Convolution",
    "Grid",
    "LinearLayer",
    "LowRankFactor",
    "Mask",
    "NORMS",
    "Parameters",
    "Product",
    "QuantizedParameters",
    "QuantizedWeight",
    "RecurrentLayer",
    "UnitAxis",
    "WEIGHT_CARRIERS",
    "WeightPart",
    "Weights",
    "affine_of",
    "channel_axis",
    "inverse",
    "layer_at",
    "layer_weight",
    "linear_layer",
    "making_axes",
    "mask_of",
    "norm_scales",
    "operands_of",
    "quantized_parameters",
    "quick_factor",
    "recurrent_layer",
    "settled",
    "sweep_factor",
    "unit_reads",
    "weight_at",
    "weight_axes",
    "weighted_layer",
]
