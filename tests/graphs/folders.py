"""Folders with small language models of random weights, in the layouts of exporters, and how they are run.

A `Family` says the sizes. Weights are made by their names, so that equal names in two graphs are equal weights.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, numpy_helper

from onnxprune.folder import Smaller, read_folder, write_folder
from tests.graphs.net import Net

KINDS = ("key", "value")


@dataclass(frozen=True)
class Family:
    """The sizes of a small language model.

    Attributes:
        stream: channels between the layers.
        heads: of queries.
        key_heads: of keys and values.
        size: of a head.
        inner: channels inside of feed-forward layers.
        layers: how many.
        words: tokens of the vocabulary.
        tied: whether the table of embeddings makes the logits, too.
    """

    stream: int = 8
    heads: int = 8
    key_heads: int = 4
    size: int = 2
    inner: int = 12
    layers: int = 2
    words: int = 40
    tied: bool = True


@dataclass
class Writer:
    """A graph of a family under construction."""

    family: Family
    net: Net = field(default_factory=lambda: Net(17))
    made: dict[str, str] = field(default_factory=dict)

    def weight(self, name: str, *shape: int) -> str:
        """A weight that is the same in every graph that has one of its name."""
        if name not in self.made:
            rng = np.random.default_rng(zlib.crc32(name.encode()))
            value = rng.standard_normal(shape) * 1.5 * shape[0] ** -0.5
            self.made[name] = self.net.const(value.astype(np.float32), name)
        return self.made[name]

    def linear(self, x: str, name: str, rows: int, columns: int) -> str:
        return self.net.add("MatMul", x, self.weight(name, rows, columns))

    def embedded(self) -> str:
        ids = self.net.input(("batch", "sequence"), "input_ids", TensorProto.INT64)
        return self.net.add("Gather", self.weight("embed.weight", self.family.words, self.family.stream), ids)

    def split(self, x: str, name: str, heads: int, width: int = 0) -> str:
        """Projected to heads: [batch, heads, sequence, size]."""
        made = self.linear(x, name, width or self.family.stream, heads * self.family.size)
        shaped = self.net.add("Reshape", made, self.net.ints(0, 0, heads, self.family.size))
        return self.net.add("Transpose", shaped, perm=[0, 2, 1, 3])

    def cache(self, name: str, sequence: str = "past") -> str:
        return self.net.input(("batch", self.family.key_heads, sequence, self.family.size), name)

    def handed_out(self, tensor: str, name: str, sequence: str = "total") -> None:
        shape = ("batch", self.family.key_heads, sequence, self.family.size)
        self.net.output(self.net.add("Identity", tensor, name=name), shape, TensorProto.FLOAT)

    def repeated(self, tensor: str) -> str:
        """Keys or values for every head of the queries."""
        family, times = self.family, self.family.heads // self.family.key_heads
        if times == 1:
            return tensor
        five = self.net.add(
            "Expand", self.net.add("Unsqueeze", tensor, self.net.ints(2)), self.net.ints(1, 1, times, 1, 1)
        )
        return self.net.add("Reshape", five, self.net.ints(0, family.heads, -1, family.size))

    def attended(self, x: str, name: str, keys: str, values: str) -> str:
        """What the queries of x find, added to x; without a mask, since one token comes at a time."""
        add, family = self.net.add, self.family
        query = self.split(x, f"{name}.q", family.heads)
        scores = add("MatMul", query, add("Transpose", self.repeated(keys), perm=[0, 1, 3, 2]))
        found = add("MatMul", add("Softmax", scores, axis=-1), self.repeated(values))
        width = family.heads * family.size
        flat = add("Reshape", add("Transpose", found, perm=[0, 2, 1, 3]), self.net.ints(0, 0, width))
        return add("Add", x, self.linear(flat, f"{name}.o", width, family.stream))

    def fed_forward(self, x: str, name: str) -> str:
        inner = self.net.add("Relu", self.linear(x, f"{name}.up", self.family.stream, self.family.inner))
        return self.net.add("Add", x, self.linear(inner, f"{name}.down", self.family.inner, self.family.stream))

    def logits(self, x: str) -> None:
        """The outputs for all tokens."""
        if self.family.tied:
            table = self.net.add("Transpose", self.made["embed.weight"], perm=[1, 0])
        else:
            table = self.weight("head.weight", self.family.stream, self.family.words)
        made = self.net.add("MatMul", x, table, name="logits")
        self.net.output(made, ("batch", "sequence", self.family.words), TensorProto.FLOAT)

    def save(self, path: Path, **how: Any) -> None:
        onnx.save(self.net.proto(), path, **how)


def decoder(family: Family) -> Writer:
    """A decoder that is given caches, and hands them out longer."""
    one = Writer(family)
    x = one.embedded()
    for layer in range(family.layers):
        caches = []
        for kind in KINDS:
            past = one.cache(f"past_key_values.{layer}.{kind}")
            new = one.split(x, f"layers.{layer}.{kind}", family.key_heads)
            caches.append(one.net.add("Concat", past, new, axis=2))
            one.handed_out(caches[-1], f"present.{layer}.{kind}")
        x = one.fed_forward(one.attended(x, f"layers.{layer}", *caches), f"layers.{layer}")
    one.logits(x)
    return one


def encoder(family: Family, *, hands_out: bool = False) -> Writer:
    """The encoder of an encoder and decoder, which may hand out the caches of what the decoder finds in it."""
    one = Writer(family)
    x = one.embedded()
    for layer in range(family.layers):
        name = f"encoder.{layer}"
        keys, values = (one.split(x, f"{name}.{kind}", family.key_heads) for kind in KINDS)
        x = one.fed_forward(one.attended(x, name, keys, values), name)
    made = one.net.add("Identity", x, name="last_hidden_state")
    one.net.output(made, ("batch", "sequence", family.stream), TensorProto.FLOAT)
    for layer in range(family.layers if hands_out else 0):
        for kind in KINDS:
            found = one.split(x, f"cross.{layer}.{kind}", family.key_heads)
            one.handed_out(found, f"present.{layer}.encoder.{kind}", "sequence")
    return one


def cross_decoder(family: Family, *, past: bool) -> Writer:
    """Its decoder, for the first token, or for others, which is given caches of what the encoder gave."""
    one = Writer(family)
    x = one.embedded()
    if not past:
        told = one.net.input(("batch", "told", family.stream), "encoder_hidden_states")
    for layer in range(family.layers):
        caches: dict[str, list[str]] = {"decoder": [], "encoder": []}
        for kind in KINDS:
            new = one.split(x, f"layers.{layer}.{kind}", family.key_heads)
            if past:
                given = one.cache(f"past_key_values.{layer}.decoder.{kind}")
                new = one.net.add("Concat", given, new, axis=2)
                caches["encoder"].append(one.cache(f"past_key_values.{layer}.encoder.{kind}", "told"))
            else:
                caches["encoder"].append(one.split(told, f"cross.{layer}.{kind}", family.key_heads))
                one.handed_out(caches["encoder"][-1], f"present.{layer}.encoder.{kind}", "told")
            one.handed_out(new, f"present.{layer}.decoder.{kind}")
            caches["decoder"].append(new)
        x = one.attended(x, f"layers.{layer}", *caches["decoder"])
        x = one.fed_forward(one.attended(x, f"cross.{layer}", *caches["encoder"]), f"layers.{layer}")
    one.logits(x)
    return one


def configuration(family: Family, **more: Any) -> dict[str, Any]:
    """A config.json."""
    return {
        "model_type": "small",
        "hidden_size": family.stream,
        "intermediate_size": family.inner,
        "num_attention_heads": family.heads,
        "num_key_value_heads": family.key_heads,
        "head_dim": family.size,
        "num_hidden_layers": family.layers,
        "vocab_size": family.words,
        "bos_token_id": 1,
        "eos_token_id": [2],
        **more,
    }


def write_decoder(folder: Path, family: Family = Family(), **more: Any) -> Path:
    """A folder with a decoder and its configuration; `more` are keys of it, None for one that is to lack."""
    folder.mkdir(parents=True)
    decoder(family).save(folder / "model.onnx")
    content = {key: value for key, value in configuration(family, **more).items() if key not in more or more[key] != ""}
    (folder / "config.json").write_text(json.dumps(content, indent=2))
    return folder


def write_pair(folder: Path, family: Family = Family(), **more: Any) -> Path:
    """A folder with an encoder, a decoder for the first token and one for the others."""
    folder.mkdir(parents=True)
    encoder(family).save(folder / "encoder_model.onnx")
    cross_decoder(family, past=False).save(folder / "decoder_model.onnx")
    cross_decoder(family, past=True).save(folder / "decoder_with_past_model.onnx")
    (folder / "config.json").write_text(json.dumps(configuration(family, **more), indent=2))
    return folder


def write_handing(folder: Path, family: Family = Family()) -> Path:
    """A folder with an encoder that hands out caches, and a decoder that is given them, as onnxruntime-genai has it."""
    folder.mkdir(parents=True)
    encoder(family, hands_out=True).save(folder / "encoder.onnx")
    cross_decoder(family, past=True).save(folder / "decoder.onnx")
    numbers = {
        "head_size": family.size,
        "hidden_size": family.stream,
        "num_attention_heads": family.heads,
        "num_hidden_layers": family.layers,
        "num_key_value_heads": family.key_heads,
    }
    stacks = {name: {"filename": f"{name}.onnx", **numbers} for name in ("decoder", "encoder")}
    content = {"model": {**stacks, "eos_token_id": 2, "vocab_size": family.words}}
    (folder / "genai_config.json").write_text(json.dumps(content, indent=4))
    return folder


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def ran(graph: onnxruntime.InferenceSession, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
    names = [value.name for value in graph.get_outputs()]
    given = {value.name: feeds[value.name] for value in graph.get_inputs()}
    return dict(zip(names, graph.run(names, given), strict=True))


def generated(folder: Path, prompt: Sequence[int], count: int) -> tuple[list[int], int]:
    """The likeliest tokens after a prompt, and the bytes of the caches in the end.

    Empty caches are made by what config.json says, as runtimes do it.
    """
    config, graph = json.loads((folder / "config.json").read_text()), session(folder / "model.onnx")
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    empty = np.zeros((1, config["num_key_value_heads"], 0, size), np.float32)
    layers = range(config["num_hidden_layers"])
    feeds: dict[str, Any] = {f"past_key_values.{layer}.{kind}": empty for layer in layers for kind in KINDS}
    ids = list(prompt)
    for place in range(count):
        feeds["input_ids"] = np.array([[ids[place]]])
        out = ran(graph, feeds)
        feeds |= {name.replace("present", "past_key_values"): v for name, v in out.items() if name != "logits"}
        if place + 1 == len(ids):
            ids.append(int(out["logits"][0, -1].argmax()))
    return ids, sum(value.nbytes for name, value in feeds.items() if name != "input_ids")


def translated(folder: Path, text: Sequence[int], count: int) -> tuple[list[int], int]:
    """The likeliest tokens for a text by encoder and decoders, and the bytes of the caches in the end."""
    graphs = {path.stem: session(path) for path in folder.glob("*.onnx")}
    told = ran(graphs["encoder_model"], {"input_ids": np.array([text])})["last_hidden_state"]
    ids, caches = [1], dict[str, Any]()
    for place in range(count):
        given = {"input_ids": np.array([[ids[-1]]]), "encoder_hidden_states": told, **caches}
        out = ran(graphs["decoder_with_past_model" if place else "decoder_model"], given)
        caches |= handed_on(out)
        ids.append(int(out["logits"][0, -1].argmax()))
    return ids, sum(value.nbytes for value in caches.values())


def handed_on(out: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The caches among outputs, by the names of the inputs that they are handed to."""
    return {name.replace("present", "past_key_values"): v for name, v in out.items() if name.startswith("present")}


def answered(folder: Path, text: Sequence[int], count: int) -> tuple[list[int], int]:
    """The likeliest tokens for a text by an encoder that hands out caches, and the bytes of all caches in the end.

    Empty caches are made by what genai_config.json says, and the decoder is given one for each layer that it says.
    """
    said = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    graph, layers = session(folder / "decoder.onnx"), range(said["num_hidden_layers"])
    caches = handed_on(ran(session(folder / "encoder.onnx"), {"input_ids": np.array([text])}))
    assert len(caches) == 2 * len(layers), "one for keys and values of each layer"
    empty = np.zeros((1, said["num_key_value_heads"], 0, said["head_size"]), np.float32)
    caches |= {f"past_key_values.{layer}.decoder.{kind}": empty for layer in layers for kind in KINDS}
    ids = [1]
    for _ in range(count):
        out = ran(graph, {"input_ids": np.array([[ids[-1]]]), **caches})
        caches |= handed_on(out)
        ids.append(int(out["logits"][0, -1].argmax()))
    return ids, sum(value.nbytes for value in caches.values())


def with_zeros(source: Path, target: Path, is_gone: Callable[[str], bool]) -> Path:
    """The folder with zeros for weights of some names: a layer whose last weights are zero adds nothing to a stream."""
    folder, proto = read_folder(source), onnx.ModelProto()
    proto.CopyFrom(folder.joined.model.proto)
    for tensor in filter(lambda tensor: is_gone(tensor.name), proto.graph.initializer):
        zeros = np.zeros_like(folder.joined.model.array(tensor.name))
        tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
    write_folder(folder, Smaller(replace(folder.joined.model, proto=proto)), target, force=True)
    return target
