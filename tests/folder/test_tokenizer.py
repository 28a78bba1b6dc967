"""Fewer tokens: texts of those that are left are split as before, under new numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from onnxprune.errors import UsageError
from onnxprune.folder.tokenizer import needed_tokens, renumbered, renumbered_config

LINES = ["the quick brown fox jumps over the lazy dog", "seven wizards brew a potion", "the dog is quick", "a lazy fox"]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]
TEXTS = ["the lazy fox", "a quick potion", "dog"]


def trained(kind: str) -> Tokenizer:
    """A tokenizer of a kind, trained on a few lines."""
    model, trainer, before = {
        "BPE": (models.BPE(), trainers.BpeTrainer, pre_tokenizers.ByteLevel(add_prefix_space=False)),
        "WordPiece": (models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer, pre_tokenizers.Whitespace()),
        "Unigram": (models.Unigram(), trainers.UnigramTrainer, pre_tokenizers.Metaspace()),
        "WordLevel": (models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer, pre_tokenizers.Whitespace()),
    }[kind]
    made = Tokenizer(model)
    made.pre_tokenizer = before
    made.decoder = {"BPE": decoders.ByteLevel(), "Unigram": decoders.Metaspace()}.get(kind, decoders.WordPiece())
    more: dict[str, Any] = {"unk_token": "<unk>"} if kind == "Unigram" else {}
    made.train_from_iterator(LINES * 5, trainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False, **more))
    template = [(name, made.token_to_id(name)) for name in ("<s>", "</s>")]
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=template)
    return made


@pytest.mark.parametrize("kind", ["BPE", "WordPiece", "Unigram", "WordLevel"])
def test_texts_are_split_and_joined_as_before(kind: str) -> None:
    whole = trained(kind)
    content = json.loads(whole.to_str())
    asked = {i for text in TEXTS for i in whole.encode(text).ids}
    kept = sorted(needed_tokens(content, asked))
    assert asked < {*kept} and len(kept) < whole.get_vocab_size()
    new = {old: place for place, old in enumerate(kept)}
    small = Tokenizer.from_str(json.dumps(renumbered(content, new)))
    assert small.get_vocab_size() == len(kept)
    for text in TEXTS:
        ids = whole.encode(text).ids
        assert small.encode(text).ids == [new[i] for i in ids]
        assert small.decode(small.encode(text).ids) == whole.decode(ids)


def test_merges_written_as_text() -> None:
    """As older files have them; a token that is merged in two ways keeps the parts of both."""
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5, "d": 6, "ad": 7}
    merges = ["a b", "b c", "ab c", "a bc", "a d"]
    content = {
        "model": {"type": "BPE", "vocab": vocabulary, "merges": merges},
        "added_tokens": [],
        "post_processor": None,
    }
    kept = needed_tokens(content, {5})
    assert kept == {0, 1, 2, 3, 4, 5}
    made = renumbered(content, {old: old for old in kept})
    assert made["model"]["merges"] == merges[:4]


def test_pairs_of_a_post_processor() -> None:
    content = {
        "model": {"type": "WordPiece", "vocab": {"[UNK]": 0, "x": 1, "[CLS]": 2, "[SEP]": 3}, "unk_token": "[UNK]"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    }
    assert needed_tokens(content, ()) == {0, 2, 3}
    made = renumbered(content, {0: 0, 2: 1, 3: 2})
    assert made["post_processor"] == {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]}


def test_added_tokens_of_the_configuration() -> None:
    config = {"added_tokens_decoder": {"0": {"content": "<pad>"}, "5": {"content": "<x>"}}, "model_max_length": 9}
    assert renumbered_config(config, {5: 1}) == config | {"added_tokens_decoder": {"1": {"content": "<x>"}}}
    assert renumbered_config({"a": 1}, {}) == {"a": 1}


@pytest.mark.parametrize("content", [{}, {"model": None}, {"model": {"type": "BPE"}}])
def test_what_is_no_tokenizer(content: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no model with a vocabulary"):
        needed_tokens(content, {1})


@pytest.mark.parametrize(
    "changed",
    [
        *({"added_tokens": value} for value in ("x", 1, [3], [{"special": True}], [{"id": "1", "special": True}])),
        *({"post_processor": {"ids": value}} for value in (["x"], [[1]], [None])),
        *({"model": {"vocab": {"a": value}}} for value in ([1], "x", None)),
        *({"model": {"vocab": {}, "merges": value}} for value in ("x", 3, ["ab"], [["a"]], [[1, 2]], {"a": 1})),
        *({"model": {"vocab": {}, "unk_token": value}} for value in ([], {}, ["a"], {"a": 1})),
    ],
)
def test_a_tokenizer_that_no_library_wrote_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"tokenizer\.json: "):
        needed_tokens({"model": {"vocab": {"a": 0}}, **changed}, [0])


@pytest.mark.parametrize("key", ["x", "\u00b2", "9" * 5000])
def test_keys_that_are_no_ids_of_tokens_go(key: str) -> None:
    config = {"added_tokens_decoder": {key: {"content": "a"}, "7": {"content": "b"}}}
    assert renumbered_config(config, {7: 0})["added_tokens_decoder"] == {"0": {"content": "b"}}
