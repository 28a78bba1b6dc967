"""`onnxprune sensitivity`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import paths
from onnxprune.cli.option_requirements import heeded
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.cache import Cache, cached
from onnxprune.cli.output import Console
from onnxprune.cli.types import Ratios
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.allocation import Options
    from onnxprune.calibration import Source

METRICS = ("error", "sqnr", "cosine", "kl", "top1")


@click.command()
@heeded
@click.argument("model")
@click.option(
    "--ratios",
    metavar="LIST",
    type=Ratios(),
    default="0.1,0.3,0.5,0.7,0.9",
    show_default=True,
    help="Shares of a group's units that are removed, each measured by itself.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    default="error",
    show_default=True,
    help="What is shown: squared output error, signal to noise, cosine, divergence of classes, same class.",
)
@shared.evaluation
@shared.recovery("none", "Re-fit what is behind a cut before every measurement.")
@shared.data
@shared.choice
@shared.sizes
@shared.workers(None)
@cached("measurement")
@click.option("--picture", metavar="FILE", help="Draw the curves and a heat map with the chosen cut marked, as SVG.")
@shared.force
@shared.as_json
@shared.conversation
def sensitivity(
    console: Console,
    model: str,
    ratios: tuple[float, ...],
    metric: str,
    evaluate: str | None,
    recover: str,
    data: Source | None,
    samples: int,
    options: Options,
    sizes: dict[str, int],
    workers: Any,
    cache: Cache,
    picture: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Measure what it costs the outputs of MODEL to cut each group, one group at a time.

    No labels are needed: outputs are compared with the original's on the inputs that --data gives. --ratio and what
    else says what to prune choose the cut that is marked. Finished measurements are kept: an interrupted command
    goes on where it was.
    """
    _check(model, picture, force=force)
    console.progress("loading")
    from onnxprune.pipelines import sensitivity as curves
    from onnxprune.pipelines.user_metric import Evaluation
    from onnxprune.recovery.recover import Options as Recovery
    from onnxprune.report import sensitivity as report

    source = paths.load(model)
    shared.check_sizes(source, sizes)
    settings = curves.Settings(
        ratios,
        samples,
        sizes,
        None if evaluate is None else Evaluation(evaluate),
        None if recover == "none" else Recovery(recover),
    )
    found = curves.measure(
        source,
        options,
        settings,
        data,
        workers=workers,
        cache=cache.path("sensitivity", source.digest),
        metric="" if evaluate else metric,
        progress=console.progress,
    )
    if picture is not None:
        from onnxprune.report.picture import of_sensitivity

        paths.write_text(of_sensitivity(found, paths.shown(model)), picture)
    if as_json:
        console.put_json({"model": model} | found.as_json())
    else:
        console.put(report.lines(found))


def _check(model: str, picture: str | None, *, force: bool) -> None:
    """Refuse what cannot work before any work is done."""
    if picture is None:
        return
    if picture == paths.PIPE:
        raise UsageError("--picture needs a file")
    paths.check_target(picture, inputs=[model], force=force)
    from onnxprune.report.picture import check_library

    check_library()
