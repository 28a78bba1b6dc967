"""What criteria and repairs leave of a trained language model: the second table in docs/accuracy.md.

    python -m tests.measure.accuracy_text [--criteria random,l2,wanda,obs] [--recover none,least-squares] [--removed
    20,30,50] [--train 0] [--texts 0] [--optimizer NAME] [--batch 8]

The model is stories260K (Llama, five layers), its texts are 64 that it wrote itself: 32 of them calibrate, on the other
32 the share of the next tokens is measured that are the original's, and what the texts cost (nats per token). Of every
feed-forward layer and of the heads of every attention the share is removed; the residual stream stays whole. With
--train, what is repaired takes so many gradient steps towards the original's outputs on the texts that calibrate, and,
with --texts, on so many that the original writes for this.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from onnxprune import calibration, criteria
from onnxprune.allocation import Options, select
from onnxprune.model import Model, load
from onnxprune.pipelines.train import learn_after
from onnxprune.recovery import RecoveryOptions, TrainingOptions, recover
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Session
from onnxprune.tracing import trace
from onnxprune.typing import Array
from tests.graphs import shared

NAME = "stories260K_dynamo_op21"


def logits(model: Model, entry: str, texts: Array) -> Array:
    """float64[texts, tokens, vocabulary]."""
    with Session(model) as session:
        return np.asarray(session.run({entry: texts[:, :-1]})[0], np.float64)


def cost(found: Array, texts: Array) -> float:
    """Mean negative logarithm of the probability of the next token."""
    shifted = found - found.max(axis=-1, keepdims=True)
    chances = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return float(-np.take_along_axis(chances, texts[:, 1:, None], axis=2).mean())


def stories(parser: argparse.ArgumentParser) -> tuple[Model, str, Array, Array]:
    """The model, its input, the texts that calibrate, and those that judge; an error where they are not there."""
    folder = shared.folder()
    if folder is None:
        parser.error(shared.ABSENT)
    texts = np.load(folder / "data" / "tinystories" / "self_samples.npy").astype(np.int64)
    source = load(str(shared.entry(f"models/{NAME}").path))
    (entry,) = [v.name for v in source.proto.graph.input if v.name not in source.initializers]
    return source, entry, texts[:32, :-1], texts[32:]


def written(model: Model, entry: str, first: Array, sizes: tuple[int, int]) -> Array:
    """Texts that the language model writes itself, token by token, from its first token on.

    Args:
        model: the model.
        entry: its input.
        first: the token that a text begins with, [1, 1].
        sizes: how many texts, and tokens of each.
    """
    rng, texts = np.random.default_rng(0), np.repeat(first, sizes[0], axis=0)
    with Session(model) as session:
        while texts.shape[1] < sizes[1]:
            logits = np.asarray(session.run({entry: texts})[0][:, -1], np.float64)
            drawn = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
            texts = np.concatenate([texts, drawn[:, None].astype(texts.dtype)], axis=1)
    return texts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--criteria", default="random,l2,wanda,obs")
    parser.add_argument("--recover", default="none,least-squares")
    parser.add_argument("--removed", default="20,30,50")
    parser.add_argument("--train", type=int, default=0)
    parser.add_argument("--texts", type=int, default=0)
    parser.add_argument("--optimizer")
    parser.add_argument("--batch", type=int, default=8)
    given = parser.parse_args()
    source, entry, calibrating, texts = stories(parser)
    runs = calibration.read([{entry: calibrating}], source, samples=32)
    more = written(source, entry, texts[:1, :1], (given.texts, calibrating.shape[1])) if given.texts else None
    learned = runs if more is None else [*runs, *calibration.read([{entry: more}], source, samples=given.texts)]
    groups = trace(source)
    inside = [g.name for g in groups.groups if len(g.members) < len(groups.groups)]
    whole = logits(source, entry, texts)
    print(f"{NAME}: {cost(whole, texts):.3f} nats, {len(inside)} of {len(groups.groups)} groups", flush=True)
    for criterion in given.criteria.split(","):
        scores = criteria.score(groups, criterion, 0, runs)
        for share in map(float, given.removed.split(",")):
            chosen = select(groups, scores, Options(criterion=criterion, ratio=share / 100, only=inside))
            removal = Removal(groups, removed_classes(groups, chosen.removed))
            small = rewrite(groups, removal.removed_classes)
            for method in given.recover.split(","):
                start = time.perf_counter()
                model = small if method == "none" else recover(removal, small, runs, RecoveryOptions(method))[0]
                if given.train and method != "none":
                    options = TrainingOptions(given.train, optimizer=given.optimizer, batch=given.batch, threads=1)
                    model, done = learn_after(removal, model, learned, options)
                    method = f"{method}, {given.train} steps ({done.rate:g})"
                found, seconds = logits(model, entry, texts), time.perf_counter() - start
                same = float((found.argmax(axis=-1) == whole.argmax(axis=-1)).mean())
                cells = (f"{share:.0f} %", f"{same:.1%}", f"{cost(found, texts):.3f}", f"{seconds:.0f} s")
                print(f"| {criterion} | {method} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
