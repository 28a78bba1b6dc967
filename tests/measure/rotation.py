"""What rotating linear groups before the cut leaves of trained networks: the tables in docs/rotation.md.

    python -m tests.measure.rotation pictures [--macs 70,50,30] [--streams 12.5,25,50] [--train 0]
    python -m tests.measure.rotation stories [--removed 25,50,75] [--streams 12.5,25] [--macs 70,50] [--train 0]

Needs the folder of shared graphs (see tests/graphs/shared.py). `pictures`: a MobileNetV2 (0.5 wide, 128 x 128, whether
somebody is in the picture), 256 photographs to calibrate and 744 others, on which its log-odds are compared with the
original's: squared error as a share of their variance, and the share of pictures with the same answer. `--macs` cuts
all groups to a budget, `--streams` removes a share of the channels of the linear groups alone. `stories`: nats per
token of a small language model (see tests/measure/accuracy_text.py), with `--removed` of the dimensions of the values
in every head gone, or as above. All are repaired by least squares, and with --train take so many gradient steps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from onnxprune.allocation import Options
from onnxprune.model import Model, load
from onnxprune.pipelines import prune
from onnxprune.recovery import RecoveryOptions, TrainingOptions
from onnxprune.rewriting import rotatable_groups
from onnxprune.runtime import Session
from onnxprune.tracing import trace
from onnxprune.typing import Array
from tests.graphs import shared
from tests.measure.accuracy_text import cost, logits, stories

NETWORK = "mobilenetv2_128_05_st"
SIZE = 128
Judge = Callable[[Model], str]


def photographs(folder: Path) -> Array:
    """float32[pictures, 3, 128, 128], from -1 to 1."""
    opened = (Image.open(path).convert("RGB").resize((SIZE, SIZE)) for path in sorted(folder.glob("*.jpg")))
    return np.stack([np.asarray(picture, np.float32).transpose(2, 0, 1) / 127.5 - 1 for picture in opened])


def log_odds(model: Model, entry: str, pictures: Array) -> Array:
    """The logarithm of how much likelier the second class is, float64[pictures]."""
    with Session(model) as session:
        parts = [np.asarray(session.run({entry: part})[0], np.float64) for part in np.array_split(pictures, 24)]
    chances = np.log(np.clip(np.concatenate(parts), 1e-7, 1))
    return np.asarray(chances[:, 1] - chances[:, 0])


def compared(
    source: Model, data: Any, wanted: Sequence[dict[str, Any]], training: TrainingOptions | None, judge: Judge
) -> None:
    """A row for each of some options, without and with rotation."""
    recovery = RecoveryOptions(train=training)
    for options in wanted:
        for rotate in (False, True):
            start = time.perf_counter()
            found = prune.run(source, Options(**options, rotate=rotate), data=data, recovery=recovery)
            told = {name: value for name, value in options.items() if name != "only"}
            share = found.after.macs / found.before.macs
            cells = (f"{told}", "rotated" if rotate else "as it is", f"{share:.1%} of MACs", judge(found.model))
            print(*cells, f"{time.perf_counter() - start:.0f} s", sep="  ", flush=True)


def pictures(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Rows of the MobileNetV2."""
    folder = shared.folder()
    if folder is None:
        parser.error(shared.ABSENT)
    source = load(str(shared.entry(f"models/{NETWORK}").path))
    (entry,) = [v.name for v in source.proto.graph.input if v.name not in source.initializers]
    calibrating, judging = (photographs(folder / "data" / "imagenet_sample" / part) for part in ("calibration", "test"))
    whole = log_odds(source, entry, judging)

    def judge(model: Model) -> str:
        found = log_odds(model, entry, judging)
        error = np.square(found - whole).mean() / whole.var()
        return f"error {error:.4f}, same answer {((found > 0) == (whole > 0)).mean():.1%}"

    linear = [*rotatable_groups(trace(source))]
    print(f"{NETWORK}: {len(linear)} linear groups", flush=True)
    shares = [{"ratio": share / 100, "only": linear} for share in given.streams]
    budgets = [{"macs": f"{share:g}%"} for share in given.macs]
    training = TrainingOptions(given.train, augment=["flip"], threads=1) if given.train else None
    compared(source, [{entry: calibrating}], [*shares, *budgets], training, judge)


def texts(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Rows of the language model."""
    source, entry, calibrating, judging = stories(parser)
    stream = [*rotatable_groups(trace(source))]
    values = [*rotatable_groups(trace(source, head_dims=True)).keys() - {*stream}]
    print(f"{cost(logits(source, entry, judging), judging):.3f} nats, {len(stream)} streams", flush=True)
    wanted: list[dict[str, Any]] = [{"ratio": share / 100, "only": stream} for share in given.streams]
    wanted += [{"macs": f"{share:g}%"} for share in given.macs]
    wanted += [{"ratio": share / 100, "only": values, "head_dims": True} for share in given.removed]
    compared(
        source,
        [{entry: calibrating}],
        wanted,
        TrainingOptions(given.train, batch=8, threads=1) if given.train else None,
        lambda model: f"{cost(logits(model, entry, judging), judging):.3f} nats",
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("pictures", "stories"))

    def listed(text: str) -> list[float]:
        return [float(part) for part in text.split(",") if part]

    parser.add_argument("--macs", type=listed, default=[70, 50, 30])
    parser.add_argument("--streams", type=listed, default=[12.5, 25, 50])
    parser.add_argument("--removed", type=listed, default=[25, 50, 75])
    parser.add_argument("--train", type=int, default=0)
    given = parser.parse_args()
    (pictures if given.what == "pictures" else texts)(parser, given)


if __name__ == "__main__":
    main()
