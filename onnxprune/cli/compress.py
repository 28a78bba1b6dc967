"""`onnxprune compress`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from onnxprune.cli import paths
from onnxprune.cli.option_requirements import heeded
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, data
from onnxprune.cli.options.execution import Where, place
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.compress import Compressed


@dataclass(frozen=True)
class CompressArgs(shared.Results):
    """What `compress` is asked for."""

    sizes: Sizes
    verify: bool
    time: bool
    place: Where
    data: Data

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        self.check_results("small.onnx")


@click.command(cls=Titled)
@heeded
@click.argument("model")
@click.option("-o", "--output", metavar="FILE", help="Where the smaller model goes; - is standard output.")
@sizes
@shared.verify
@shared.time
@place
@data
@click.option("--dry-run", is_flag=True, help="Do everything but write.")
@shared.force
@shared.as_json
@shared.conversation
@request(partial(CompressArgs, plan_out=None))
def compress(console: Console, args: CompressArgs) -> None:
    """Take out of MODEL what its function does not need, and prove that the outputs stay what they are.

    Dead nodes, no-ops, repeated expressions and unread outputs go, constants are computed, what scales and shifts a
    contraction is folded into its weight, contractions in a row are merged where that is smaller, and equal weights
    are stored once. Names, types and sizes of inputs and outputs stay, and no file gets larger.
    """
    args.check()
    console.progress("loading")
    source = args.sizes.load(args.model)
    if args.written is not None:
        paths.check_output(source, args.written, force=args.force)
    done = _compressed(console, source, args)
    if args.written is not None:
        from onnxprune.model import save

        console.progress("writing")
        save(done.model, args.written, force=args.force)
    _report(console, done, args)


def _compressed(console: Console, source: Model, args: CompressArgs) -> Compressed:
    """Compress.

    Raises:
        GoalMissed: the result is not proven.
    """
    from onnxprune.pipelines.compress import compressed
    from onnxprune.pipelines.prune import check_proven
    from onnxprune.pipelines.sparsify import RunInputs

    inputs = RunInputs(args.data.source, args.data.samples, args.sizes.numbers)
    where = args.place.settled(args.sizes.numbers) if args.time else None
    done = compressed(source, inputs, verify=args.verify, place=where, progress=console.progress)
    check_proven(done.groups, done.verdict)
    return done


def _report(console: Console, done: Compressed, args: CompressArgs) -> None:
    from onnxprune.report import compress as report
    from onnxprune.report import data as plain
    from onnxprune.report import text

    if args.as_json:
        files = {"model": args.model, "output": args.written}
        console.put_json(plain.header("compress") | files | report.compress_data(done))
        return
    tell = console.say if args.written == paths.PIPE or console.quiet else console.put
    tell([paths.arrow(args.model, args.written or "(not written)"), "", *report.compress_lines(done)])
    console.detail(text.stages(done.seconds))
