"""Options of training by gradient steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli.options.group import TRAINING, Option, group, titled
from onnxprune.cli.types import Pair, Words
from onnxprune.names import (
    AUGMENTATIONS,
    LOSSES,
    OPTIMIZERS,
    RATE_SCHEDULES,
    TEMPERATURES,
    WHILE_TRAINING,
    ZEROS_WHILE_TRAINING,
)

if TYPE_CHECKING:
    from onnxprune.cli.kept_training import KeptTraining
    from onnxprune.cli.options.execution import Where
    from onnxprune.recovery import TrainingOptions

# Steps that take months; samples that no memory holds as one batch; runs for one step.
MOST_STEPS, LARGEST_BATCH, MOST_RUNS = 100_000_000, 1 << 20, 1 << 16


@dataclass(frozen=True)
class Learning:
    """How to train, not checked yet; nothing is imported for it.

    Attributes:
        steps: steps to make; None for none.
        given: the other fields of `TrainingOptions`.
    """

    steps: int | None
    given: dict[str, Any]

    def settled(self, kept: KeptTraining, where: Where, workers: Any = 1) -> TrainingOptions | None:
        """The same, checked; None where nothing is trained.

        Args:
            kept: where training is kept while it lasts.
            where: what models run on.
            workers: who computes gradients.
        """
        if self.steps is None:
            return None
        from onnxprune.recovery import TrainingOptions

        run = {"provider": where.provider, "threads": where.threads, "workers": workers}
        return TrainingOptions(self.steps, saving=kept.saving(), **run, **self.given)


def _learning(
    training_steps: int | None,
    rates: tuple[tuple[str, float], ...] = (),
    while_training: str | None = None,
    **given: Any,
) -> Learning:
    more = ({"rates": dict(rates)} if rates else {}) | ({"while_training": while_training} if while_training else {})
    return Learning(training_steps, given | more)


_RATE = click.option(
    "--rate",
    metavar="RATE",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Highest learning rate; found by short trials from the model as it is if not given.",
)
_AUGMENT = click.option(
    "--augment",
    metavar="NAME,NAME",
    type=Words(AUGMENTATIONS),
    default=(),
    help=f"Train on transformed pictures: {', '.join(AUGMENTATIONS)}; the teacher sees them too.",
)
_BATCH = click.option(
    "--batch",
    metavar="N",
    type=click.IntRange(1, LARGEST_BATCH),
    default=64,
    show_default=True,
    help="Samples whose gradients make a step.",
)
_PARTS = click.option(
    "--parts",
    metavar="N",
    type=click.IntRange(1, LARGEST_BATCH),
    default=None,
    help="Parts that a batch is cut into, whose gradients are averaged; by default as many as there are workers.",
)
_INTERMEDIATE = click.option(
    "--intermediate",
    metavar="GLOB",
    multiple=True,
    help="Tensors inside of the model that shall be the teacher's, too; may be repeated.",
)
_PADDING = click.option(
    "--padding-mask",
    "padding",
    metavar="INPUT",
    default=None,
    help="An input that is 0 where tokens are padding: outputs there do not count.",
)
_STATISTICS = click.option(
    "--norm-statistics",
    is_flag=True,
    help="After the last step, estimate the statistics of BatchNormalization again on --data; kept if better.",
)
_TEMPERATURE = click.option(
    "--temperature",
    metavar="T",
    type=click.FloatRange(*TEMPERATURES),
    default=None,
    help="Take outputs for logits, and learn the probabilities at this temperature; by default outputs as they are.",
)

_ALL: tuple[Option, ...] = (
    click.option(
        "--steps",
        "training_steps",
        metavar="N",
        type=click.IntRange(1, MOST_STEPS),
        required=True,
        help="Gradient steps to take.",
    ),
    click.option(
        "--loss",
        type=click.Choice(LOSSES),
        default=None,
        help="What is made small: distil (the default with --teacher) or mse to the teacher's outputs, cross-entropy "
        "(the default with --labels) or mse to labels.",
    ),
    _RATE,
    click.option(
        "--optimizer",
        type=click.Choice(OPTIMIZERS),
        default=None,
        help="How a gradient becomes a step; by default relative, and adamw where --rate is given.",
    ),
    click.option(
        "--schedule",
        type=click.Choice(RATE_SCHEDULES),
        default="cosine",
        show_default=True,
        help="How the rate falls to the end.",
    ),
    click.option(
        "--warm-up",
        metavar="N",
        type=click.IntRange(0, MOST_STEPS),
        default=None,
        help="Steps over which the rate rises from zero; a twentieth of all by default.",
    ),
    _BATCH,
    click.option(
        "--accumulate",
        metavar="N",
        type=click.IntRange(1, MOST_RUNS),
        default=None,
        help="Runs whose gradients are averaged for a step; as many as make up --batch by default.",
    ),
    click.option(
        "--clip",
        metavar="NORM",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="Largest norm of all gradients together; 0 for no limit.",
    ),
    click.option(
        "--weight-decay",
        "decay",
        metavar="SHARE",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="Pull of the weights towards zero.",
    ),
    click.option(
        "--rate-for",
        "rates",
        metavar="GLOB=FACTOR",
        type=Pair(click.FloatRange(min=0)),
        multiple=True,
        help="Another rate, by a factor, for the weights that match; may be repeated, the first match wins.",
    ),
    click.option("--freeze", metavar="GLOB", multiple=True, help="Weights that stay as they are; may be repeated."),
    click.option(
        "--freeze-blocked",
        is_flag=True,
        help="Leave weights behind an operator that has no gradient as they are, in place of an error.",
    ),
    click.option(
        "--learn-scales",
        is_flag=True,
        help="Of a quantised model, learn the scales of weights and activations, too, not the numbers alone.",
    ),
    click.option(
        "--ema",
        "average",
        metavar="SHARE",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.0,
        show_default=True,
        help="Keep a running mean of the weights, 0.99 of it at every step, and give that.",
    ),
    _AUGMENT,
    _INTERMEDIATE,
    _PADDING,
    _STATISTICS,
    _TEMPERATURE,
    click.option(
        "--patience",
        metavar="N",
        type=click.IntRange(0),
        default=15,
        show_default=True,
        help="The loss on held-out samples is measured 25 times in a run: end after so many in a row without a better "
        "one; 0 never.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Decides the order of samples."),
    _PARTS,
)
_AFTER: tuple[Option, ...] = (
    click.option(
        "--train",
        "training_steps",
        metavar="N",
        type=click.IntRange(1, MOST_STEPS),
        default=None,
        help="After the repair, make so many gradient steps towards the original's outputs on --data.",
    ),
    _RATE,
    _BATCH,
    _AUGMENT,
    _INTERMEDIATE,
    _PADDING,
    _STATISTICS,
    _TEMPERATURE,
    _PARTS,
)

_EVERY = click.option(
    "--every",
    metavar="K",
    type=click.IntRange(1, MOST_STEPS),
    default=None,
    help="Steps between two choices of --while-training; as many as make some fifteen choices by default.",
)


def _while_training(ways: Sequence[str], text: str) -> Option:
    return click.option("--while-training", type=click.Choice(ways), default=None, help=text)


resume = titled(
    TRAINING,
    click.option(
        "--resume",
        is_flag=True,
        help="Go on from the checkpoint beside the output that an interrupted run left; begin again if there is none.",
    ),
)

# All of it; the command gets `learning`.
learning = group("learning", _learning, titled(TRAINING, *_ALL))


def _after(ways: Sequence[str], text: str) -> Option:
    """Training after a repair; the command gets `learning`, with no steps where it is not asked for."""
    return group("learning", _learning, titled(TRAINING, *_AFTER, _while_training(ways, text), _EVERY))


learning_after = _after(
    WHILE_TRAINING,
    "Choose in the first half of the steps which units go, not before: soft masks ever more of them, chosen again "
    "every K steps, and what went may return; the others draw units to zero, as strongly as is needed.",
)
learning_zeros = _after(
    ZEROS_WHILE_TRAINING,
    "Choose in most of the steps where zeros are, not before: gradual masks the smallest weights, ever more of them, "
    "and what went may return; rigl exchanges them for those with large gradients; l1 draws them to zero.",
)
