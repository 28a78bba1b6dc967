"""What a folder holds: its graphs as one model, its configuration, its tokenizer, and what is only copied."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from onnx import ValueInfoProto

from onnxprune.errors import ModelError, UsageError
from onnxprune.folder.configuration import CHANNEL, HEAD, HEAD_DIM, Configuration
from onnxprune.folder.tokenizer import needed_tokens
from onnxprune.model import Couplings, Joined, Model, Width, join, load
from onnxprune.model.tensors import nodes
from onnxprune.system import read_file

CONFIGURATIONS = frozenset(("config.json", "genai_config.json", "generation_config.json"))
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
_OF_TOKENS = (TOKENIZER, TOKENIZER_CONFIG)
# Ids of tokens that are larger are no rows of a table; JSON that is nested deeper is none that a model comes with.
MOST_IDS, DEEPEST = 2**31, 100
# Bytes of a configuration or a tokenizer; those of large vocabularies have some ten million.
LARGEST_JSON = 256 << 20
# What an output that holds a state is called, and the input that it is handed to.
STATES = (("present", "past_key_values"), ("present", "past"), ("last_hidden_state", "encoder_hidden_states"))


@dataclass(frozen=True)
class Folder:
    """A folder with a model.

    Attributes:
        path: where it is.
        graphs: name of a graph -> its file, relative to the folder.
        joined: the graphs as one model.
        configuration: what says their sizes.
        tokenizer: content of tokenizer.json; None where there is none.
        tokenizer_config: the same of tokenizer_config.json.
        others: all other files, relative to the folder.
    """

    path: Path
    graphs: Mapping[str, Path]
    joined: Joined
    configuration: Configuration
    tokenizer: Mapping[str, Any] | None
    tokenizer_config: Mapping[str, Any] | None
    others: tuple[Path, ...]

    @cached_property
    def states(self) -> tuple[tuple[str, str], ...]:
        """Pairs of an output and an input that hold one state, of the same graph or of two."""
        given: dict[str, list[ValueInfoProto]] = {}
        for value in self.joined.model.proto.graph.input:
            given.setdefault(self.joined.own_name(value.name), []).append(value)
        return tuple(
            (made.name, taken.name)
            for made in self.joined.model.proto.graph.output
            for name in _handed_to(self.joined.own_name(made.name))
            for taken in given.get(name, ())
            if _rank(made) == _rank(taken)
        )

    @cached_property
    def caches(self) -> frozenset[str]:
        """Inputs and outputs that hold keys and values."""
        states, graph = {name for pair in self.states for name in pair}, self.joined.model.proto.graph
        return frozenset(v.name for v in (*graph.input, *graph.output) if v.name in states and _rank(v) == _CACHE_RANK)

    @cached_property
    def renewed(self) -> frozenset[str]:
        """The caches that a graph is given and gives anew, as a decoder does, in whatever graph they are."""
        pairs = [pair for pair in self.states if self.caches.issuperset(pair)]
        anew = {taken for made, taken in pairs if self.joined.owner(made) == self.joined.owner(taken)}
        return frozenset(name for pair in pairs if pair[1] in anew for name in pair)

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Numbers for symbolic axes that the configuration has: caches are [batch, heads, past, size of a head]."""
        sizes = self.configuration.head_sizes
        caches = [value for value in self.joined.model.proto.graph.input if value.name in self.caches]
        names = {value.type.tensor_type.shape.dim[-1].dim_param for value in caches} - {""}
        return dict.fromkeys(names, next(iter(sizes))) if len(sizes) == 1 else {}

    def model(self, *, rows: bool) -> Model:
        """All graphs as one model, which knows what the files around it demand.

        Args:
            rows: whether tokens go by name.
        """
        files = {name: model.digest for name, model in self.joined.files.items()} if len(self.graphs) > 1 else {}
        held = (replace(one, places=self._places(one.widths)) for one in self.configuration.held(rows=rows))
        return replace(self.joined.model, couplings=Couplings(self.states, tuple(held), files))

    def _places(self, widths: Collection[Width]) -> tuple[tuple[Width, str, int], ...]:
        """The axes of inputs and outputs that have one of some widths."""
        graph, found = self.joined.model.proto.graph, []
        for value in (*graph.input, *graph.output):
            for kind, (rank, axis) in _PLACES.items():
                dims = value.type.tensor_type.shape.dim
                if len(dims) == rank and (kind, dims[axis].dim_value) in widths:
                    found.append(((kind, dims[axis].dim_value), value.name, axis))
        return tuple(found)

    def vocabulary(self, name: str) -> tuple[str, ...]:
        """The tables and outputs that have a place for each token, if `name` is one of them or the key of their size.

        Args:
            name: as it is given to --rows.
        """
        graph, sizes = self.joined.model.proto.graph, self.configuration.vocabulary
        tables = {t.name: t.dims[0] for t in graph.initializer if t.dims and t.dims[0] in sizes}
        looked_up = {
            n.input[0]: tables[n.input[0]] for n in nodes(graph) if n.op_type in _LOOKS_UP and n.input[0] in tables
        }
        last = {v.name: v.type.tensor_type.shape.dim[-1].dim_value for v in graph.output if _rank(v)}
        found = looked_up | {made: size for made, size in last.items() if size in sizes}
        return tuple(found) if name == "vocab_size" or name in found else ()

    def needed(self, ids: Collection[int]) -> tuple[int, ...]:
        """Ids of tokens with those that the configuration names, and that the tokenizer makes them of."""
        kept = {*ids, *self.configuration.token_ids}
        found = sorted(kept if self.tokenizer is None else needed_tokens(self.tokenizer, kept))
        if found and found[-1] > MOST_IDS:
            raise UsageError(f"{found[-1]} is no id of a token", hint="correct the configuration, or the tokenizer")
        return tuple(found)


_CACHE_RANK = 4
# Kind of a group -> (rank, axis) of inputs and outputs that have its units: caches, and what an encoder gives.
_PLACES = {HEAD: (_CACHE_RANK, 1), HEAD_DIM: (_CACHE_RANK, 3), CHANNEL: (3, 2)}
_LOOKS_UP = frozenset(("Gather", "GatherBlockQuantized"))


def read_folder(path: Path) -> Folder:
    """Read a folder with a model; its weights are read when they are needed.

    Args:
        path: of the folder.

    Returns:
        What it holds.

    Raises:
        UsageError: there is no graph in it, a file cannot be read, or a link leads out of it.
        ModelError: a graph is no valid model, or the graphs do not fit together.
    """
    files = _files(path)
    graphs = _named([file for file in files if file.suffix == ".onnx"])
    if not graphs:
        raise UsageError(f"no graph in {path}: no file in it ends with .onnx", hint="name the folder of the graphs")
    joined = join({name: load(path / file) for name, file in graphs.items()}, path)
    read = {file.as_posix(): _json(path, file) for file in files if file.name in CONFIGURATIONS}
    tokenizer, config = (_json(path, Path(name)) if Path(name) in files else None for name in _OF_TOKENS)
    data = {place for model in joined.files.values() for place in _data_files(model, path)}
    taken = {*graphs.values(), *map(Path, read), *data}
    others = tuple(file for file in files if file not in taken)
    return Folder(path, graphs, joined, Configuration(read), tokenizer, tokenizer_config=config, others=others)


def _files(folder: Path) -> list[Path]:
    """All files in a folder, relative to it, in order."""
    try:
        root, found = folder.resolve(strict=True), []
        for path in sorted(folder.rglob("*")):
            real = path.resolve(strict=True)
            if not real.is_relative_to(root):
                raise UsageError(
                    f"{path} is a link out of its folder", hint=f"copy the files themselves: cp -rL {folder} COPY"
                )
            if real.is_file():
                found.append(path.relative_to(folder))
            elif not real.is_dir() or path.name in {*CONFIGURATIONS, *_OF_TOKENS}:
                raise UsageError(f"{path} is no regular file", hint="take it away, or write a file in its place")
    except RuntimeError as error:  # a link to itself, before Python 3.13
        raise UsageError(f"cannot read {folder}: {error}", hint="take the link away") from error
    except OSError as error:
        raise UsageError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error
    return found


def _named(files: Collection[Path]) -> dict[str, Path]:
    """The files by their names without ending; in folders below, with their folders where names are not enough."""
    stems, named = [file.stem for file in files], {}
    for file in files:
        named[file.stem if stems.count(file.stem) == 1 else ".".join(file.with_suffix("").parts)] = file
    return named


def _json(folder: Path, file: Path) -> Any:
    if (folder / file).stat().st_size > LARGEST_JSON:
        raise UsageError(
            f"{folder / file} is larger than {LARGEST_JSON >> 20} MiB", hint="it is none of a model: take it away"
        )
    try:
        found = json.loads(read_file(folder / file))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{folder / file} is not JSON: {error}", hint="write it again, or take it away") from error
    if not isinstance(found, dict):
        raise UsageError(f"{folder / file} is not a JSON object", hint="write it again, or take it away")
    if _is_deep(found):
        raise UsageError(f"{folder / file} is nested deeper than {DEEPEST} levels", hint="take it away")
    return found


def _is_deep(value: Any) -> bool:
    """Whether JSON is nested deeper than is read."""
    level = [value]
    for _ in range(DEEPEST):
        inside = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [inner for one in inside for inner in one]
        if not level:
            return False
    return True


def _data_files(model: Model, folder: Path) -> Iterator[Path]:
    """The files with the external data of a graph, relative to the folder."""
    if model.folder is None:
        raise ModelError(f"{model.name} was given in memory")
    for tensor in model.externals:
        location = next(entry.value for entry in tensor.external_data if entry.key == "location")
        yield (model.folder / location).relative_to(folder)


def _handed_to(output: str) -> Iterator[str]:
    """The names that an input may have which an output is handed to."""
    yield output
    for made, given in STATES:
        if output.startswith(made):
            yield given + output.removeprefix(made)


def _rank(value: ValueInfoProto) -> int:
    return len(value.type.tensor_type.shape.dim)
