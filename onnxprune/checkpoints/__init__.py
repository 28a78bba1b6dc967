"""Cuts carried over to the arrays that a model was exported from: checkpoints of PyTorch, layers of Keras."""

from onnxprune.checkpoints.masks import layer_masks, state_dict_masks
from onnxprune.checkpoints.slices import slice_layers, slice_state_dict

__all__ = ["layer_masks", "slice_layers", "slice_state_dict", "state_dict_masks"]
