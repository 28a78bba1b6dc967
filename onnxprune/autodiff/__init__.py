"""The gradient of a graph as another ONNX graph."""

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.registry import BackwardNode, NoGradient, register_vjp
from onnxprune.autodiff.training_graph import TrainingGraph, build, build_vjp

__all__ = [
    "BackwardNode",
    "GraphBuilder",
    "NoGradient",
    "TrainingGraph",
    "Value",
    "build",
    "build_vjp",
    "register_vjp",
]
