"""Options that name calibration data, and what is fitted to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.group import DATA, Option, group, titled
from onnxprune.cli.types import FILE, LARGEST
from onnxprune.names import RECOVERIES

if TYPE_CHECKING:
    from onnxprune.calibration import Source
    from onnxprune.pipelines.evaluate import EvaluationData


@dataclass(frozen=True)
class Data:
    """Calibration data, not read yet.

    Attributes:
        source: where it comes from; None where there is none.
        samples: most samples to use.
    """

    source: Source | None
    samples: int


def _data(data: str | None, samples: int, preprocess: str | None, tokenizer: str | None) -> Data:
    if data is None:
        return Data(None, samples)
    from onnxprune.calibration import Source, check_exists

    check_exists(data)
    return Data(Source(data, preprocess, tokenizer), samples)


def _source(samples: Option) -> Option:
    """Declare a source of inputs; the command gets `data`."""
    return group(
        "data",
        _data,
        titled(
            DATA,
            click.option(
                "--data",
                metavar="SOURCE",
                type=FILE,
                help="Unlabelled inputs: .npz, .npy, Polygraphy .json, .jsonl of token ids, .txt with --tokenizer, a "
                "folder of arrays, images or test_data_set_*, module:function, or random.",
            ),
            samples,
            click.option(
                "--preprocess",
                type=FILE,
                help="How --data images become inputs: a TOML file, or imagenet, tf, caffe, unit or raw.",
            ),
            click.option("--tokenizer", type=FILE, help="The tokenizer.json of --data text."),
        ),
    )


_COUNT: Mapping[str, Any] = {"metavar": "N", "type": click.IntRange(1)}
# Calibration data.
data = _source(
    click.option("--samples", default=256, show_default=True, help="Most samples of --data to use.", **_COUNT)
)
# Data that judges.
test_data = _source(
    click.option("--samples", default=LARGEST, help="Most samples of --data to use; by default all.", **_COUNT)
)

RECOVERY = (
    "With --data: how what is behind a cut is re-fitted to the outputs that it gave. Without: bias and merge repair"
    " what the weights tell, the others nothing."
)


def recovery(default: str, text: str) -> Option:
    """Add `--recover`, the way to re-fit what is behind a cut."""
    methods = click.Choice(["none", *RECOVERIES])
    return titled(DATA, click.option("--recover", type=methods, default=default, show_default=True, help=text))


evaluation = click.option(
    "--eval",
    "evaluate",
    metavar="WHAT",
    help="Your own measure, higher is better: module:function, called with the path of a model, "
    "or a command with {model} in it that prints a number.",
)


@dataclass(frozen=True)
class Judging:
    """What models are judged by beside their agreement, as it was given; nothing is imported for it."""

    labels: str | None
    metrics: str | None
    judged: str | None
    evaluate: str | None

    def settled(self, data: Any, **more: Any) -> EvaluationData:
        """The same, checked, with the data that it is measured on; `more` are other fields of `EvaluationData`."""
        from onnxprune.pipelines import Evaluation
        from onnxprune.pipelines.evaluate import EvaluationData

        return EvaluationData(
            data=data,
            labels=self.labels,
            metrics=[name.strip() for name in self.metrics.split(",")] if self.metrics else (),
            output=self.judged,
            evaluation=None if self.evaluate is None else Evaluation(self.evaluate),
            **more,
        )


# Labels, and a measure of the user's own; the command gets `judging`.
judging = group(
    "judging",
    Judging,
    click.option(
        "--labels",
        metavar="KEY",
        help="Name of the labels' array in --data; folder, for pictures in a folder for each class; or a column of a "
        "table, FILE.csv:COLUMN or FILE.jsonl:COLUMN. A label below 0 does not count.",
    ),
    click.option(
        "--metric",
        "metrics",
        metavar="NAME,NAME",
        help="accuracy, top5 (or any number), f1, iou, auc; mae, rmse, r2 for labels that are numbers; by default "
        "those that suit the output.",
    ),
    click.option("--judge", "judged", metavar="OUTPUT", help="The output that labels belong to; by default the first."),
    evaluation,
)
