"""Damage to the bytes of a file."""

from __future__ import annotations

import random

from onnx import GraphProto, ModelProto, helper

from tests.graphs.mutations.registry import mutation

# Not UTF-8, where the wire format of the copy below says that text follows.
BAD_TEXT = b"\xff\xfe\xc3("


@mutation
def flipped_bits(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    data = bytearray(model.SerializeToString())
    for _ in range(rng.choice([1, 1, 2, 8, 64])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


@mutation
def flipped_bits_of_the_structure(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes | None:
    """Of anything but the weights, where most bytes are."""
    kept = [ModelProto.FromString(model.SerializeToString()).graph.initializer, model.graph.initializer]
    del model.graph.initializer[:]
    data = bytearray(model.SerializeToString())
    for _ in range(rng.choice([1, 1, 2, 4])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    weights = ModelProto(graph=GraphProto(initializer=kept[0]))
    return bytes(data) + weights.SerializeToString()  # protobuf merges what comes twice


@mutation
def truncated(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    data = model.SerializeToString()
    return data[: rng.randrange(len(data))]


@mutation
def overwritten_bytes(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    data = bytearray(model.SerializeToString())
    start, size = rng.randrange(len(data)), rng.choice([1, 4, 32, 500])
    kind = rng.choice(["random", "zeros", "removed", "twice"])
    part = data[start : start + size]
    data[start : start + size] = {
        "random": rng.randbytes(len(part)), "zeros": bytes(len(part)), "removed": b"", "twice": part * 2,
    }[kind]  # fmt: skip
    return bytes(data)


@mutation
def spliced_bytes(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    one, two = model.SerializeToString(), other.SerializeToString()
    return one[: rng.randrange(len(one))] + two[rng.randrange(len(two)) :]


@mutation
def merged_files(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    return model.SerializeToString() + other.SerializeToString()


@mutation
def invalid_text(rng: random.Random, model: ModelProto, other: ModelProto) -> bytes:
    node = rng.choice(model.graph.node)
    mark = "\x01\x02\x03\x04"
    kind = rng.randrange(6)
    if kind == 0:
        node.name = mark
    elif kind == 1:
        node.op_type = mark
    elif kind == 2:
        model.graph.input[0].name = mark
    elif kind == 3 and model.graph.initializer:
        rng.choice(model.graph.initializer).name = mark
    elif kind == 4:
        model.graph.input[0].type.tensor_type.shape.dim.add().dim_param = mark
    else:
        node.attribute.append(helper.make_attribute(mark, 1))
    return model.SerializeToString().replace(mark.encode(), BAD_TEXT)
