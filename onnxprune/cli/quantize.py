"""`onnxprune quantize`: store weights, and compute, in whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from onnxprune.cli import missed_budgets, paths
from onnxprune.cli.option_requirements import check_requirements
from onnxprune.cli.options import common as shared
from onnxprune.cli.options.data import Data, data
from onnxprune.cli.options.execution import Where, place
from onnxprune.cli.options.group import Titled, request
from onnxprune.cli.options.quantization import quantizing
from onnxprune.cli.options.reporting import Account, Reporting, reporting
from onnxprune.cli.options.sizes import Sizes, sizes
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.quantize_options import QuantizeOptions
    from onnxprune.pipelines.quantized import Quantized


# What `--help` shows.
USUAL = ("--output", "--form", "--data", "--bits", "--size", "--latency", "--min-sqnr", "--max-drop")


@dataclass(frozen=True)
class QuantizeArgs:
    """What `quantize` is asked for."""

    model: str
    output: str
    options: QuantizeOptions
    sizes: Sizes
    data: Data
    time: bool
    place: Where
    accept_damage: bool
    force: bool
    told: Reporting

    def check(self) -> None:
        """Refuse what cannot work before any work is done."""
        paths.check_one_result(self.output, as_json=self.told.as_json)
        paths.check_target(self.output, inputs=[self.model], force=self.force)
        self.told.check(self.output, inputs=[self.model], force=self.force)


@click.command(cls=Titled, usual=USUAL)
@check_requirements
@click.argument("model", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="Where the model goes; - is standard output.")
@quantizing
@sizes
@shared.time
@place
@data
@shared.accept_damage
@shared.force
@reporting
@shared.conversation
@request(QuantizeArgs)
def quantize(console: Console, args: QuantizeArgs) -> None:
    """Quantise MODEL: weights, and what they are multiplied with, become whole numbers.

    Scales are chosen by ONNX Runtime's own quantiser. With --data, the numbers are then chosen layer by layer, in graph
    order, by what the layers make of it: each layer gives what it gave in float as closely as its numbers can, on
    inputs that are quantised already. The report says how far the outputs are from those of MODEL, and whether the
    result is faster.
    """
    args.check()
    console.progress("loading")
    from onnxprune.model import save
    from onnxprune.pipelines.run_inputs import RunInputs
    from onnxprune.pipelines.widths_and_bits import quantize_within

    source = args.sizes.load(args.model)
    paths.check_output(source, args.output, force=args.force)
    inputs = RunInputs(args.data.source, args.data.samples, args.sizes.numbers)
    is_timed = args.time or args.options.latency is not None
    where = args.place.settled(args.sizes.numbers) if is_timed else None
    done = quantize_within(source, args.options, inputs, place=where, progress=console.progress)
    console.progress("writing")
    save(done.model, args.output, force=args.force)
    with missed_budgets.damage_last(console, done.judged, accepted=args.accept_damage):
        _report(console, source, done, args)


def _report(console: Console, source: Model, done: Quantized, args: QuantizeArgs) -> None:
    from onnxprune.report import data as plain
    from onnxprune.report import quantize as report
    from onnxprune.report import text

    title, files = paths.arrow(args.model, args.output), {"model": args.model, "output": args.output}
    document, models = plain.header("report") | files | report.quantize_data(done), (source, done.model)
    lines = [title, "", *report.quantize_lines(done)]
    args.told.tell(console, Account(title, document, lines, files, models=models, sizes=args.sizes.numbers))
    if args.told.as_json:
        return
    if args.data.source is None:
        console.say(
            "hint: the numbers are the nearest ones; --data FILE, a few hundred inputs without labels, chooses better"
            " ones and says how far the outputs are"
        )
    if done.saturates and args.options.weights == "int8":
        console.say(
            "hint: on processors without instructions for it, ONNX Runtime adds products of uint8 and int8 in 16 bits,"
            " which saturate; with --weights uint8 it does not"
        )
    if done.unfolded:
        console.say(
            "hint: BatchNormalization is not folded into the layers in front of it; `onnxprune compress` before"
            " quantising does, at no loss"
        )
    console.detail(text.stages(done.seconds))
