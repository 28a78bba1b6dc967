"""Numbers in configuration files, as families of models have them."""

from __future__ import annotations

from typing import Any

import pytest

from onnxprune.errors import UsageError
from onnxprune.folder import Configuration
from onnxprune.model import HeldWidths

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "num_hidden_layers": 3,
    "vocab_size": 160,
    "bos_token_id": 1,
    "eos_token_id": [2, 7],
    "pad_token_id": None,
}
GPT2 = {"n_embd": 32, "n_head": 4, "n_inner": None, "n_layer": 2, "vocab_size": 99}
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_heads": 4, "num_layers": 2, "vocab_size": 99}
WHISPER = {
    "d_model": 32,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 8,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 56,
    "suppress_tokens": [3, 4],
    "vocab_size": 99,
}
GENAI = {"model": {"decoder": {"head_size": 4, "num_attention_heads": 8, "num_key_value_heads": 8}, "vocab_size": 9}}


def widths(content: dict[str, Any]) -> list[set[tuple[str, int]]]:
    """The widths that may go, those in proportion together."""
    return [{*held.widths} for held in Configuration({"config.json": content}).held(rows=True)]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (LLAMA, [{("channel", 32)}, {("channel", 48)}, {("head", 4)}, {("head dim", 16)}]),
        (GPT2, [{("head", 4), ("head dim", 8), ("channel", 32)}, {("channel", 128)}]),
        (T5, [{("channel", 32)}, {("head dim", 8)}, {("channel", 48)}, {("head", 4)}]),
        (
            WHISPER,
            [
                {("head", 4), ("head dim", 8), ("channel", 32), ("head", 8), ("head dim", 4)},
                {("channel", 48)},
                {("channel", 56)},
            ],
        ),
        (GENAI, [{("head dim", 4)}, {("head", 8)}]),
        ({}, []),
    ],
)
def test_widths(content: dict[str, Any], wanted: list[set[tuple[str, int]]]) -> None:
    assert sorted(map(sorted, widths(content))) == sorted(map(sorted, wanted))


def test_a_width_is_held_once_for_all_files() -> None:
    files = {"config.json": LLAMA, "genai_config.json": {"model": {"decoder": {"hidden_size": 32, "head_size": 16}}}}
    assert len(Configuration(files).held(rows=True)) == 4


def test_new_numbers() -> None:
    made = Configuration({"config.json": LLAMA}).after({("head", 4): 3, ("channel", 48): 30}, {})
    changed = {"num_attention_heads": 6, "num_key_value_heads": 3, "intermediate_size": 30}
    assert made == {"config.json": LLAMA | changed}
    made = Configuration({"config.json": GENAI}).after({("head", 8): 2}, {})
    assert made["config.json"]["model"]["decoder"] == {
        "head_size": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    }


def test_what_null_stands_for_is_written_out() -> None:
    """Once something goes: the number that it stands for would be another."""
    files = Configuration({"config.json": GPT2 | {"head_dim": None}})
    assert files.after({}, {})["config.json"]["n_inner"] is None
    made = files.after({("channel", 32): 16}, {})["config.json"]
    assert (made["n_embd"], made["n_inner"], made["head_dim"]) == (16, 128, 8)


def test_a_smaller_vocabulary() -> None:
    files = Configuration(
        {"config.json": LLAMA, "generation_config.json": {"suppress_tokens": [2, 5], "eos_token_id": 7}}
    )
    assert files.token_ids == {1, 2, 7}
    made = files.after({}, {160: (1, 2, 7, 9)})
    assert made["config.json"] == LLAMA | {"vocab_size": 4, "bos_token_id": 0, "eos_token_id": [1, 2]}
    assert made["generation_config.json"] == {"suppress_tokens": [1], "eos_token_id": 2}
    with pytest.raises(UsageError, match="eos_token_id is 7"):
        files.after({}, {160: (1, 2)})


def test_the_vocabulary_is_locked_unless_it_goes_by_name() -> None:
    (locked,) = [h for h in Configuration({"config.json": LLAMA}).held(rows=False) if h.locked]
    assert locked == HeldWidths((("channel", 160),), "a vocabulary, which only --rows cuts")
    assert not any(h.locked for h in Configuration({"config.json": LLAMA}).held(rows=True))


def test_numbers_that_are_none() -> None:
    odd = {"hidden_size": True, "num_attention_heads": 0, "vocab_size": "many", "intermediate_size": -3, "d_ff": 2.5}
    files = Configuration({"config.json": odd})
    assert not files.held(rows=False) and files.after({("head", 1): 1}, {}) == {"config.json": odd}


@pytest.mark.parametrize("value", [[], {}, [[1]], [{}], {"a": [1]}, "x", 1.5])
@pytest.mark.parametrize("key", ["vocab_size", "suppress_tokens"])
def test_values_of_another_kind_are_no_fault(key: str, value: object) -> None:
    made = Configuration({"config.json": {key: value, "bos_token_id": 1}}).after({}, {40: (0, 1)})
    assert made["config.json"]["bos_token_id"] == 1
