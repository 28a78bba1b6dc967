"""How a command tells what it did: as text or JSON on standard output, as a page, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from onnxprune.cli import paths
from onnxprune.cli.options.group import group
from onnxprune.cli.output import Console
from onnxprune.cli.types import FILE
from onnxprune.errors import UsageError

if TYPE_CHECKING:
    from onnxprune.model import Model


@dataclass(frozen=True)
class Account:
    """What a command has to tell at its end.

    Attributes:
        title: the first line: what was made into what.
        document: the result as plain data.
        lines: the result as text.
        files: what was read and written, by its role in the command: "model", "output".
        models: before and after, for what is drawn of their layers; None where there are not two.
        sizes: numbers for symbolic dims of both.
        commands: for every trial of a search, the command that makes its model.
    """

    title: str
    document: Mapping[str, Any]
    lines: Sequence[str]
    files: Mapping[str, str | None] = field(default_factory=dict)
    models: tuple[Model, Model] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    commands: Sequence[str] = ()


@dataclass(frozen=True)
class Reporting:
    """Where the account of a command goes.

    Attributes:
        report: the file of the page; None for no page.
        picture: the file of the picture; None for no picture.
        as_json: whether standard output is given plain data instead of text.
    """

    report: str | None
    picture: str | None
    as_json: bool

    def check(self, *outputs: str | None, inputs: Sequence[str], force: bool) -> None:
        """Refuse, before any work, what cannot be written.

        Args:
            outputs: the other files that the command writes.
            inputs: the files that it reads.
            force: whether existing files may be replaced.
        """
        for option, target in (("--report", self.report), ("--picture", self.picture)):
            if target == paths.PIPE:
                raise UsageError(f"{option} needs a file")
            if target is not None:
                paths.check_target(target, inputs=inputs, force=force)
        paths.check_distinct(self.report, self.picture, *outputs)
        if self.report is not None:
            from onnxprune.report.page import check_templates

            check_templates()
        if self.picture is not None:
            from onnxprune.report.picture import check_picture

            check_picture(self.picture)

    def tell(self, console: Console, account: Account) -> None:
        """Print the account, and write the page and the picture."""
        if self.as_json:
            console.put_json(account.document)
        elif account.lines:
            piped = account.files.get("output") == paths.PIPE
            (console.say if piped or console.quiet else console.put)(account.lines)
        if self.report is None and self.picture is None:
            return
        console.progress("drawing")
        difference = _difference(account)
        if self.picture is not None:
            from onnxprune.report.picture import picture_of

            made = picture_of(self.picture, account.title, {**difference, **account.document})
            paths.write_file(made, self.picture)
        if self.report is not None:
            from onnxprune.report.about import provenance
            from onnxprune.report.page import PageContent, page

            about = provenance(["onnxprune", *console.command], account.files)
            content = PageContent(
                title=account.title,
                document=account.document,
                difference=difference,
                lines=account.lines,
                about=about,
                commands=account.commands,
            )
            paths.write_file(page(content), self.report)
        console.finish()


def _difference(of: Account) -> dict[str, Any]:
    """The models before and after, as `diff --json` prints them; nothing where there are not two."""
    if of.models is None:
        return {}
    from onnxprune.report.difference import difference_of

    return difference_of(*of.models, of.sizes)


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout instead of text.")

reporting = group(
    "told",
    Reporting,
    click.option("--report", type=FILE, help="Also write a page of HTML that shows the result; it needs no network."),
    click.option(
        "--picture", "--plot", type=FILE, help="Also draw the result: a .svg, .png or .pdf; needs matplotlib."
    ),
    as_json,
)
