"""The list of all mutations, and one applied."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

from onnx import AttributeProto, ModelProto

INTEGERS = (-(1 << 63), -(1 << 31), -7, -2, -1, 0, 1, 2, 3, 1000, 1 << 31, 1 << 40, (1 << 63) - 1)
# Changes the model in place (or returns other bytes); may take parts of the second model.
Mutation = Callable[[random.Random, ModelProto, ModelProto], bytes | None]
_MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    _MUTATIONS[function.__name__.replace("_", " ")] = function
    return function


def names() -> list[str]:
    return list(_MUTATIONS)


def mutated(name: str, rng: random.Random, model: bytes, other: bytes) -> bytes:
    """A damaged file; another mutation comes on top in one case of four, where the damage left it something to do."""
    proto, spare = ModelProto.FromString(model), ModelProto.FromString(other)
    data = _MUTATIONS[name](rng, proto, spare)
    if data is None and rng.random() < 0.25:
        with contextlib.suppress(IndexError, ValueError, TypeError, KeyError):
            data = _MUTATIONS[rng.choice(names())](rng, proto, spare)
    return proto.SerializeToString() if data is None else data


def attributes(rng: random.Random, model: ModelProto) -> list[AttributeProto]:
    found = [a for n in model.graph.node for a in n.attribute]
    return rng.sample(found, min(rng.choice([1, 2]), len(found)))
