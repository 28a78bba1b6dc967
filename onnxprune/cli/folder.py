"""`onnxprune prune FOLDER` and `drop FOLDER`: several graphs with their configuration, changed together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxprune.cli import paths
from onnxprune.cli.drop_args import DropArgs
from onnxprune.cli.options.common import WrittenModel
from onnxprune.cli.options.sizes import Sizes
from onnxprune.cli.output import Console
from onnxprune.cli.prune_args import PruneArgs
from onnxprune.errors import UsageError
from onnxprune.folder import Folder, Smaller, check_folder_target, read_folder, write_folder
from onnxprune.pipelines.drop_folder import shorter_folder
from onnxprune.pipelines.prune_folder import folder_options, smaller_folder

if TYPE_CHECKING:
    from onnxprune.model import Model
    from onnxprune.pipelines.dropped import Dropped
    from onnxprune.pipelines.prune import Outcome


@dataclass(frozen=True)
class FolderArgs(PruneArgs):
    """What `prune` is asked for, of a folder.

    Attributes:
        folder: the folder.
    """

    folder: Folder

    def check(self) -> None:
        """Nothing: `of_folder` has checked everything."""

    def load(self, console: Console, sizes: Sizes) -> Model:
        """The graphs as one model."""
        return self.folder.model(rows=bool(self.options.rows))

    def write_outcome(self, console: Console, outcome: Outcome, texts: Mapping[str, str]) -> None:
        """Write the folder and the text files that go with it, or nothing; nothing in a dry run."""
        _write(console, self, smaller_folder(self.folder, outcome), texts)


@dataclass(frozen=True)
class FolderDropArgs(DropArgs):
    """What `drop` is asked for, of a folder.

    Attributes:
        folder: the folder.
    """

    folder: Folder

    def check(self) -> None:
        """Nothing: `layers_of_folder` has checked everything."""

    def load(self, console: Console, sizes: Sizes) -> Model:
        """The graphs as one model."""
        return self.folder.model(rows=False)

    def write_dropped(self, console: Console, done: Dropped) -> None:
        """Write the folder and the plan, or nothing; nothing in a dry run."""
        _write(console, self, shorter_folder(self.folder, done), self.plan_text(done.plan))


def layers_of_folder(console: Console, args: DropArgs) -> FolderDropArgs:
    """The request to drop layers with the folder that it is about.

    Raises:
        UsageError: the folder cannot be read, or its place be written.
    """
    if not args.list_only:
        args.check_amount()
    folder = _folder(console, args, args.plan_out, is_read_only=args.list_only)
    options = replace(args.options, allow_io_changes=True)
    return FolderDropArgs(**_given(args, folder, options))


def of_folder(console: Console, args: PruneArgs) -> FolderArgs:
    """The request with the folder that it is about, and with options for its graphs.

    Raises:
        UsageError: it asks for what is made for a single file, the folder cannot be read, or its place be written.
    """
    alone = {
        "--fine-tune-command": args.fine_tune_command,
        "--max-drop, a search": args.wanted,
        "--train": args.learning.steps,
        "--drop": args.options.drop,
        "--shape": args.sizes.shapes,
    }
    if wrong := next((option for option, given in alone.items() if given), None):
        raise UsageError(f"{wrong}: only for a single file, and {args.model} is a folder", hint="name a file in it")
    folder = _folder(console, args, args.plan_out)
    return FolderArgs(**_given(args, folder, folder_options(folder, args.options)))


def _folder(console: Console, args: WrittenModel, plan: str | None, *, is_read_only: bool = False) -> Folder:
    """Read the folder of a request.

    Raises:
        UsageError: it cannot be read, or its place be written.
    """
    if not is_read_only:
        if args.output == paths.PIPE or (args.output is None and not args.dry_run):
            raise UsageError("a folder goes into a folder: -o FOLDER is missing", hint="add -o smaller, or --dry-run")
        if args.written is not None:
            check_folder_target(Path(args.model), Path(args.written), force=args.force)
        if plan is not None and not args.dry_run:
            paths.check_target(plan, inputs=[args.model], force=args.force)
    args.told.check(args.output, plan, inputs=[args.model], force=args.force)
    console.progress("loading")
    return read_folder(Path(args.model))


def _given(args: PruneArgs | DropArgs, folder: Folder, options: object) -> dict[str, Any]:
    """The fields of a request, with its folder, options for the model of that, and the sizes that the folder states."""
    given = {field.name: getattr(args, field.name) for field in fields(args)}
    return {**given, "options": options, "sizes": Sizes({**folder.sizes, **args.sizes.numbers}), "folder": folder}


def _write(console: Console, args: FolderArgs | FolderDropArgs, smaller: Smaller, texts: Mapping[str, str]) -> None:
    """Write the folder and the text files that go with it, or nothing; nothing in a dry run."""
    if args.written is not None:
        console.progress("writing")
        with paths.staged(texts):
            write_folder(args.folder, smaller, Path(args.written), force=args.force)
