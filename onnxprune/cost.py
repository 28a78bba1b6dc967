"""What a model costs: parameters, multiply-accumulates and bytes, per layer and in total."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from onnxprune.functions import inlined
from onnxprune.labels import Ledger
from onnxprune.model import Model
from onnxprune.shapes import infer
from onnxprune.symbols import symbolic_dims
from onnxprune.tracing import WEIGHT_TYPES, Tracing


@dataclass(frozen=True)
class Layer:
    """One contraction.

    Attributes:
        name: of the node.
        op: its operator.
        weight: name of its weight; empty for a product of two activations.
        shape: sizes of the weight, or of the output where there is none.
        params: elements of its weights, bias included.
        macs: multiply-accumulates for one sample.
    """

    name: str
    op: str
    weight: str
    shape: tuple[int, ...]
    params: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """Totals of a model.

    Attributes:
        params: elements of all float weights.
        macs: multiply-accumulates of all contractions, for one sample.
        size: bytes of all weights.
        layers: the contractions, in graph order.
    """

    params: int
    macs: int
    size: int
    layers: tuple[Layer, ...]


def of(model: Model, sizes: Mapping[str, int] | None = None) -> Cost:
    """The cost of `model` for a batch of one; other symbolic dims take their defaults unless given in `sizes`."""
    model = inlined(model)
    batch = {s: 1 for s, use in symbolic_dims(model.proto.graph).items() if use.axis == 0}
    tracing = Tracing(model, infer(model, batch | dict(sizes or {})), Ledger())
    tracing.run()
    layers = []
    for site, rule in tracing.sites:
        if rule is None or rule.work is None:
            continue
        macs = math.prod((site.out_shape() if s is None else site.shape(s))[a] for s, a in rule.work(site))
        weights = [
            s for s, c in enumerate(site.constant) if c and site.has(s) and site.node.input[s] in tracing.facts.shapes
        ]
        main = max(weights, key=lambda s: math.prod(site.shape(s)), default=None)
        params = sum(math.prod(site.shape(s)) for s in weights)
        shape = site.out_shape() if main is None else site.shape(main)
        layers.append(
            Layer(
                site.name,
                site.node.op_type,
                "" if main is None else site.node.input[main],
                shape,
                params,
                macs,
            )
        )
    params = sum(
        math.prod(tracing.facts.shapes[name])
        for name in tracing.sources
        if tracing.facts.dtypes.get(name) in WEIGHT_TYPES
    )
    return Cost(params, sum(layer.macs for layer in layers), model.nbytes, tuple(layers))
