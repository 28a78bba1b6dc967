"""How PyTorch computes the operators, by family."""

from onnxprune.torch.rules import (  # noqa: F401 - they register themselves
    attention,
    contraction,
    control_flow,
    convolution,
    index,
    layout,
    norm,
    pointwise,
    pooling,
    quantized,
    recurrent,
    reduce,
    resize,
)
