"""Options that several commands share, each defined once."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import paths
from onnxprune.cli.options.group import DATA, Command, titled
from onnxprune.cli.options.reporting import Account, Reporting
from onnxprune.cli.output import Console
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.cli.options.sizes import Sizes
    from onnxprune.model import Model
    from onnxprune.rewriting import Plan


@dataclass(frozen=True)
class WrittenModel:
    """A model that a command makes of another one, and writes: a part of its request."""

    model: str
    output: str | None
    dry_run: bool
    force: bool
    told: Reporting

    @property
    def written(self) -> str | None:
        """Where the model goes; None in a dry run."""
        return None if self.dry_run else self.output

    @property
    def may_replace(self) -> bool:
        """Whether existing files may be overwritten."""
        return self.force

    def check_written(self, example: str, *, inputs: Sequence[str] = (), beside: Sequence[str | None] = ()) -> None:
        """Refuse, before any work, results that cannot be written.

        Args:
            example: the name of an output, for the hint where none is given.
            inputs: files that are read beside the model.
            beside: files that are written beside it.
        """
        if self.output is None and not self.dry_run:
            raise UsageError("no output: -o FILE is missing", hint=f"add -o {example}, or --dry-run to only look")
        paths.check_one_result(self.output, as_json=self.told.as_json)
        read = [self.model, *inputs]
        if not self.dry_run:
            for target in (self.output, *beside):
                if target is not None:
                    paths.check_target(target, inputs=read, force=self.may_replace)
        self.told.check(self.output, *beside, inputs=read, force=self.may_replace)


@dataclass(frozen=True)
class Results(WrittenModel):
    """What a command that changes a model writes, and how: a part of its request."""

    plan_out: str | None

    def check_results(self, example: str, *, plan_hint: str = "") -> None:
        """Refuse, before any work, results that cannot be written.

        Args:
            example: the name of an output, for the hint where none is given.
            plan_hint: what to do where the plan is to go to standard output.
        """
        if self.plan_out == paths.PIPE:
            raise UsageError("--plan-out needs a file", hint=plan_hint)
        self.check_written(example, beside=[self.plan_out])

    def tell(self, console: Console, document: Mapping[str, Any], lines: Sequence[str], **more: Any) -> None:
        """Tell what was done.

        Args:
            console: prints it.
            document: the result as plain data; its kind and the files stand in front of it.
            lines: the result as text.
            more: what else an `Account` has.
        """
        header = {name: document[name] for name in ("format", "version")}
        files = {"model": self.model, "output": self.written}
        title = paths.arrow(self.model, self.written or "(not written)")
        self.told.tell(console, Account(title, {**header, **files, **document}, [title, "", *lines], files, **more))

    def load(self, console: Console, sizes: Sizes) -> Model:
        """Load the model, and refuse before the long work an output that only a loaded model shows to be wrong."""
        console.progress("loading")
        source = sizes.load(self.model)
        if self.written is not None:
            paths.check_output(source, self.written, force=self.may_replace)
        return source

    def write(self, console: Console, model: Model, texts: Mapping[str, str]) -> None:
        """Write the model and the text files that go with it, or nothing; nothing in a dry run.

        Args:
            console: is told.
            model: the result.
            texts: file -> its content.
        """
        if self.written is None:
            return
        from onnxprune.model import save

        console.progress("writing")
        with paths.staged(texts):
            save(model, self.written, force=self.may_replace)

    def plan_text(self, plan: Plan) -> dict[str, str]:
        """The file of the plan and its text; nothing where none is written."""
        return {} if self.plan_out is None or self.dry_run else {self.plan_out: plan.to_json()}


def conversation(function: Command) -> Command:
    """Add `-q` and `-v`; the command gets the console as its first argument."""

    @click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
    @click.option("-v", "--verbose", count=True, help="Say more: -v stages and times, -vv debug log and tracebacks.")
    @click.pass_obj
    @functools.wraps(function)
    def wrapped(console: Console, /, *, quiet: bool, verbose: int, **given: Any) -> None:
        console.quiet, console.verbosity = quiet, verbose
        console.attach_log()
        function(console, **given)

    return wrapped


force = click.option("--force", is_flag=True, help="Overwrite existing files (never the input).")

accept_damage = titled(
    DATA,
    click.option(
        "--accept-damage",
        is_flag=True,
        help="Exit with 0 even where the outputs on samples of --data are far from the original's after all repair.",
    ),
)

time = click.option(
    "--time/--no-time",
    default=True,
    help="Measure whether a run got faster, by default; --no-time skips it.",
)

verify = click.option("--verify/--no-verify", default=True, help="Prove the result, by default; --no-verify skips it.")
