"""Load, look into, check, change and save an ONNX model without running it."""

from onnxprune.model.byte_sums import unsaturated
from onnxprune.model.couplings import Couplings, HeldWidths, Width
from onnxprune.model.files import check_target, file_size, load, same_kind, save, to_graph, to_proto
from onnxprune.model.inline import inlined
from onnxprune.model.joined import Joined, join
from onnxprune.model.model import Model
from onnxprune.model.names import Names
from onnxprune.model.negative_sizes import refuse_negative_sizes
from onnxprune.model.shapes.thresholds import other_sides
from onnxprune.model.skip_norms import sums_apart, sums_together
from onnxprune.model.telling_tensors import TELLS_SIZES, last_floats, unsqueezed

__all__ = [
    "Couplings",
    "HeldWidths",
    "Joined",
    "Model",
    "Names",
    "TELLS_SIZES",
    "Width",
    "check_target",
    "file_size",
    "inlined",
    "join",
    "last_floats",
    "load",
    "other_sides",
    "refuse_negative_sizes",
    "same_kind",
    "save",
    "sums_apart",
    "sums_together",
    "to_graph",
    "to_proto",
    "unsaturated",
    "unsqueezed",
]
