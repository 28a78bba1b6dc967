"""The gradient of a graph as another ONNX graph."""

from onnxprune.autodiff.builder import GraphBuilder, Value
from onnxprune.autodiff.forward import modern, without_functions
from onnxprune.autodiff.losses import Loss, cross_entropy, distillation, mse, relative_squares
from onnxprune.autodiff.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    Optimizer,
    ParameterGroup,
    Schedule,
    clip_by_norm,
    scheduled,
)
from onnxprune.autodiff.parameters import default_parameters, unshared
from onnxprune.autodiff.registry import BackwardNode, NoGradient, register_vjp
from onnxprune.autodiff.session import GradientSession, StepResult, write_back
from onnxprune.autodiff.training_graph import TrainingGraph, build, build_vjp
from onnxprune.autodiff.vjp.resize import axis_matrix

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "BackwardNode",
    "GradientSession",
    "GraphBuilder",
    "Loss",
    "NoGradient",
    "Optimizer",
    "ParameterGroup",
    "Schedule",
    "StepResult",
    "TrainingGraph",
    "Value",
    "axis_matrix",
    "build",
    "build_vjp",
    "clip_by_norm",
    "cross_entropy",
    "default_parameters",
    "distillation",
    "modern",
    "mse",
    "register_vjp",
    "relative_squares",
    "scheduled",
    "unshared",
    "without_functions",
    "write_back",
]
