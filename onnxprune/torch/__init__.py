"""Back to PyTorch: a model as a module, and cuts carried over to the module that a model was exported from."""

from __future__ import annotations

try:
    import torch as _torch
except ImportError as error:
    raise ImportError("onnxprune.torch needs PyTorch: pip install 'onnxprune[torch]'") from error

from onnxprune.torch.module import OnnxModule, from_module, to_module
from onnxprune.torch.registry import Operation, translates
from onnxprune.torch.smaller import masks, slim

del _torch

__all__ = ["OnnxModule", "Operation", "from_module", "masks", "slim", "to_module", "translates"]
