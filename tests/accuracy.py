"""What criteria, allocations and repairs leave of the accuracy of trained networks: the tables in docs/accuracy.md.

    python -m tests.accuracy [--network NAME ...] [--criteria l2,obs] [--recover none,least-squares]
                             [--removed 30,50,70] [--samples 256] [--random] [--allocation uniform,sensitivity]
                             [--pictures 10000]

Needs the folder of shared models and data (see tests/shared.py). Calibration pictures are drawn from the training
pictures with seed 1, accuracy is that on the 10,000 test pictures, or on some that are drawn with seed 0. A budget on
MACs says how much goes. Without samples (0) the repair is that without data; with --random the samples are random
numbers, which BatchNormalization's statistics are matched to.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Mapping, Sequence

import numpy as np

from onnxprune import calibration, criteria, datafree, matching, recover
from onnxprune.cut import Cut
from onnxprune.goals import fit
from onnxprune.grouping import Groups, trace
from onnxprune.labels import Array
from onnxprune.model import Model, load
from onnxprune.options import Options
from onnxprune.rewrite import rewrite
from onnxprune.runtime import Session
from onnxprune.selection import gone
from tests import shared

NETWORKS = ("cifar_resnet20_ts_op11", "cifar_resnet32_ts_op13_bn", "cifar_resnet56_dynamo_op20")
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pictures(raw: Array) -> Array:
    """Pictures as the networks were trained on them, [n, 3, 32, 32]."""
    scaled = (raw.astype(np.float32) / 255 - np.float32(MEAN)) / np.float32(DEVIATION)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def prepared(model: Model, raw: Array) -> Array:
    """Pictures as a network takes them: some take the pixels themselves, channels last."""
    shape = model.proto.graph.input[0].type.tensor_type.shape.dim
    return raw.astype(np.float32) if shape[-1].dim_value == raw.shape[-1] else pictures(raw)


def drawn(samples: int, count: int = 10_000) -> dict[str, Array]:
    """Training pictures for calibration, drawn with seed 1, and test pictures with labels, drawn with seed 0."""
    folder = shared.folder()
    assert folder is not None
    train, test = (np.load(folder / "data" / "cifar10" / f"{name}.npz") for name in ("train_2000", "test"))
    chosen = np.random.default_rng(1).permutation(len(train["x"]))[:samples]
    judged = np.random.default_rng(0).permutation(len(test["x"]))[:count]
    return {"calibration": train["x"][chosen], "test": test["x"][judged], "labels": test["y"].reshape(-1)[judged]}


def entry_of(model: Model) -> str:
    """The name of the one input."""
    (name,) = [v.name for v in model.proto.graph.input if v.name not in model.initializers]
    return name


def repaired(cut: Cut, small: Model, runs: Sequence[recover.Runs], seen: Groups, method: str) -> Model:
    """The model after a repair, with data or without."""
    if method == "none":
        return small
    if runs:
        return recover.repair(cut, small, runs, recover.Options(method), seen=seen)[0]
    return datafree.repair(cut, small, method)


def accuracy(model: Model, name: str, test: Array, labels: Array) -> float:
    """Share of pictures whose class is found."""
    with Session(model) as session:
        found = [session.run({name: test[i : i + 250]})[0].argmax(axis=1) for i in range(0, len(test), 250)]
    return float((np.concatenate(found) == labels).mean())


def rows(name: str, given: argparse.Namespace, data: Mapping[str, Array]) -> None:
    """Print a row per criterion, allocation, share and repair; without samples there is no repair."""
    source = load(str(shared.entry(f"models/{name}").path))
    entry = entry_of(source)
    test, pictures_seen = (prepared(source, data[part]) for part in ("test", "calibration"))
    inputs = "random" if given.random else [{entry: pictures_seen}]
    runs = calibration.read(inputs, source, samples=given.samples) if given.samples else []
    groups = trace(source)
    seen = matching.stand_in(groups, runs) if given.random else groups
    whole = accuracy(source, entry, test, data["labels"])
    print(f"{name}: {whole:.2%}", flush=True)
    for criterion in given.criteria.split(","):
        scores = criteria.score(seen, criterion, 0, runs)
        for allocation, share in itertools.product(given.allocation.split(","), map(float, given.removed.split(","))):
            chosen = fit(groups, scores, Options(criterion=criterion, allocation=allocation, macs=f"{100 - share}%"))
            goal, cut = chosen.goals[0], Cut(groups, gone(groups, chosen.removed))
            small = rewrite(groups, cut.gone)
            for method in given.recover.split(","):
                start = time.perf_counter()
                model = repaired(cut, small, runs, seen, method)
                seconds = time.perf_counter() - start
                found = accuracy(model, entry, test, data["labels"])
                removed = 1 - goal.reached / goal.before
                cells = (f"{removed:.1%}", f"{found:.2%}", f"{found / whole:.1%}", f"{seconds:.0f} s")
                print(f"| {name} | {criterion} | {allocation} | {method} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", action="append")
    parser.add_argument("--criteria", default="l2,obs")
    parser.add_argument("--recover", default="none,least-squares")
    parser.add_argument("--removed", default="30,50,70")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--random", action="store_true", help="random numbers, not pictures")
    parser.add_argument("--allocation", default="uniform,sensitivity")
    parser.add_argument("--pictures", type=int, default=10000)
    given = parser.parse_args()
    if shared.folder() is None:
        parser.error(shared.ABSENT)
    data = drawn(given.samples, given.pictures)
    for name in given.network or NETWORKS:
        rows(name, given, data)


if __name__ == "__main__":
    main()
