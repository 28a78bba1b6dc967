"""Folders as exporters write them, pruned, and run by the programs that they are made for.

    python -m tests.measure.folders FOLDER optimum llama gpt2 t5 whisper
    python -m tests.measure.folders FOLDER merged llama gpt2 t5 whisper
    python -m tests.measure.folders FOLDER genai llama whisper

Models of tiny random configurations are exported (`optimum-onnx` 0.1.0 with transformers 4.57 for the first,
`onnxruntime-genai` 0.18.0 with transformers 5.24 for the last, each in an environment of its own), pruned, and asked
for tokens: those of the smaller folder, and those of the masked original that the proof compares with. Whisper of
onnxruntime-genai needs ONNX Runtime 1.32: 1.31.1 ends the process in its encoder, before anything is pruned.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from onnxprune.folder import Smaller, read_folder, write_folder
from onnxprune.pipelines.drop_folder import drop_folder
from onnxprune.pipelines.prune_folder import prune_folder
from onnxprune.proof.masked import masked
from tests.graphs.folders import with_zeros

WORDS, NEW = 160, 16
LINES = (
    "the quick brown fox jumps over the lazy dog while seven wizards brew a potion of strange colours and light",
    "one two three four five six seven",
    "a stitch in time saves nine, they say, and so the tailor sews",
)
TEXT = "the lazy fox brews a potion in time"
SPECIAL = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TASKS = {
    "llama": "text-generation-with-past",
    "gpt2": "text-generation-with-past",
    "t5": "text2text-generation-with-past",
    "whisper": "automatic-speech-recognition-with-past",
}
MELS, FRAMES = 8, 3000


def make(family: str, folder: Path) -> None:
    """A model with random weights, and a tokenizer that is trained on a few lines."""
    import torch
    import transformers as hf

    torch.manual_seed(0)
    model: Any = {
        "llama": lambda: hf.LlamaForCausalLM(
            hf.LlamaConfig(
                vocab_size=WORDS, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, head_dim=16, max_position_embeddings=64, **SPECIAL,
            )
        ),
        "gpt2": lambda: hf.GPT2LMHeadModel(
            hf.GPT2Config(vocab_size=WORDS, n_embd=32, n_layer=2, n_head=4, n_positions=64, **SPECIAL)
        ),
        "t5": lambda: hf.T5ForConditionalGeneration(
            hf.T5Config(
                vocab_size=WORDS, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0,
                eos_token_id=2, pad_token_id=0,
            )
        ),
        "whisper": lambda: hf.WhisperForConditionalGeneration(
            hf.WhisperConfig(
                vocab_size=WORDS, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=56, num_mel_bins=MELS,
                max_source_positions=FRAMES // 2, max_target_positions=40, decoder_start_token_id=1,
                suppress_tokens=None, begin_suppress_tokens=None, **SPECIAL,
            )
        ),
    }[family]()  # fmt: skip
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.25)
    model.eval().save_pretrained(folder)
    write_tokenizer(folder)
    if family == "whisper":
        hf.WhisperFeatureExtractor(feature_size=MELS).save_pretrained(folder)


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=WORDS, special_tokens=["<pad>", "<s>", "</s>"], show_progress=False)
    made.train_from_iterator(LINES * 3, trainer)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(folder)


def export(layout: str, family: str, source: Path, target: Path) -> None:
    if layout != "genai":  # merged: one graph for the first token and the others
        from optimum.exporters.onnx import main_export

        given = {"output": str(target), "task": TASKS[family], "do_validation": False}
        main_export(str(source), **given, no_post_process=layout != "merged")
    else:
        builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "fp32", "-e", "cpu"]
        subprocess.run([*builder, "-i", str(source), "-o", str(target)], check=True, capture_output=True)


# --- tokens ------------------------------------------------------------------------------------------------


def optimum_tokens(family: str, folder: Path, prompt: Sequence[int]) -> list[int]:
    import torch
    from optimum import onnxruntime as ort

    kinds = {"t5": ort.ORTModelForSeq2SeqLM, "whisper": ort.ORTModelForSpeechSeq2Seq}
    model = kinds.get(family, ort.ORTModelForCausalLM).from_pretrained(folder, use_cache=True)
    torch.manual_seed(0)
    heard = {"input_features": torch.randn(1, MELS, FRAMES)}
    given = heard if family == "whisper" else {"input_ids": torch.tensor([prompt])}
    made = model.generate(**given, max_new_tokens=NEW, do_sample=False, eos_token_id=None)
    return [int(token) for token in made[0]]


def genai_tokens(family: str, folder: Path, prompt: Sequence[int]) -> list[int]:
    import onnxruntime_genai as og

    model = og.Model(str(folder))
    asked = og.GeneratorParams(model)
    most = (1 if family == "whisper" else len(prompt)) + NEW
    asked.set_search_options(max_length=most, min_length=most, do_sample=False)
    generator = og.Generator(model, asked)
    if family == "whisper":
        heard = model.create_multimodal_processor()(["<s>"], audios=og.Audios.open_bytes(noise()))
        generator.set_inputs(heard)
    else:
        generator.append_tokens([list(prompt)])
    while not generator.is_done():
        generator.generate_next_token()
    return [int(token) for token in generator.get_sequence(0)]


def noise() -> bytes:
    """A second of it, as a WAV file."""
    import numpy as np

    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setparams((1, 2, 16000, 16000, "NONE", ""))
        sound.writeframes((np.random.default_rng(0).standard_normal(16000) * 3000).astype(np.int16).tobytes())
    return file.getvalue()


TOKENS: dict[str, Callable[[str, Path, Sequence[int]], list[int]]] = {
    "optimum": optimum_tokens,
    "merged": optimum_tokens,
    "genai": genai_tokens,
}


# --- what is shown -----------------------------------------------------------------------------------------


def cut(source: Path, target: Path, **asked: Any) -> None:
    """The folder pruned, and beside it the masked original."""
    outcome = prune_folder(source, target, force=True, **asked)
    folder = read_folder(source)
    reference = masked(outcome.groups, outcome.plan.removed(outcome.groups))
    write_folder(folder, Smaller(reference), target.with_name(f"{target.name}_masked"), force=True)


def show(layout: str, family: str, place: Path) -> None:
    """Prune one model by widths, and one by words, and say whether the tokens are the same."""
    whole, small, words = (place / layout / family / name for name in ("whole", "small", "words"))
    if not whole.exists():
        make(family, place / "weights" / family)
        export(layout, family, place / "weights" / family, whole)
    ids = prompt_of(whole)
    cut(whole, small, ratio=0.5)
    tokens = {name: TOKENS[layout](family, whole.with_name(name), ids) for name in ("whole", "small_masked", "small")}
    same = tokens["small"] == tokens["small_masked"]
    sizes = [sum(path.stat().st_size for path in folder.rglob("*.onnx*")) for folder in (whole, small)]
    print(f"{layout} {family}: {sizes[0]} -> {sizes[1]} bytes, caches {caches(whole)} -> {caches(small)} per token")
    print(f"  numbers {changed(whole, small)}")
    print(f"  the tokens of the masked original: {same}; of the original: {tokens['small'] == tokens['whole']}")
    if layout != "merged":
        without_a_layer(layout, family, whole)
    if family != "whisper":
        by_words(layout, family, whole, words)


def without_a_layer(layout: str, family: str, whole: Path) -> None:
    """Drop a layer of a decoder, and compare with the original in which all its weights are zeros."""
    shallow, zeroed = (whole.with_name(name) for name in ("shallow", "shallow_zeroed"))
    done = drop_folder(whole, shallow, count=1, keep=("encoder*",), force=True)
    gone = {name for step in done.plan.bypasses for name in step.weights}
    with_zeros(whole, zeroed, gone.__contains__)
    tokens = [TOKENS[layout](family, one, prompt_of(whole)) for one in (shallow, zeroed, whole)]
    print(f"  without {done.dropped[0].block.name}: {changed(whole, shallow)}, caches {caches(shallow)} per token")
    print(f"  the tokens of its weights zeroed: {tokens[0] == tokens[1]}; of the original: {tokens[0] == tokens[2]}")


def by_words(layout: str, family: str, whole: Path, words: Path) -> None:
    """Cut the vocabulary to the tokens of a text and of what follows it."""
    from tokenizers import Tokenizer

    before, prompt = Tokenizer.from_file(str(whole / "tokenizer.json")), prompt_of(whole)
    old = TOKENS[layout](family, whole, prompt)
    prune_folder(whole, words, ratio=0.0, rows={"vocab_size": [*prompt, *old]}, force=True)
    after = Tokenizer.from_file(str(words / "tokenizer.json"))
    new = TOKENS[layout](family, words, after.encode(TEXT).ids)
    alike = after.decode(new) == before.decode(old) and after.decode(after.encode(TEXT).ids) == TEXT
    sizes = before.get_vocab_size(), after.get_vocab_size()
    print(f"  words {sizes[0]} -> {sizes[1]}: the same text {alike}: {after.decode(new)[:60]!r}")


def prompt_of(folder: Path) -> list[int]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(TEXT).ids)


def caches(folder: Path) -> int:
    """Bytes of the caches for every token."""
    read, total = read_folder(folder), 0
    states = {name for pair in read.states for name in pair}
    for value in read.joined.model.proto.graph.input:
        axes = value.type.tensor_type.shape.dim
        if value.name in states and len(axes) == 4:
            total += 4 * axes[1].dim_value * (axes[3].dim_value or next(iter(read.configuration.head_sizes)))
    return total


def changed(whole: Path, small: Path) -> str:
    """The numbers of the configuration that changed."""
    found: list[str] = []

    def walk(one: Any, other: Any, key: str = "") -> None:
        if isinstance(one, dict):
            for name in one:
                walk(one[name], other[name], name)
        elif one != other:
            found.append(f"{key} {one} -> {other}")

    for path in sorted(whole.glob("*config.json")):
        walk(json.loads(path.read_text()), json.loads((small / path.name).read_text()))
    return ", ".join(found)


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    for wanted in sys.argv[3:]:
        show(sys.argv[2], wanted, Path(sys.argv[1]))
