"""The tokenizer of a folder with fewer tokens: which of them it needs to make others, and their new ids.

The format is that of the `tokenizers` library (tokenizer.json, version 1.0).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from onnxprune.errors import UsageError


def needed_tokens(tokenizer: Mapping[str, Any], ids: Collection[int]) -> frozenset[int]:
    """The tokens to keep so that a text whose tokens are `ids` is split as before.

    Special tokens, the one for what is unknown, and those that others are merged from: byte-pair encoding goes from
    letters to a token over all tokens between. A merge whose result stays keeps its parts, so every merge that was made
    in such a text is there, none is new, and their ranks are as before.

    Args:
        tokenizer: content of a tokenizer.json.
        ids: of the tokens that are asked for.

    Raises:
        UsageError: the tokenizer is of an unknown kind.
    """
    model = _model(tokenizer)
    kept = {*ids, *(one["id"] for one in tokenizer.get("added_tokens") or () if one.get("special"))}
    kept.update(token for place in _id_lists(tokenizer.get("post_processor")) for token in place)
    if isinstance(model.get("unk_id"), int):
        kept.add(model["unk_id"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        if model.get("unk_token") in vocabulary:
            kept.add(vocabulary[model["unk_token"]])
        kept |= _parts(model, vocabulary, kept)
    return frozenset(kept)


def renumbered(tokenizer: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """The tokenizer with the tokens that are left, under their new ids.

    Args:
        tokenizer: content of a tokenizer.json.
        new: old id -> new id of the tokens that are left; all that `needed_tokens` names are.
    """
    model, made = dict(_model(tokenizer)), dict(tokenizer)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {token: new[old] for token, old in vocabulary.items() if old in new}
    else:
        left = sorted((new[old], entry) for old, entry in enumerate(vocabulary) if old in new)
        model["vocab"] = [entry for _, entry in left]
    if model.get("merges"):
        there = model["vocab"]
        model["merges"] = [m for m in model["merges"] if {*_pair(m), _merged(model, m)} <= there.keys()]
    if isinstance(model.get("unk_id"), int):
        model["unk_id"] = new[model["unk_id"]]
    made["model"] = model
    if made.get("added_tokens"):
        made["added_tokens"] = [one | {"id": new[one["id"]]} for one in made["added_tokens"] if one["id"] in new]
    made["post_processor"] = _with_ids(tokenizer.get("post_processor"), new)
    return made


def renumbered_config(config: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """A tokenizer_config.json with the added tokens that are left, under their new ids."""
    made = dict(config)
    added = config.get("added_tokens_decoder")
    if isinstance(added, dict):
        old = {str(one): one for one in new}
        made["added_tokens_decoder"] = {str(new[old[i]]): one for i, one in added.items() if i in old}
    return made


def _model(tokenizer: Mapping[str, Any]) -> Mapping[str, Any]:
    model = tokenizer.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise UsageError("tokenizer.json has no model with a vocabulary", hint=_WHOLE)
    added = tokenizer.get("added_tokens") or []
    wrong = {
        "model.vocab": isinstance(model["vocab"], dict) and not all(map(_is_number, model["vocab"].values())),
        "model.merges": not _is_list(model.get("merges") or [], _is_merge),
        "model.unk_token": not isinstance(model.get("unk_token"), str | None),
        "model.continuing_subword_prefix": not isinstance(model.get("continuing_subword_prefix"), str | None),
        "added_tokens": not _is_list(added, lambda one: isinstance(one, dict) and _is_number(one.get("id"))),
        "post_processor": not all(_is_list(ids, _is_number) for ids in _id_lists(tokenizer.get("post_processor"))),
    }
    if place := next((place for place, is_wrong in wrong.items() if is_wrong), None):
        raise UsageError(f"tokenizer.json: {place} is not as the tokenizers library writes it", hint=_WHOLE)
    return model


_WHOLE = "keep all rows, or leave the file out"


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_merge(merge: Any) -> bool:
    """Whether it is two tokens, in a text or in a list."""
    if isinstance(merge, str):
        return " " in merge
    return _is_list(merge, lambda token: isinstance(token, str)) and len(merge) == 2


def _parts(model: Mapping[str, Any], vocabulary: Mapping[str, int], ids: Collection[int]) -> set[int]:
    """The tokens that those of some ids are merged from, and what these are merged from."""
    made_of: dict[str, list[str]] = {}
    for merge in model.get("merges") or ():
        made_of.setdefault(_merged(model, merge), []).extend(_pair(merge))
    pending, met = [token for token, i in vocabulary.items() if i in {*ids}], set[str]()
    while pending:
        token = pending.pop()
        if token not in met:
            met.add(token)
            pending += made_of.get(token, ())
    return {vocabulary[token] for token in met if token in vocabulary}


def _pair(merge: Any) -> tuple[str, str]:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left, right


def _merged(model: Mapping[str, Any], merge: Any) -> str:
    left, right = _pair(merge)
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _id_lists(processor: Any) -> Iterator[list[int]]:
    """The ids in a post-processor: those of its templates, and of pairs such as ["[SEP]", 102]."""
    if isinstance(processor, dict):
        for value in processor.values():
            yield from _id_lists(value)
        if isinstance(processor.get("ids"), list):
            yield processor["ids"]
    elif isinstance(processor, list):
        if _is_named_id(processor):
            yield processor[1:]
        for value in processor:
            yield from _id_lists(value)


def _with_ids(processor: Any, new: Mapping[int, int]) -> Any:
    """A post-processor with new ids."""
    if isinstance(processor, dict):
        made = {key: _with_ids(value, new) for key, value in processor.items()}
        return made | ({"ids": [new[i] for i in processor["ids"]]} if isinstance(processor.get("ids"), list) else {})
    if isinstance(processor, list):
        return [processor[0], new[processor[1]]] if _is_named_id(processor) else [_with_ids(p, new) for p in processor]
    return processor


def _is_named_id(value: list[Any]) -> bool:
    return len(value) == 2 and isinstance(value[0], str) and _is_number(value[1])
