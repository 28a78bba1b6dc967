"""What repairs leave of trained recurrent networks: the table of recurrent networks in docs/accuracy.md.

    python -m tests.measure.accuracy_recurrent [--network g2p,thai,rows_gru.onnx] [--removed 30,50,70]
                                       [--recover none,least-squares] [--samples 256] [--train 0]

`g2p` says words (four LSTM layers, two of them in both directions): words that are all right, of those that did not
calibrate. `thai` romanises names (one LSTM in both directions; its embedding is cut): characters that are right. Files
are classifiers that read MNIST pictures row by row, float32[n, 28, 28] between 0 and 1, as
`tests/measure/train_rows.py` writes them. A budget on MACs says how much goes. With --train, what is repaired takes so
many gradient steps towards the original's outputs on the inputs that calibrate.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from onnxprune import calibration, criteria
from onnxprune.allocation import Options
from onnxprune.allocation.fit_budgets import fit
from onnxprune.model import Model, load
from onnxprune.pipelines.train import learn_after
from onnxprune.recovery import RecoveryOptions, TrainingOptions, recover
from onnxprune.rewriting import Removal, removed_classes
from onnxprune.rewriting.rewrite import rewrite
from onnxprune.runtime import Session
from onnxprune.tracing import trace
from onnxprune.typing import Array, Feeds
from tests.graphs import shared
from tests.measure import labelled

STOP = 2


class Task(Protocol):
    """What a network does."""

    source: Model

    def calibration(self, samples: int) -> list[Feeds]:
        """Unlabelled inputs."""

    def accuracy(self, model: Model) -> float:
        """Share of what the network gets right, on others."""


def distance(one: Sequence[Any], other: Sequence[Any]) -> int:
    """The least number of changes from one sequence to the other."""
    line = list(range(len(other) + 1))
    for i, x in enumerate(one, 1):
        before, line[0] = line[0], i
        for j, y in enumerate(other, 1):
            before, line[j] = line[j], min(line[j] + 1, line[j - 1] + 1, before + (x != y))
    return line[-1]


@dataclass(frozen=True)
class Words:
    """Phonemes of words, one after the other: `t` letters are said, or the next phoneme comes."""

    source: Model
    words: Sequence[tuple[str, Sequence[str]]]
    letters: Mapping[str, int]
    phonemes: Sequence[str]
    calibrating: int = 150

    def said(self, session: Session, word: str) -> tuple[Array, list[int], list[tuple[int, int]]]:
        """(letters, phonemes behind the start, length of these and letters said at every step)."""
        src, tgt, said, steps = np.array([[self.letters[x] for x in word]], np.int32), [STOP], 0, []
        while said < src.shape[1] and len(tgt) < 48:
            steps.append((len(tgt), said))
            feeds = {"src": src, "tgt": np.array([tgt], np.int32), "t": np.array([said], np.int32)}
            found = int(session.run(feeds)[0][0])
            tgt, said = ([*tgt, found], said) if found != STOP else (tgt, said + 1)
        return src, tgt, steps

    def calibration(self, samples: int) -> list[Feeds]:
        """Steps drawn from what the original makes of the first words."""
        rng = np.random.default_rng(1)
        with Session(self.source) as session:
            said = [self.said(session, word) for word, _ in self.words[: self.calibrating]]
        found: list[Feeds] = []
        while len(found) < samples:
            for src, tgt, steps in said:
                length, letters = steps[int(rng.integers(len(steps)))]
                found.append(
                    {"src": src, "tgt": np.array([tgt[:length]], np.int32), "t": np.array([letters], np.int32)}
                )
        return found[:samples]

    def accuracy(self, model: Model) -> float:
        """Share of the other words whose phonemes are all right."""
        with Session(model) as session:
            said = [(self.said(session, word)[1], wanted) for word, wanted in self.words[self.calibrating :]]
        return float(np.mean([[self.phonemes[i] for i in tgt[1:]] == list(wanted) for tgt, wanted in said]))


@dataclass(frozen=True)
class Names:
    """Romanised names of provinces, with the decoder that was trained with the encoder."""

    source: Model
    decoder: Model
    tables: Mapping[str, Mapping[str, Any]]
    names: Sequence[tuple[str, str]]
    words: Sequence[str]

    def ids(self, name: str) -> Array:
        """int64[1, letters + 1]."""
        ids = self.tables["char_to_ix"]
        return np.array([[ids.get(x, ids["<UNK>"]) for x in name] + [ids["<end>"]]], np.int64)

    def feeds(self, name: str) -> Feeds:
        """What the encoder reads."""
        ids = self.ids(name)
        return {"input_tensor": ids, "input_lengths": np.array([ids.shape[1]], np.int32)}

    def calibration(self, samples: int) -> list[Feeds]:
        """Frequent words."""
        drawn = np.random.default_rng(1).permutation(len(self.words))[:samples]
        return [self.feeds(self.words[i]) for i in drawn]

    def accuracy(self, model: Model) -> float:
        """Share of the characters that are right, of all names together."""
        wrong = count = 0
        with Session(model) as encoder, Session(self.decoder) as decoder:
            for name, wanted in self.names:
                wrong += distance(self.romanised(encoder, decoder, name), wanted)
                count += len(wanted)
        return 1 - wrong / count

    def romanised(self, encoder: Session, decoder: Session, name: str) -> str:
        """What both make of a name."""
        starts, letters = self.tables["target_char_to_ix"], self.tables["ix_to_target_char"]
        outputs, hidden, _ = encoder.run(self.feeds(name))
        state, last, found = np.concatenate([hidden[0], hidden[1]], axis=1)[None], starts["<start>"], ""
        mask = (self.ids(name) != 0).astype(np.float32)
        for _ in range(60):
            entering = {"decoder_input": np.array([[last]], np.int32), "decoder_hidden_1": state}
            scores, state = decoder.run({**entering, "encoder_outputs": outputs, "mask": mask})[:2]
            last = int(scores.argmax())
            if last == starts["<end>"]:
                break
            found += letters[str(last)]
        return found


@dataclass(frozen=True)
class Rows:
    """Classes of MNIST pictures that are read row by row; the first 8,000 trained the network."""

    source: Model
    pictures: Array
    labels: Array

    def calibration(self, samples: int) -> list[Feeds]:
        """Pictures that the network was trained with, without their labels."""
        return [{"x": self.pictures[:samples]}]

    def accuracy(self, model: Model) -> float:
        """Share of the last 2,000 pictures whose class is found."""
        with Session(model) as session:
            found = session.run({"x": self.pictures[8000:]})[0].argmax(axis=1)
        return float((found == self.labels[8000:]).mean())


def task_of(name: str) -> Task:
    """The network of that name, with its data."""
    root = shared.folder()
    assert root is not None
    data = root / "data"
    if name == "g2p":
        table = json.loads((data / "g2p" / "arpabet.json").read_text(encoding="utf-8"))
        letters = {x: i for i, x in enumerate(table["graphemes"]) if i >= 4 and x}
        return Words(_shared("g2p_arpabet"), table["words"], letters, table["phonemes"])
    if name == "thai":
        tables = json.loads((data / "thai" / "thai2rom_loader_onnx.json").read_text(encoding="utf-8"))
        with (data / "thai" / "thailand_provinces_th.csv").open(encoding="utf-8", newline="") as file:
            names = [(row[0], row[2].lower().replace(" ", "")) for row in csv.reader(file) if len(row) > 2]
        lines = (data / "thai" / "tnc_freq.txt").read_text(encoding="utf-8").splitlines()
        words = [w for w in (line.split("\t")[0] for line in lines) if len(w) > 2 and all("ก" <= x <= "๎" for x in w)]
        return Names(_shared("thai2rom_encoder"), _shared("thai2rom_decoder"), tables, names, words[:4000])
    raw, labels = labelled.pictures_of_mnist(data)
    return Rows(load(name), raw.reshape(-1, 28, 28).astype(np.float32) / 255, labels)


def _shared(name: str) -> Model:
    return load(str(shared.entry(f"models/{name}").path))


def rows(name: str, given: argparse.Namespace) -> None:
    """Print a row per share and repair."""
    task = task_of(name)
    runs = calibration.read(task.calibration(given.samples), task.source, samples=given.samples)
    groups = trace(task.source)
    whole = task.accuracy(task.source)
    print(f"{Path(name).stem}: {whole:.2%}", flush=True)
    scores = criteria.score(groups, given.criterion, 0, runs)
    for share in map(float, given.removed.split(",")):
        chosen = fit(
            groups, scores, Options(criterion=given.criterion, allocation=given.allocation, macs=f"{100 - share}%")
        )
        goal, removal = chosen.goals[0], Removal(groups, removed_classes(groups, chosen.removed))
        small = rewrite(groups, removal.removed_classes)
        for method in given.recover.split(","):
            start = time.perf_counter()
            model = small if method == "none" else recover(removal, small, runs, RecoveryOptions(method))[0]
            if given.train and method != "none":
                options = TrainingOptions(given.train, batch=given.batch, threads=1)
                model, done = learn_after(removal, model, runs, options)
                method = f"{method}, {done.best} of {given.train} steps ({done.rate:g})"
            seconds, found = time.perf_counter() - start, task.accuracy(model)
            removed = 1 - goal.reached / goal.before
            cells = (method, f"{removed:.1%}", f"{found:.2%}", f"{found / whole:.1%}", f"{seconds:.0f} s")
            print(f"| {Path(name).stem} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="g2p,thai")
    parser.add_argument("--criterion", default="obs")
    parser.add_argument("--allocation", default="greedy")
    parser.add_argument("--recover", default="none,least-squares")
    parser.add_argument("--removed", default="30,50,70")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--train", type=int, default=0)
    parser.add_argument("--batch", type=int, default=16)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    for name in given.network.split(","):
        rows(name, given)


if __name__ == "__main__":
    main()
