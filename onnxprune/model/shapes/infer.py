"""Static shapes and values of every tensor of a graph.

Symbolic input dims are replaced by numbers; one forward scan then alternates the shape functions of
`onnx.defs` with the evaluation of the small integer subgraphs that exporters use to compute shapes. Beside the
numbers it keeps what every size and entry is made of (`model/shapes/dynamic.py`): what depends on no symbol is static.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.model.shapes.dynamic import Unknowns
from onnxprune.model.shapes.entries import Entries
from onnxprune.model.shapes.polynomials import Dims, Size, is_known
from onnxprune.model.shapes.scan import Scan, SharedScan, scan_at
from onnxprune.model.shapes.symbols import candidate_sizes, symbolic_dims
from onnxprune.typing import Shape

if TYPE_CHECKING:
    from onnxprune.model.model import Model

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class StaticInfo:
    """Shapes and values that are known before a model runs.

    Attributes:
        shapes: tensor name -> sizes at the numbers in `sizes`; absent where unknown.
        dtypes: tensor name -> `TensorProto` data type.
        constant_values: tensor name -> value, only where it depends on nothing that the run alone knows.
        example_values: tensor name -> value at the numbers in `sizes`, the dynamic ones included.
        guessed: names of `example_values` whose value rests on stand-ins for what depends on the values of inputs.
        dims: tensor name -> sizes as polynomials over the symbolic dims, where some are no numbers.
        entries: tensor name -> the same for values.
        sizes: symbolic dim -> the number that stood for it.
    """

    shapes: Mapping[str, Shape]
    dtypes: Mapping[str, int]
    constant_values: Mapping[str, np.ndarray]
    example_values: Mapping[str, np.ndarray]
    guessed: AbstractSet[str]
    dims: Mapping[str, Dims]
    entries: Mapping[str, Entries | None]
    sizes: Mapping[str, int]

    @cached_property
    def dynamic(self) -> Mapping[str, frozenset[int]]:
        """Tensor name -> the axes whose size the run alone knows."""
        return {name: frozenset(a for a, d in enumerate(dims) if not is_known(d)) for name, dims in self.dims.items()}


def infer(model: Model, sizes: Mapping[str, int] | None = None) -> StaticInfo:
    """The static shapes and values of `model`.

    Args:
        model: the model; its weights are not read, only small integer constants are.
        sizes: numbers for symbolic dims by name (`"batch"`), or by `"input[axis]"` for a dim without a name;
            dims that are not named here get defaults.

    Returns:
        Shapes and values; tensors whose shape cannot be known are absent from `shapes`.
    """
    shared, open_to_more = SharedScan(model), False
    while True:
        known, least = len(shared.unsteady) + len(shared.varying), dict(shared.least)
        static = _accepted(shared, dict(sizes or {}))
        open_to_more = open_to_more or _may_be_negative(static)
        gained = open_to_more and shared.least != least
        if len(shared.unsteady) + len(shared.varying) == known and not gained:
            return static
        shared.functions.forget()  # its answers are made of symbols that may be smaller


def _may_be_negative(static: StaticInfo) -> bool:
    """Whether any entry has another form where it is known not to be negative: quotients, and targets of a Reshape."""
    values = (value for value in static.entries.values() if value is not None)
    return any(isinstance(size, Size) and size.bounds[0] < 0 for value in values for size in value.flat)


def _accepted(shared: SharedScan, given: dict[str, int]) -> StaticInfo:
    """The scan at the first numbers that the graph accepts."""
    symbols = symbolic_dims(shared.model.proto.graph)
    first: tuple[Scan, Unknowns] | None = None
    for found, _ in candidate_sizes(symbols, given):
        numbers = {name: n if name in given else max(n, shared.least.get(name, 0)) for name, n in found.items()}
        scan, unknowns = scan_at(shared, given | numbers, frozenset(symbols))
        if first is None or not scan.failures:
            first, chosen = (scan, unknowns), given | numbers
        if not scan.failures:
            break
    assert first is not None
    scan, unknowns = first
    for failure in scan.failures[:3]:
        logger.debug("shape inference: %s", failure)
    values = {name: value for name, value in scan.values.items() if name not in unknowns.values}
    return StaticInfo(
        shapes=scan.shapes,
        dtypes=scan.dtypes,
        constant_values=values,
        example_values=scan.values,
        guessed=unknowns.guessed,
        dims=unknowns.dims,
        entries=unknowns.values,
        sizes=chosen,
    )
