"""Numbers of layers in configuration files, and lists with an entry for each: what they are without some layers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxprune.errors import GoalMissed
from onnxprune.folder.configuration import count_at, objects

ENCODER, DECODER = "encoder", "decoder"
LAYERS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    *("num_encoder_layers", "encoder_layers", "num_decoder_layers", "decoder_layers"),
)
# A list whose key has this in it has an entry for each layer, if it is as long.
_LIST = "layer"


@dataclass(frozen=True)
class Stack:
    """The layers of one graph.

    Attributes:
        kind: "encoder", or "decoder" where the graph has a cache that grows with every token.
        count: how many there are.
        gone: the places of those that go.
    """

    kind: str
    count: int
    gone: tuple[int, ...]


@dataclass(frozen=True)
class _LayerCount:
    """A number of layers.

    Attributes:
        file: name of the file.
        place: the keys that lead to it, its own the last.
        kind: of the stack that it counts; empty where that is not told.
        value: the number.
    """

    file: str
    place: tuple[str, ...]
    kind: str
    value: int

    def is_of(self, stack: Stack) -> bool:
        """Whether it counts a stack."""
        return self.kind in ("", stack.kind) and self.value == stack.count


def check_counted(files: Mapping[str, Any], stacks: Sequence[Stack]) -> None:
    """Refuse what configuration files cannot say.

    Args:
        files: name of a file -> its content.
        stacks: the layers of every graph.

    Raises:
        GoalMissed: graphs of one kind would have different layers, or no file says how many there are.
    """
    numbers = list(_counts(files))
    for stack in stacks:
        alike = [other for other in stacks if other.kind == stack.kind]
        if any(other.gone != stack.gone for other in alike):
            raise GoalMissed(
                f"the graphs of the {stack.kind} would have different layers",
                hint="name the same layers of each: --blocks",
            )
        if stack.gone and files and not any(number.is_of(stack) for number in numbers):
            said = ", ".join(f"{number.place[-1]} is {number.value}" for number in numbers) or "no file counts layers"
            raise GoalMissed(
                f"{stack.count} blocks of the {stack.kind} were found, but {said}",
                hint="blocks that are no whole layers go from a single file: onnxprune drop FILE",
            )
    for number in numbers:
        if len({stack.gone for stack in stacks if number.is_of(stack)}) > 1:
            raise GoalMissed(
                f"{number.place[-1]} counts the layers of the {ENCODER} and of the {DECODER}, which would differ",
                hint="drop the same layers of both: --blocks",
            )


def without_layers(files: Mapping[str, Any], stacks: Collection[Stack]) -> dict[str, Any]:
    """Count what is left.

    Args:
        files: name of a file -> its content, which is not changed.
        stacks: the layers of every graph.

    Returns:
        The files, with as many layers less, and without their entries in lists of layers.
    """
    made = dict(files)
    for number in _counts(files):
        for stack in stacks:
            if stack.gone and number.is_of(stack):
                made[number.file] = _shorter(made[number.file], number.place, stack)
    return made


def _shorter(content: Any, place: Sequence[str], stack: Stack) -> Any:
    """A copy of an object in which a number at a place, and the lists beside it, are those of a shorter stack."""
    key, *rest = place
    if rest:
        return {**content, key: _shorter(content[key], rest, stack)}
    lists = {
        name: [one for i, one in enumerate(value) if i not in stack.gone]
        for name, value in content.items()
        if _LIST in name and isinstance(value, list) and len(value) == stack.count
    }
    return {**content, **lists, key: stack.count - len(stack.gone)}


def _counts(files: Mapping[str, Any]) -> Iterator[_LayerCount]:
    """All numbers of layers."""
    for file, place, found in objects(files):
        for key in found:
            if key in LAYERS and (value := count_at(found, key)):
                yield _LayerCount(file, (*place, key), _kind((*place, key), found), value)


def _kind(place: Sequence[str], within: Mapping[str, Any]) -> str:
    """Which stack a number counts: its keys say so, or another number beside it is the decoder's."""
    words = "/".join(place)
    if DECODER in words or ENCODER in words:
        return DECODER if DECODER in words else ENCODER
    return ENCODER if any(DECODER in key for key in within if key in LAYERS) else ""
