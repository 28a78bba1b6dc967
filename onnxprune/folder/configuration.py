"""Numbers in configuration files: which of them are widths and token ids of the graphs, and their new values.

A key is known by its name, and its number is matched with the groups by their kind and width. Nothing here knows an
architecture: whatever groups have the width that a key holds are kept at one width, which becomes its new value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from onnxprune.errors import UsageError
from onnxprune.model import HeldWidths, Width

# Heads of the queries, and of the keys and values where these are fewer.
HEADS = (
    *("num_attention_heads", "num_heads", "n_head", "n_heads", "num_decoder_heads"),
    *("encoder_attention_heads", "decoder_attention_heads"),
)
KEY_HEADS = ("num_key_value_heads", "num_kv_heads", "n_head_kv")
HEAD_SIZES = ("head_dim", "head_size", "d_kv")
# The stream between the layers, and what feed-forward layers have inside.
STREAMS = ("hidden_size", "n_embd", "d_model")
INNER = ("intermediate_size", "ffn_dim", "n_inner", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_hidden_size")
VOCABULARY = "vocab_size"
# Where a key is null: its value as a multiple of another key's.
MULTIPLES = {"n_inner": ("n_embd", 4), "ffn_hidden_size": ("hidden_size", 4)}
# Keys that end so hold ids of tokens, alone or in lists; of these lists, ids that are gone are left out.
TOKEN_ID = ("_token_id", "_token_ids")
SUPPRESSED = ("suppress_tokens", "begin_suppress_tokens")

CHANNEL, HEAD, HEAD_DIM = "channel", "head", "head dim"


@dataclass(frozen=True)
class Number:
    """A width of the graphs in a configuration file.

    Attributes:
        file: name of the file.
        place: the keys that lead to it.
        value: the number; of query heads, a multiple of the units.
        width: of the groups that it is about.
    """

    file: str
    place: tuple[str, ...]
    value: int
    width: Width

    def after(self, left: Mapping[Width, int]) -> int:
        """The new value, from how many units are left of the widths that shrank."""
        return self.value * left.get(self.width, self.width[1]) // self.width[1]


@dataclass(frozen=True)
class Configuration:
    """The configuration files of a folder.

    Attributes:
        files: name of a file -> its content.
    """

    files: Mapping[str, Any]

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """All widths but the vocabulary's."""
        return tuple(n for file, place, found in objects(self.files) for n in _numbers(file, place, found))

    @cached_property
    def vocabulary(self) -> frozenset[int]:
        """The sizes of vocabularies."""
        return frozenset(size for _, _, found in objects(self.files) if (size := count_at(found, VOCABULARY)))

    @cached_property
    def head_sizes(self) -> frozenset[int]:
        """The sizes of heads: as they are stated, else the stream's share of each."""
        found = {number.value for number in self.numbers if number.width[0] == HEAD_DIM}
        return frozenset(found or {size for _, (_, size), _ in self._proportions()})

    @cached_property
    def token_ids(self) -> frozenset[int]:
        """The ids of tokens that the files name, which a smaller vocabulary must have, too."""
        found: set[int] = set()
        for _, _, one in objects(self.files):
            for key, value in one.items():
                if key.endswith(TOKEN_ID):
                    found.update(_ids(value))
        return frozenset(found)

    def held(self, *, rows: bool) -> tuple[HeldWidths, ...]:
        """The widths that these files hold once for all layers.

        Args:
            rows: whether tokens go by name; the vocabulary is locked otherwise.
        """
        words = [HeldWidths(((CHANNEL, size),), "a vocabulary, which only --rows cuts") for size in self.vocabulary]
        found: list[dict[Width, None]] = []
        for widths in (*self._proportions(), *([number.width] for number in self.numbers)):
            one = dict.fromkeys(width for width in widths if width[1] not in self.vocabulary)
            for other in [known for known in found if known.keys() & one.keys()]:
                one |= other
                found.remove(other)
            found.append(one)
        return (*map(HeldWidths, map(tuple, filter(None, found))), *(() if rows else words))

    def after(self, left: Mapping[Width, int], kept: Mapping[int, tuple[int, ...]]) -> dict[str, Any]:
        """The files as they are for the smaller model.

        Args:
            left: width -> units that are left, of those that shrank.
            kept: size of a vocabulary -> the ids that are left of it, if some went.
        """
        new = new_ids(kept)
        made = {name: _copied(content, kept, new) for name, content in self.files.items()}
        for number in self.numbers if left else ():
            inner = made[number.file]
            for key in number.place[:-1]:
                inner = inner[key]
            inner[number.place[-1]] = number.after(left)
        return made

    def _proportions(self) -> Iterator[list[Width]]:
        """Heads, their size and the stream, of which files without a key for the size say that each is the rest's."""
        for _, _, found in objects(self.files):
            stream = next(filter(None, (count_at(found, key) for key in STREAMS)), 0)
            if stream and not any(key in found for key in HEAD_SIZES):
                for key in filter(partial(count_at, found), HEADS):
                    size = stream // count_at(found, key)
                    yield [(HEAD, _units(found, key)), (HEAD_DIM, size), (CHANNEL, stream)]


def new_ids(kept: Mapping[int, tuple[int, ...]]) -> dict[int, int]:
    """Old id -> new id of the tokens that are left.

    Args:
        kept: size of a vocabulary -> the ids that are left of it; of several, the same.
    """
    return {old: place for ids in kept.values() for place, old in enumerate(ids)}


def _numbers(file: str, place: tuple[str, ...], found: Mapping[str, Any]) -> Iterator[Number]:
    """The widths in one object."""
    for key in found:
        value = count_at(found, key) or (_meant(found, key) if found[key] is None else 0)
        if value and key in HEADS:
            yield Number(file, (*place, key), value, (HEAD, _units(found, key)))
        for kind, keys in ((HEAD, KEY_HEADS), (HEAD_DIM, HEAD_SIZES), (CHANNEL, (*STREAMS, *INNER))):
            if value and key in keys:
                yield Number(file, (*place, key), value, (kind, value))


def _meant(found: Mapping[str, Any], key: str) -> int:
    """What null stands for; 0 where that is not known."""
    if key in HEAD_SIZES:
        stream, heads = (next(filter(None, (count_at(found, k) for k in keys)), 0) for keys in (STREAMS, HEADS))
        return stream // heads if heads else 0
    other, times = MULTIPLES.get(key, ("", 0))
    return count_at(found, other) * times


def _units(found: Mapping[str, Any], key: str) -> int:
    """The units of the groups of heads that a key counts: one for each head of the keys."""
    heads = count_at(found, key)
    keys = next(filter(None, (count_at(found, k) for k in KEY_HEADS)), heads)
    return heads if heads % keys else keys


def objects(files: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, ...], Mapping[str, Any]]]:
    """Find all objects in configuration files.

    Args:
        files: name of a file -> its content.

    Yields:
        The file, the keys that lead to an object, and the object.
    """
    pending: list[tuple[str, tuple[str, ...], Any]] = [(name, (), content) for name, content in files.items()]
    while pending:
        file, place, found = pending.pop(0)
        if isinstance(found, dict):
            yield file, place, found
            pending += [(file, (*place, key), value) for key, value in found.items()]


def count_at(found: Mapping[str, Any], key: str) -> int:
    """Read a positive whole number.

    Args:
        found: an object in a configuration file.
        key: of the number.

    Returns:
        The number; 0 where there is none.
    """
    value = found.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


def _copied(value: Any, kept: Mapping[int, tuple[int, ...]], new: Mapping[int, int], key: str = "") -> Any:
    """A copy of a value with the size of a smaller vocabulary and its ids."""
    if new and key in SUPPRESSED and isinstance(value, list):
        return [new[i] for i in value if _is_id(i) and i in new]
    if new and key.endswith(TOKEN_ID):
        return _mapped(value, lambda i: _looked_up(new, i, key))
    if key == VOCABULARY and isinstance(value, int) and value in kept:
        return len(kept[value])
    if isinstance(value, dict):
        return {inner: _copied(one, kept, new, inner) for inner, one in value.items()}
    return [_copied(one, kept, new) for one in value] if isinstance(value, list) else value


def _looked_up(new: Mapping[int, int], token: int, key: str) -> int:
    if token not in new:
        raise UsageError(f"{key} is {token}, which is no row that is kept", hint="name it in --rows")
    return new[token]


def _mapped(value: Any, change: Callable[[int], int]) -> Any:
    """Ids, alone or in lists, changed; what is no id stays."""
    if isinstance(value, list):
        return [_mapped(one, change) for one in value]
    return change(value) if _is_id(value) else value


def _ids(value: Any) -> Iterator[int]:
    """Ids, alone or in lists."""
    if isinstance(value, list):
        for one in value:
            yield from _ids(one)
    elif _is_id(value):
        yield value


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
